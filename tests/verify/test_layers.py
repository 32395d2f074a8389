"""check_layers finds a fault that is planted in one layer of a network, and names the layer."""

from __future__ import annotations

import heapq

import numpy as np
import pytest

import minires as mr
from minires import autograd, ops
from minires.verify.layers import check_layers, first_fault
from minires.verify.network import disturb, verify
from minires.verify.planted import Mutation


@pytest.fixture
def resnet20(rng):
    mr.manual_seed(1)
    return disturb(mr.models.create("resnet20", width=4).astype("float64"), rng)


def images(rng, size=(9, 12)):
    return rng.standard_normal((2, 3, *size))


def plant(monkeypatch, operation, module, change, attribute="backward"):
    """From now on what `operation` gives in `module` goes through `change`."""
    sound = getattr(operation, attribute)

    def wrong(self, *arrays):
        result = sound(self, *arrays)
        return change(result) if self.module == module else result

    monkeypatch.setattr(operation, attribute, wrong)


@pytest.mark.parametrize("name", ["resnet20", "plain20", "resnet18", "resnet50", "vgg16"])
@pytest.mark.parametrize("training", [True, False])
def test_sound_networks_have_no_fault(rng, name, training):
    options = {"width": 2, "num_classes": 5} | ({"hidden": 5} if name == "vgg16" else {})
    model = disturb(mr.models.create(name, **options).astype("float64").train(training), rng)
    layers = check_layers(model, images(rng, (33, 40)))
    assert first_fault(layers) is None
    assert layers[0].operation == "Linear"
    assert layers[-1].module in ("conv1", "features.0")
    assert all(layer.error <= 1e-7 for layer in layers)


@pytest.mark.parametrize("shortcut", ["A", "B", "C"])
def test_every_shortcut(rng, shortcut):
    model = disturb(mr.models.create("resnet32", width=2, shortcut=shortcut).astype("float64"), rng)
    assert first_fault(check_layers(model, images(rng))) is None


@pytest.mark.parametrize("factor", [-7.0, -1.0, 0.0, 1.0001, np.nan])
def test_a_factor_in_one_batch_norm(rng, resnet20, monkeypatch, factor):
    plant(monkeypatch, ops.BatchNorm, "layer2.1.bn1", lambda grads: (grads[0] * factor, *grads[1:]))
    fault = first_fault(check_layers(resnet20, images(rng)))
    assert fault is not None
    assert (fault.module, fault.operation, fault.fault.what, fault.fault.input) == (
        "layer2.1.bn1", "BatchNorm", "gradient", "x",
    )  # fmt: skip
    if factor not in (1.0001, 0.0) and np.isfinite(factor):
        assert fault.fault.analytical / fault.fault.numerical == pytest.approx(factor, rel=1e-4)


def test_one_element_of_one_weight(rng, resnet20, monkeypatch):
    def change(grads):
        grads[1][2, 1, 0, 2] += 1e-3
        return grads

    plant(monkeypatch, ops.Conv2d, "layer1.2.conv2", change)
    fault = first_fault(check_layers(resnet20, images(rng)))
    assert (fault.module, fault.fault.input, fault.fault.index) == ("layer1.2.conv2", "weight", (2, 1, 0, 2))
    assert fault.fault.analytical - fault.fault.numerical == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.parametrize(
    ("operation", "module"),
    [
        (ops.ReLU, "layer3.0.relu"),
        (ops.Add, "layer1.1"),
        (ops.Linear, "fc"),
        (ops.Pad, "layer2.0.downsample"),
        (ops.Slice, "layer3.0.downsample"),
        (ops.AdaptiveAvgPool2d, "avgpool"),
        (ops.Reshape, ""),
    ],
)
def test_a_forgotten_half_in_any_operation(rng, resnet20, monkeypatch, operation, module):
    def change(grads):
        return (grads[0] / 2, *grads[1:]) if isinstance(grads, tuple) else grads / 2

    plant(monkeypatch, operation, module, change)
    fault = first_fault(check_layers(resnet20, images(rng)))
    assert (fault.module, fault.operation) == (module, operation.__name__)


def test_max_pooling_is_checked_away_from_ties(rng, monkeypatch):
    """Behind a ReLU whole windows are zero: there every difference quotient is wrong, and a fault must still show."""
    model = disturb(mr.models.create("resnet18", width=3).astype("float64"), rng)
    x = images(rng, (35, 33))
    assert first_fault(check_layers(model, x)) is None
    plant(monkeypatch, ops.MaxPool2d, "maxpool", lambda grad: grad * 1.01)
    fault = first_fault(check_layers(model, x))
    assert (fault.module, fault.fault.what) == ("maxpool", "gradient")


def test_a_shortcut_whose_gradient_is_dropped(rng, resnet20, monkeypatch):
    """The tape's own mistake: no operation is to blame, and the node where the sum is short is named."""
    summed = "as_array(parent.backend.add_forward(grads[parent], grad_input))"
    with Mutation("shortcut", autograd.backward, summed, "grad_input").planted():
        fault = first_fault(check_layers(resnet20, images(rng)))
    assert fault.fault.what == "sum"
    assert fault.module == "layer3.1.relu"  # feeds layer3.2's convolution and its shortcut


def test_a_leaf_that_drops_a_gradient(rng, monkeypatch):
    """A weight that is used twice gets both gradients."""
    weight = mr.tensor(rng.standard_normal((3, 3)), requires_grad=True)

    def fn(x):
        return mr.functional.linear(mr.functional.linear(x, weight), weight)

    class Twice(mr.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = weight

        def forward(self, x):
            return fn(x)

    assert first_fault(check_layers(Twice(), rng.standard_normal((4, 3)))) is None
    monkeypatch.setattr(autograd, "_accumulate", lambda leaf, grad, owned: setattr(leaf, "grad", grad.copy()))
    fault = first_fault(check_layers(Twice(), rng.standard_normal((4, 3))))
    assert (fault.operation, fault.module, fault.fault.what) == ("leaf", "weight", "sum")


def test_a_backward_that_is_wrong_only_in_the_network(rng, resnet20, monkeypatch):
    """The third call alone: replayed it is right, so what the network itself computed must be looked at."""
    sound, calls = ops.BatchNorm.backward, []

    def third_is_wrong(self, grad_output):
        grads = sound(self, grad_output)
        calls.append(self)
        return (grads[0] * 1.5, *grads[1:]) if len(calls) == 5 else grads

    monkeypatch.setattr(ops.BatchNorm, "backward", third_is_wrong)
    faults = [layer for layer in check_layers(resnet20, images(rng)) if layer.fault]
    assert [layer.operation for layer in faults] == ["BatchNorm"]


def test_the_model_is_restored(rng, resnet20):
    before = {name: array.copy() for name, array in resnet20.state_dict().items()}
    grad = np.ones(resnet20.fc.bias.shape)
    resnet20.fc.bias.grad = grad
    verify(resnet20, images(rng), cases=1)
    for name, array in resnet20.state_dict().items():
        np.testing.assert_array_equal(array, before[name], err_msg=name)
    assert resnet20.fc.bias.grad is grad
    assert resnet20.conv1.weight.grad is None


def test_dropout_is_replayed_with_its_mask(rng):
    model = mr.nn.Sequential(mr.nn.Linear(6, 5), mr.nn.Dropout(0.4), mr.nn.ReLU()).astype("float64")
    report = verify(model, rng.standard_normal((4, 6)))
    assert report.passed, report


def test_float32_is_refused(rng):
    with pytest.raises(TypeError, match="images must be float64, got float32"):
        check_layers(mr.models.create("resnet20", width=2), rng.standard_normal((2, 3, 8, 8)).astype(np.float32))
    with pytest.raises(TypeError, match=r"conv1\.weight must be float64"):
        check_layers(mr.models.create("resnet20", width=2), rng.standard_normal((2, 3, 8, 8)))


def test_a_custom_operation(rng):
    class Square(mr.Function):
        def forward(self, x):
            self.saved = x
            return x * x

        def backward(self, grad_output):
            return self.saved * grad_output

    fault = first_fault(check_layers(lambda x: Square()(x), rng.standard_normal((2, 3))))
    assert fault.fault.analytical / fault.fault.numerical == pytest.approx(0.5, rel=1e-6)
    assert str(fault.fault).startswith("the gradient is not the derivative of forward: x at index (")


def test_a_backward_that_raises_is_a_fault_of_its_layer(rng, resnet20, monkeypatch):
    def change(grads):
        raise IndexError("nothing\nthere")

    plant(monkeypatch, ops.BatchNorm, "layer2.1.bn1", change)
    layers = check_layers(resnet20, images(rng))
    fault = first_fault(layers)
    assert fault is layers[-1], "the walk ends there"
    assert (fault.module, fault.operation, fault.fault.what) == ("layer2.1.bn1", "BatchNorm", "error")
    assert str(fault.fault) == "backward raised IndexError: nothing there"
    report = verify(resnet20, images(rng), cases=1)
    assert report.culprit.module == "layer2.1.bn1"
    assert "nothing" in report.network


def test_a_call_that_cannot_be_repeated_is_a_fault_of_its_layer(rng, resnet20, monkeypatch):
    sound, calls = ops.BatchNorm.backward, []

    def once(self, grad_output):
        calls.append(self.module)
        if self.module == "layer2.1.bn1" and calls.count(self.module) == 2:
            raise ValueError("not twice")
        return sound(self, grad_output)

    monkeypatch.setattr(ops.BatchNorm, "backward", once)
    (fault,) = [layer for layer in check_layers(resnet20, images(rng)) if layer.fault]
    assert (fault.module, fault.fault.what) == ("layer2.1.bn1", "error")
    assert "repeated alone, raised ValueError: not twice" in str(fault.fault)


@pytest.mark.parametrize(
    ("change", "what", "message"),
    [
        (
            lambda grad: grad.astype(np.float32),
            "error",
            "returned for input 1 an array of dtype float32; the input has float64",
        ),
        (lambda grad: grad[:, :2], "error", "returned for input 1 an array of shape (8, 2, 3, 3); the input has (8, 4"),
        (lambda grad: grad.sum(axis=0, keepdims=True), "error", "an array of shape (1, 4, 3, 3)"),
    ],
)
def test_the_form_of_a_gradient(rng, resnet20, monkeypatch, change, what, message):
    plant(monkeypatch, ops.Conv2d, "layer2.0.conv1", lambda grads: (grads[0], change(grads[1]), *grads[2:]))
    fault = first_fault(check_layers(resnet20, images(rng)))
    assert (fault.module, fault.fault.what) == ("layer2.0.conv1", what)
    assert message in str(fault.fault)


@pytest.mark.parametrize("k", [-4, 4])
@pytest.mark.parametrize(
    ("operation", "module"),
    [
        (ops.BatchNorm, "layer2.1.bn1"),
        (ops.Conv2d, "layer1.2.conv2"),
        (ops.ReLU, "layer3.0.relu"),
        (ops.Linear, "fc"),
        (ops.AdaptiveAvgPool2d, "avgpool"),
    ],
)
def test_the_smallest_fault_that_is_found(rng, resnet20, monkeypatch, operation, module, k):
    """A factor of 1 + k·1e-6.  A random direction sees a fraction of the gradient's length, seldom below a quarter."""
    factor = 1 + k * 1e-6

    def change(grads):
        return (grads[0] * factor, *grads[1:]) if isinstance(grads, tuple) else grads * factor

    x = images(rng)
    assert first_fault(check_layers(resnet20, x)) is None
    plant(monkeypatch, operation, module, change)
    found = [first_fault(check_layers(resnet20, x, seed=seed)) for seed in range(3)]
    assert {fault.module for fault in found if fault} == {module}
    assert sum(fault is not None for fault in found) >= 2


def test_kinks_within_the_step_are_no_faults(rng):
    """At each of these distances from zero a step of 1e-6 crosses the kink, a smaller one may not."""
    x = rng.standard_normal((2, 3, 6, 5))
    x.flat[::9] = np.geomspace(1e-9, 1e-6, x.flat[::9].size) * rng.choice([-1, 1], x.flat[::9].size)
    for seed in range(5):
        assert first_fault(check_layers(mr.functional.relu, x, seed=seed)) is None
        x.flat[4::9] = 0
        assert first_fault(check_layers(mr.functional.relu, x, seed=seed)) is None


def test_a_lost_gradient(rng, resnet20, monkeypatch):
    """The tape forgets a node: what its user sent it is left over."""

    def push(heap, entry):
        if entry[1].module != "layer2.1.bn1":
            heapq.heappush(heap, entry)

    monkeypatch.setattr(autograd, "heappush", push)
    fault = first_fault(check_layers(resnet20, images(rng)))
    assert (fault.module, fault.operation, fault.fault.what) == ("layer2.1.bn1", "BatchNorm", "lost")


def test_a_parameter_that_its_module_did_not_register(rng):
    weight = mr.tensor(rng.standard_normal((3, 3)), requires_grad=True)

    class Hidden(mr.nn.Module):
        def forward(self, x):
            return mr.functional.linear(x, weight)

    x = rng.standard_normal((4, 3))
    fault = first_fault(check_layers(Hidden(), x))
    assert (fault.heading, fault.fault.what) == ("leaf of shape (3, 3)", "lost")
    weight.grad = None
    assert (
        first_fault(check_layers(lambda x: mr.functional.linear(x, weight), x)) is None
    )  # a function has no parameters
