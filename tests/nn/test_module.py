"""Module: the tree, its names, its state, its modes."""

from __future__ import annotations

import re
import sys
from types import SimpleNamespace

import numpy as np
import pytest

import minires as mr
import minires.functional as F
from minires import nn
from minires.nn.module import evaluating


def network():
    return mr.models.create("resnet20", width=4)


def test_nodes_carry_the_path_of_the_module_that_made_them(rng):
    seen = {}

    class Paths(mr.Observer):
        def after_forward(self, node, arrays, output):
            seen.setdefault(node.module, []).append(node.name)

    with Paths():
        network()(mr.tensor(rng.standard_normal((2, 3, 8, 8)).astype(np.float32)))
    assert seen["layer2.0.conv1"] == ["Conv2d"]
    assert seen["layer2.0.downsample"] == ["Slice", "Pad"]
    assert seen["layer2.0"] == ["Add"]
    assert seen["layer2.0.relu"] == ["ReLU", "ReLU"]
    assert seen["fc"] == ["Linear"]
    assert seen[""] == ["Reshape"]


def test_named_modules_and_parameters():
    model = network()
    paths = [path for path, _ in model.named_modules()]
    assert paths[0] == ""
    assert len(paths) == len(set(paths))
    assert dict(model.named_modules())["layer3.2.bn1"] is model.layer3[2].bn1
    names = [name for name, _ in model.named_parameters()]
    assert names[:3] == ["conv1.weight", "bn1.weight", "bn1.bias"]
    assert all(p.requires_grad and p.is_leaf for p in model.parameters())
    assert dict(model.named_buffers())["bn1.running_mean"] is model.bn1.running_mean


def test_state_dict_round_trip():
    source, target = network(), network()
    assert not np.array_equal(source.conv1.weight.data, target.conv1.weight.data)
    held = target.conv1.weight.data
    target.load_state_dict({name: array.copy() for name, array in source.state_dict().items()})
    for name, array in target.state_dict().items():
        assert np.array_equal(array, source.state_dict()[name]), name
    assert target.conv1.weight.data is held  # copied into, not replaced


def test_load_state_dict_reports_everything_and_changes_nothing():
    model = network()
    state = {name: array + 1 for name, array in model.state_dict().items()}
    before = {name: array.copy() for name, array in model.state_dict().items()}
    del state["bn1.bias"]
    state["fc.weight"] = np.zeros((3, 3), np.float32)
    state["head.weight"] = np.zeros(3, np.float32)
    state["fc.bias"] = "no array"
    with pytest.raises(ValueError, match="does not fit") as error:
        model.load_state_dict(state)
    for expected in ("missing: bn1.bias", "fc.weight: shape (3, 3)", "unexpected: head.weight", "fc.bias: expected an"):
        assert expected in str(error.value)
    for name, array in model.state_dict().items():
        assert np.array_equal(array, before[name]), name


def test_load_state_dict_not_strict_takes_what_is_on_both_sides():
    model = network()
    model.load_state_dict({"bn1.bias": np.full(4, 2.0), "other": np.zeros(1)}, strict=False)
    assert (model.bn1.bias.data == 2).all()
    assert model.bn1.bias.dtype == np.float32


def test_counters_of_other_frameworks_are_passed_over():
    model = network()
    model.load_state_dict(model.state_dict() | {"bn1.num_batches_tracked": np.array(7)})


def test_train_and_eval_return_the_model_and_reach_every_module():
    model = network()
    assert model.eval() is model
    assert not any(m.training for m in model.modules())
    assert model.train() is model
    assert all(m.training for m in model.modules())


def test_astype_keeps_the_parameters_and_converts_everything():
    model = network()
    weight = model.conv1.weight
    assert model.astype("float64") is model
    assert model.conv1.weight is weight
    assert {array.dtype for array in model.state_dict().values()} == {np.dtype("float64")}
    for wrong in ("int32", "float16", "flot64", 3):
        with pytest.raises(TypeError, match="dtype must be float32 or float64"):
            model.astype(wrong)


def test_to():
    model = network()
    assert model.to("cpu") is model
    with pytest.raises(ValueError, match="device must be one of 'cpu', 'cuda'"):
        model.to("gpu")


def test_to_cuda_without_cupy_says_how_to_get_it():
    try:
        import cupy  # noqa: F401
    except ImportError:
        with pytest.raises(mr.BackendUnavailable, match="cuda12x"):
            network().to("cuda")
    else:
        pytest.skip("CuPy is installed")


@pytest.mark.parametrize(
    ("count", "explanation"),
    [(0, "CuPy is installed, but there is no GPU"), (None, "no usable GPU or driver: no driver"), (1, "")],
)
def test_to_cuda_with_cupy(monkeypatch, count, explanation):
    class CUDARuntimeError(RuntimeError):
        pass

    def device_count():
        if count is None:
            raise CUDARuntimeError("no driver")
        return count

    runtime = SimpleNamespace(getDeviceCount=device_count, CUDARuntimeError=CUDARuntimeError)
    moved = []
    cupy = SimpleNamespace(cuda=SimpleNamespace(runtime=runtime), asarray=lambda array: moved.append(array) or array)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    model = network()
    if explanation:
        with pytest.raises(mr.BackendUnavailable, match=explanation):
            model.to("cuda")
    else:
        model.to("cuda")
    assert len(moved) == (0 if explanation else len(model.state_dict()))


def test_replacing_an_attribute_replaces_the_registration():
    model = network()
    model.fc = nn.Linear(16, 3)
    assert model.state_dict()["fc.weight"].shape == (3, 16)
    model.fc = None
    assert "fc.weight" not in model.state_dict()


def test_forgetting_super_init_is_told():
    class Forgetful(nn.Module):
        def __init__(self):
            self.conv = nn.Conv2d(1, 1, 1)

    with pytest.raises(AttributeError, match="super"):
        Forgetful()


def test_repr_shows_the_tree():
    text = repr(network())
    assert "(conv1): Conv2d(3, 4, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), bias=False)" in text
    assert "(fc): Linear(16, 10)" in text


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: nn.Conv2d(0, 1, 3), ValueError, "in_channels must be at least 1, got 0"),
        (lambda: nn.Conv2d(4, 6, 3, groups=4), ValueError, "out_channels must be divisible by groups, got 6 and 4"),
        (lambda: nn.Conv2d(1, 1, 0), ValueError, "kernel_size must be at least 1, got 0"),
        (lambda: nn.Conv2d(1, 1, 3, padding=-1), ValueError, "padding must be at least 0, got -1"),
        (lambda: nn.Conv2d(1, 1, (3, 3, 3)), ValueError, "kernel_size must be an int or an"),
        (lambda: nn.Conv2d(1, 1, 3.0), TypeError, "kernel_size must be an int or an"),
        (lambda: nn.BatchNorm2d(3, momentum=2), ValueError, "momentum must be at least 0 and at most 1, got 2"),
        (lambda: nn.BatchNorm2d("3"), TypeError, "num_features must be an integer"),
        (lambda: nn.Linear(3, 0), ValueError, "out_features must be at least 1, got 0"),
        (lambda: nn.Dropout(1.1), ValueError, "p must be at least 0 and at most 1, got 1.1"),
        (lambda: nn.Sequential(3), TypeError, "modules must be Modules"),
        (lambda: nn.MaxPool2d(-2), ValueError, "kernel_size must be at least 1, got -2"),
    ],
)
def test_wrong_arguments(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    ("layer", "function"),
    [
        (nn.MaxPool2d(3, 2, 1, (1, 2), True), lambda x: mr.functional.max_pool2d(x, 3, 2, 1, (1, 2), True)),
        (nn.AvgPool2d(3, 2, 1, True, False), lambda x: mr.functional.avg_pool2d(x, 3, 2, 1, True, False)),
        (nn.AdaptiveAvgPool2d((2, None)), lambda x: mr.functional.adaptive_avg_pool2d(x, (2, None))),
        (nn.Flatten(2), lambda x: mr.functional.flatten(x, 2)),
        (nn.ReLU(), mr.functional.relu),
    ],
)
def test_layers_pass_their_options_on(layer, function, rng):
    x = mr.tensor(rng.standard_normal((2, 3, 9, 10)))
    assert np.array_equal(layer(x).data, function(x).data)


@pytest.mark.parametrize(
    ("layer", "function"), [(mr.nn.Tanh, np.tanh), (mr.nn.Sigmoid, lambda x: 1 / (1 + np.exp(-x)))]
)
def test_squashing_layers(rng, layer, function):
    x = rng.standard_normal((2, 3, 4))
    np.testing.assert_allclose(layer()(mr.tensor(x)).data, function(x), rtol=1e-14)
    assert repr(layer()) == f"{layer.__name__}()"


def test_dropout_only_in_training(rng):
    x = mr.tensor(rng.standard_normal((50, 40)))
    layer = nn.Dropout(0.25)
    mr.manual_seed(0)
    y = layer(x).data
    assert 0.15 <= (y == 0).mean() <= 0.35
    assert np.allclose(y[y != 0], x.data[y != 0] / 0.75, rtol=1e-15)
    assert np.array_equal(layer.eval()(x).data, x.data)


def test_what_a_name_was_it_stays():
    norm = nn.BatchNorm2d(3)
    norm.running_mean = np.full(3, 7, np.float32)
    assert "running_mean" in dict(norm.named_buffers())
    assert norm.state_dict()["running_mean"][0] == 7
    with pytest.raises(
        TypeError, match="weight is a parameter: its value can become another Tensor or None, got ndarray"
    ):
        norm.weight = np.ones(3, np.float32)
    assert norm.weight.requires_grad
    del norm.bias
    assert [name for name, _ in norm.named_parameters()] == ["weight"]
    assert not hasattr(norm, "bias")
    with pytest.raises(AttributeError):
        del norm.bias
    with pytest.raises(TypeError, match="counts must be an array, got list"):
        norm.register_buffer("counts", [1, 2])


def test_a_module_loads_its_own_arrays_exchanged():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    own = model.state_dict()
    first, second = own["0.weight"].copy(), own["1.weight"].copy()
    model.load_state_dict({**own, "0.weight": own["1.weight"], "1.weight": own["0.weight"]})
    np.testing.assert_array_equal(model[0].weight.data, second)
    np.testing.assert_array_equal(model[1].weight.data, first)


@pytest.mark.parametrize("spoil", ["overflow", "read-only"])
def test_loading_is_whole_or_not_at_all(spoil):
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    before = {name: array.copy() for name, array in model.state_dict().items()}
    state = {name: array.astype(np.float64) + 1 for name, array in before.items()}
    if spoil == "overflow":
        state["1.weight"][0, 0] = 1e300
        explanation = "1.weight: holds numbers beyond float32"
    else:
        model[1].weight.data.flags.writeable = False
        explanation = "1.weight: the module's array is read-only"
    with pytest.raises(ValueError, match=explanation):
        model.load_state_dict(state)
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def test_what_is_shared_is_counted_once():
    layer = nn.Linear(3, 3)
    model = nn.Sequential(layer, nn.ReLU(), layer)
    assert [path for path, _ in model.named_modules()] == ["", "0", "1"]
    assert [name for name, _ in model.named_parameters()] == ["0.weight", "0.bias"]
    assert set(model.state_dict()) == {"0.weight", "0.bias", "2.weight", "2.bias"}
    mr.optim.SGD(model.parameters(), 0.1)  # refuses a Tensor that comes twice
    other = nn.Linear(3, 3)
    other.weight = layer.weight
    tied = nn.Sequential(layer, other)
    assert [name for name, _ in tied.named_parameters()] == ["0.weight", "0.bias", "1.bias"]
    tied.astype("float64")
    assert tied[1].weight.dtype == np.float64


def test_the_layers_hand_their_options_on(rng):
    x = rng.standard_normal((2, 4, 5, 6)).astype(np.float32)
    conv = mr.nn.Conv2d(4, 3, (2, 3), padding="same", dilation=2)
    assert conv(mr.tensor(x)).shape == (2, 3, 5, 6)
    assert "padding='same'" in repr(conv)
    assert mr.nn.Conv2d(4, 3, 3, 2, "valid")(mr.tensor(x)).shape == (2, 3, 2, 2)
    np.testing.assert_array_equal(
        mr.nn.AvgPool2d(2, divisor_override=3)(mr.tensor(x)).data, F.avg_pool2d(x, 2, divisor_override=3).data
    )
    assert mr.nn.Flatten(1, end_dim=2)(mr.tensor(x)).shape == (2, 20, 6)
    for layer in (conv, mr.nn.MaxPool2d(2), mr.nn.AvgPool2d(2), mr.nn.AdaptiveAvgPool2d(2)):
        np.testing.assert_array_equal(layer(mr.tensor(x[0])).data, layer(mr.tensor(x[:1])).data[0])


@pytest.mark.parametrize("name", [3, None, ("fc", "weight")])
def test_names_of_a_state_are_text(name):
    layer = nn.Linear(2, 3)
    before = {path: array.copy() for path, array in layer.state_dict().items()}
    explanation = re.escape(f"state must map names to arrays, got {name!r} as a name")
    for strict in (True, False):
        with pytest.raises(TypeError, match=explanation):
            layer.load_state_dict({**before, name: np.zeros(2)}, strict=strict)
    with pytest.raises(TypeError, match=explanation):
        mr.optim.SGD(layer.parameters(), lr=0.1).load_state_dict({name: np.zeros(2)})
    for path, array in layer.state_dict().items():
        np.testing.assert_array_equal(array, before[path])


@pytest.mark.parametrize(("fan", "units"), [("out", 200), ("in", 50)])
def test_the_variance_of_weights_is_two_over_their_fan(fan, units):
    mr.manual_seed(0)
    weights = nn.init.he_normal((200, 50, 3, 2), fan)
    # 60,000 numbers: a deviation is known to 1/√120,000 of itself, five times of which are 1.5 %.
    assert weights.std() == pytest.approx(np.sqrt(2 / (units * 6)), rel=0.015)


def test_weights_are_drawn_again_after_they_were_skipped():
    with nn.init.skipped():
        assert not nn.init.he_normal((3, 2)).any()
    assert nn.init.he_normal((3, 2)).all()


def test_every_module_is_in_its_own_mode_after_an_evaluation():
    model = nn.Sequential(nn.Dropout(0.5), nn.Sequential(nn.ReLU()))
    model[0].eval()
    with evaluating(model):
        assert not any(module.training for module in model.modules())
    assert [module.training for module in model.modules()] == [True, False, True, True]


def test_a_list_of_modules_holds_their_parameters_and_names_their_nodes(rng):
    class Net(mr.nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = mr.nn.ModuleList(mr.nn.Linear(3, 3) for _ in range(2))
            self.layers.append(mr.nn.ModuleList([mr.nn.Tanh()]))

        def forward(self, x):
            for layer in self.layers[:2]:
                x = layer(x)
            return self.layers[2][0](x)

    net = Net()
    assert [name for name, _ in net.named_parameters()] == [
        *("layers.0.weight", "layers.0.bias", "layers.1.weight", "layers.1.bias"),
    ]
    assert list(net.state_dict()) == [name for name, _ in net.named_parameters()]
    y = net(mr.tensor(rng.standard_normal((2, 3), np.float32)))
    assert y.node.module == "layers.2.0"
    assert y.node.parents[0].module == "layers.1"
    assert not net.eval().layers[1].training
    with pytest.raises(TypeError, match="ModuleList defines no forward"):
        net.layers(y)


def test_a_module_list_is_a_list():
    a, b, c, d = (mr.nn.Linear(1, n) for n in (1, 2, 3, 4))
    modules = mr.nn.ModuleList([a])
    modules.extend([b, d])
    modules.insert(-1, c)
    assert list(modules) == [a, b, c, d] == modules[:]
    assert (modules[0], modules[-1], len(modules)) == (a, d, 4)
    modules[1] = d
    del modules[0]
    assert list(modules) == [d, c, d]
    assert list(modules.state_dict()) == [f"{i}.{name}" for i in range(3) for name in ("weight", "bias")]
    del modules[1:]
    assert list(modules) == [d]
    for refused in (lambda: modules.append(1), lambda: modules.extend([a, None]), lambda: mr.nn.ModuleList(3)):
        with pytest.raises(TypeError, match="modules must be"):
            refused()
    assert list(modules) == [d]  # nothing was changed
    with pytest.raises(IndexError):
        modules[1]


@pytest.mark.parametrize("kind", ["list", "tuple", "dict"])
def test_modules_in_a_plain_collection_are_refused(kind):
    net, layer = mr.nn.Module(), mr.nn.ReLU()
    with pytest.raises(TypeError, match=f"layers must not be a {kind} of modules.*use ModuleList"):
        net.layers = {"list": [layer], "tuple": (1, layer), "dict": {"a": layer}}[kind]
    net.sizes, net.names, net.options = [1, 2], (), {"a": 1}
    assert net.sizes == [1, 2]
