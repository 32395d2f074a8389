"""The first NaN or Inf, its node, and the frame that made it."""

from __future__ import annotations

import traceback

import numpy as np
import pytest

import minires as mr
import minires.functional as F
from minires.inspect.card import backward_card, forward_card


@pytest.fixture
def model():
    mr.manual_seed(0)
    return mr.models.create("resnet20", width=2)


@pytest.fixture
def images(rng):
    return rng.standard_normal((2, 3, 8, 8)).astype(np.float32)


def innermost(error):
    return list(traceback.walk_tb(error.__traceback__))[-1][0]


def test_an_overflowing_weight_in_forward(model, images):
    model.layer2[1].conv2.weight.data[...] = 3e38
    with pytest.raises(mr.inspect.AnomalyError) as caught, mr.inspect.detect_anomaly():
        F.cross_entropy(model(mr.tensor(images)), np.array([1, 2]))
    error = caught.value
    assert (error.node.module, error.node.name, error.phase) == ("layer2.1.conv2", "Conv2d", "forward")
    assert "Inf among" in str(error)
    assert "all of its inputs are finite" in str(error)
    assert str(error).startswith("forward of Conv2d of layer2.1.conv2: the output holds")
    assert f"called at {__file__}:" in str(error)
    frame = innermost(error)
    assert frame.f_code.co_filename.endswith("conv2d.py")
    assert frame.f_code.co_name == "forward"
    assert not np.isfinite(frame.f_locals["y"]).all()


class Total(mr.Function):
    """The sum of all inputs; the gradients of all inputs but x are infinite."""

    def forward(self, x, *others):
        return sum(others, x)

    def backward(self, grad_output):
        return grad_output, grad_output * np.inf, grad_output * np.inf


def tensor(*values):
    return mr.tensor(np.array(values), requires_grad=True)


@pytest.mark.parametrize(
    ("compute", "message"),
    [
        (
            lambda: F.batch_norm(mr.tensor(np.zeros((2, 3, 4, 4))), None, None, training=True, eps=0.0),
            "forward of BatchNorm: the output holds 96 NaN among 96",
        ),
        (lambda: F.relu(tensor(1.0, np.nan)), r"already bad: x \(1 NaN among 2 numbers\)"),
        (
            lambda: Total()(tensor(1.0, 1.0), tensor(np.nan, 1.0), tensor(np.nan, np.nan)),
            r"already bad: input 1 \(1 NaN among 2 numbers\), input 2 \(2 NaN among 2 numbers\)",
        ),
        (
            lambda: F.relu(tensor(1.0, 1.0)).backward(np.array([1.0, np.nan])),
            r"already bad: grad_output \(1 NaN among 2 numbers\)",
        ),
    ],
    ids=["zero variance", "input", "inputs", "gradient"],
)
def test_the_error_names_the_origin(compute, message):
    with pytest.raises(mr.inspect.AnomalyError, match=message), mr.inspect.detect_anomaly():
        compute()


def test_a_gradient_that_is_not_needed_is_not_judged():
    x, other = mr.tensor(np.ones(3), requires_grad=True), mr.tensor(np.ones(3))
    with mr.inspect.detect_anomaly():
        Total()(x, other, other).backward(np.ones(3))
    np.testing.assert_array_equal(x.grad, np.ones(3))


def test_numpys_warnings_are_silent_within_it_alone():
    with np.errstate(all="warn"):  # whatever an earlier test left
        before = np.geterr()
        with mr.inspect.detect_anomaly():
            assert set(np.geterr().values()) == {"ignore"}
        assert np.geterr() == before
        with pytest.raises(mr.inspect.AnomalyError), mr.inspect.detect_anomaly():
            F.relu(mr.tensor(np.array([np.inf])))
        assert np.geterr() == before


class Root(mr.Function):
    """√x, whose derivative at 0 is infinite."""

    def forward(self, x):
        self.saved = np.sqrt(x)
        return self.saved

    def backward(self, grad_output):
        return grad_output / (2 * self.saved)


def test_in_backward():
    x = mr.tensor(np.array([0.0, 4.0]), requires_grad=True)
    y = Root()(x) * 2.0
    with pytest.raises(mr.inspect.AnomalyError) as caught, mr.inspect.detect_anomaly():
        y.backward(np.ones(2))
    error = caught.value
    assert (error.node.name, error.phase) == ("Root", "backward")
    assert "the gradient of x holds 1 Inf among 2 numbers; all of its inputs are finite" in str(error)
    frame = innermost(error)
    assert (frame.f_code.co_name, frame.f_code.co_filename) == ("backward", __file__)
    assert frame.f_locals["grads"].tolist() == [np.inf, 0.5]


def test_an_overflowing_weight_in_backward():
    """The forward of zeros is finite, whatever the weight; the gradient of the input is not."""
    x = mr.tensor(np.zeros((2, 3), np.float32), requires_grad=True)
    with mr.module_scope("fc"):
        y = F.linear(F.relu(x), mr.tensor(np.full((4, 3), 3e38, np.float32)))
    with pytest.raises(mr.inspect.AnomalyError) as caught, mr.inspect.detect_anomaly():
        y.backward(np.ones((2, 4), np.float32))
    assert (caught.value.node.name, caught.value.node.module, caught.value.phase) == ("Linear", "fc", "backward")
    assert "the gradient of x holds 6 Inf among 6 numbers" in str(caught.value)


def test_without_source_it_still_finds_it():
    space = {"mr": mr, "np": np}
    exec("class Typed(mr.Function):\n    def forward(self, x):\n        return x * np.inf\n", space)
    message = "forward of Typed: the output holds 2 Inf"
    with pytest.raises(mr.inspect.AnomalyError, match=message) as caught, mr.inspect.detect_anomaly():
        space["Typed"]()(mr.tensor(np.ones(2)))
    assert any("not available" in note for note in caught.value.__notes__)


def test_a_healthy_step_passes_unchanged(model, images):
    def grads():
        model.zero_grad()
        F.cross_entropy(model(mr.tensor(images)), np.array([1, 2])).backward()
        return {name: p.grad for name, p in model.named_parameters()}

    expected = grads()
    with mr.inspect.detect_anomaly():
        found = grads()
    for name, grad in expected.items():
        assert np.array_equal(found[name], grad), name


def test_an_error_in_backward_names_module_and_place():
    class Broken(mr.Function):
        def forward(self, x):
            return x

        def backward(self, grad_output):
            raise ZeroDivisionError("planted")

    with mr.module_scope("layer3.1"):
        y = Broken()(mr.tensor(np.ones(2), requires_grad=True))
    with pytest.raises(ZeroDivisionError) as caught:
        y.backward(np.ones(2))
    (note,) = caught.value.__notes__
    assert "in backward of <Broken() of layer3.1: (2,) -> (2,)>" in note
    assert f"{__file__}:{test_an_error_in_backward_names_module_and_place.__code__.co_firstlineno + 9}" in note


def test_cards(model, images):
    loss = F.cross_entropy(model(mr.tensor(images)), np.array([1, 2]))
    text = str(mr.inspect.card(loss.node.parents[0]))
    assert text.startswith("Linear() of fc\n")
    assert "(10, 8) float32: mean " in text
    assert "parameters 90" in text
    assert "multiply-adds 160" in text
    assert __file__ in text
    assert "<table>" in mr.inspect.card(loss.node)._repr_html_()
    with pytest.raises(TypeError, match="node must be a Function"):
        mr.inspect.card(loss)


def test_cards_of_forward_and_backward():
    x = mr.tensor(np.ones(3), requires_grad=True)
    total = Total()(x, mr.tensor(np.ones(3)), mr.tensor(np.ones(3)))
    assert str(mr.inspect.card(total.node)).startswith("Total()")  # which keeps nothing
    arrays = forward_card(total.node, (x.data, None, x.data)).arrays
    assert [name for name, _ in arrays] == ["x", "input 2"]
    root = Root()(x)
    found = backward_card(root.node, np.full(3, 7.0))
    assert [(name, statistics.mean) for name, statistics in found.arrays] == [("grad_output", 7.0), ("saved", 1.0)]
    assert found.head == "Root(), backward"


def test_an_input_with_a_default_has_its_name():
    class Shifted(mr.Function):
        def forward(self, x, shift=None):
            return x if shift is None else x + shift

    y = Shifted()(mr.tensor(np.ones(3), requires_grad=True), mr.tensor(np.ones(3)))
    assert [name for name, _ in forward_card(y.node, (np.ones(3), np.ones(3))).arrays] == ["x", "shift"]


def test_tensors_show_their_statistics():
    x = mr.tensor(np.array([[np.nan, np.inf], [0.0, 1.0]] * 20), requires_grad=True)
    for shown in ("NaN", "Inf", "zeros", "25 %", "leaf"):
        assert shown in x._repr_html_()
    y = x * 2.0
    y.backward(np.ones(y.shape))
    assert "grad" in x._repr_html_()
