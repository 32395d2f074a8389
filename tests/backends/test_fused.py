"""Operations that wait for one another change no bit, no node and no promise of the engine."""

from __future__ import annotations

import gc
import sys
import threading
import weakref

import numpy as np
import pytest

import minires as mr
import minires.functional as F
from minires import backends
from minires.autograd import Function, _state
from minires.backends import native
from minires.backends.native import fused
from minires.deferred import Deferred
from minires.nn import BatchNorm2d, Conv2d, Module

if backends.available()["native"]:
    pytest.skip(backends.available()["native"], allow_module_level=True)

from minires.backends.native.compiled import native as compiled

SETS = [
    pytest.param(name, marks=[] if kernels is not None else pytest.mark.skip(reason=f"this processor has no {name}"))
    for name, kernels in compiled().instruction_sets().items()
]


@pytest.fixture(autouse=True)
def natively():
    with mr.backend("native"):
        yield


@pytest.fixture(autouse=True)
def nothing_is_left_behind():
    yield
    assert _state.depth == 0
    assert not _state.deferred


@pytest.fixture
def joined(monkeypatch):
    """How many results were computed together with the operation behind them."""
    counts = {"forward": 0, "norm": 0, "shortcut": 0}

    def counting(method, key, condition):
        def counted(*arguments, **options):
            counts[key] += condition(*arguments, **options)
            return method(*arguments, **options)

        return counted

    for kind in (fused.WaitingConv2d, fused.WaitingNorm, fused.WaitingSum):
        spy = counting(kind.computed_with, "forward", lambda self, added, relu: added is not None or relu)
        monkeypatch.setattr(kind, "computed_with", spy)
    spy = counting(fused.FusedBackend._gradients, "norm", lambda self, *arrays, relu: relu)
    monkeypatch.setattr(fused.FusedBackend, "_gradients", spy)
    spy = counting(fused.GradientOfInput.plus, "shortcut", lambda self, other: True)
    monkeypatch.setattr(fused.GradientOfInput, "plus", spy)
    return counts


def lived(model, rng):
    """Weights and statistics as after a training: none of them is 0 or 1."""
    for name, array in model.state_dict().items():
        if name.endswith("running_var"):
            array[...] = rng.uniform(0.3, 3, array.shape)
        elif array.ndim == 1:
            array[...] = rng.uniform(0.5, 1.5, array.shape) * rng.choice([-1, 1], array.shape)
    return model


def grad_mode(recorded):
    return mr.enable_grad() if recorded else mr.no_grad()


def waits(tensor):
    """Whether it is still to be computed."""
    return isinstance(tensor.promised, Deferred) and tensor.promised.waits


class Watching(mr.Observer):
    """Somebody who may look at every single result."""


class Nobody:
    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        pass


def tape(tensor):
    """What every node behind the tensor tells of itself, from the newest to the oldest."""
    waiting, found = [tensor.node], {}
    while waiting:
        node = waiting.pop()
        if node.serial not in found:
            found[node.serial] = node
            waiting += [parent for parent in node.parents if isinstance(parent, Function)]
    order = {serial: i for i, serial in enumerate(sorted(found))}
    return [
        (node.heading, node.input_shapes, node.output_shape, node.needs_input_grad,
         [order[p.serial] if isinstance(p, Function) else getattr(p, "shape", None) for p in node.parents])
        for _, node in sorted(found.items(), reverse=True)
    ]  # fmt: skip


def run(model, x, watcher, recorded=True, wants_x=False):
    """Everything that a step leaves behind, from the state that the model is in; which it is put back into."""
    before = {k: v.copy() for k, v in model.state_dict().items()}
    mr.manual_seed(5)
    found = {}
    image = mr.tensor(x.copy(), requires_grad=wants_x)
    with watcher:
        if recorded:
            logits = model(image)
            loss = F.cross_entropy(logits, np.arange(len(x)) % logits.shape[1])
            found["tape"] = tape(loss)
            loss.backward()
            found |= {"loss": loss.data} | {k: p.grad for k, p in model.named_parameters()}
            if wants_x:
                found["x"] = image.grad
        else:
            with mr.no_grad():
                logits = model(image)
    assert type(logits.promised) is np.ndarray
    found["logits"] = logits.data
    assert all(b.flags.writeable for b in (*model.state_dict().values(), image.data))
    found |= {f"buffer {k}": b.copy() for k, b in model.named_buffers()}
    model.load_state_dict(before)
    model.zero_grad()
    return found


def same(one, other):
    assert one.keys() == other.keys()
    for key, value in one.items():
        if key == "tape" or value is None or other[key] is None:
            assert value == other[key], key
        else:
            assert value.dtype == other[key].dtype
            np.testing.assert_array_equal(value, other[key], err_msg=key)


# -- networks

NETWORKS = [
    ("resnet20", {}, (3, 3, 32, 32)),
    ("resnet20", {"width": 5, "shortcut": "B"}, (2, 3, 13, 10)),
    ("resnet20", {"width": 16, "shortcut": "C"}, (2, 3, 14, 9)),
    ("resnet20", {"width": 6, "batch_norm": False}, (2, 3, 12, 12)),
    ("plain20", {"in_channels": 1}, (3, 1, 16, 18)),
    ("plain20", {"width": 5, "batch_norm": False}, (3, 3, 8, 9)),
    ("resnet18", {"width": 16, "num_classes": 7}, (2, 3, 45, 33)),
    ("resnet50", {"width": 16, "num_classes": 7}, (2, 3, 40, 33)),
    ("resnet50", {"width": 8, "num_classes": 7, "stride_in": "3x3", "batch_norm": False}, (1, 3, 40, 33)),
    ("vgg16", {"width": 16, "num_classes": 7, "hidden": 20, "batch_norm": True}, (2, 3, 37, 64)),
    ("vgg16", {"width": 4, "num_classes": 7, "hidden": 20, "batch_norm": False}, (1, 3, 32, 32)),
]


@pytest.mark.parametrize("mode", ["training", "evaluation", "training, unrecorded", "evaluation, unrecorded", "folded"])
@pytest.mark.parametrize(("name", "options", "shape"), NETWORKS, ids=lambda v: v if isinstance(v, str) else None)
def test_the_same_bits_watched_and_unwatched(rng, joined, name, options, shape, mode):
    model = lived(mr.models.create(name, **options), rng)
    model.train(mode.startswith("training"))
    if mode == "folded":
        model.fuse()
    recorded = not mode.endswith("unrecorded")
    x = rng.standard_normal(shape).astype(np.float32)
    watched = run(model, x, Watching(), recorded)
    assert not any(joined.values()), "an observer was shown results that were never made"
    unwatched = run(model, x, Nobody(), recorded)
    same(unwatched, watched)
    norms = any(isinstance(module, BatchNorm2d) for module in model.modules())
    assert joined["forward"] > 0
    assert (joined["norm"] > 0) == (norms and mode == "training")
    assert (joined["shortcut"] > 0) == (recorded and name.startswith("resnet"))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("winograd", [False, True])
@pytest.mark.parametrize("isa", SETS)
def test_the_same_bits_with_every_instruction_set(rng, isa, winograd, dtype):
    model = lived(mr.models.create("resnet20", width=16), rng).astype(dtype)
    x = rng.standard_normal((2, 3, 14, 11)).astype(dtype)
    with mr.backend("native", isa=isa, winograd=winograd):
        for training in (True, False):
            for recorded in (True, False):
                model.train(training)
                watched = run(model, x, Watching(), recorded, wants_x=recorded)
                same(run(model, x, Nobody(), recorded, wants_x=recorded), watched)


def test_a_step_whose_backward_alone_is_watched(rng):
    model = lived(mr.models.create("resnet20", width=4), rng)
    x, labels = rng.standard_normal((2, 3, 12, 12)).astype(np.float32), np.array([1, 2])
    results = []
    for forward, backward in ((Nobody, Nobody), (Nobody, Watching), (Watching, Nobody)):
        with forward():
            loss = F.cross_entropy(model(mr.tensor(x)), labels)
        with backward():
            loss.backward()
        results.append({k: p.grad for k, p in model.named_parameters()})
        model.zero_grad()
    same(results[0], results[1])
    same(results[0], results[2])


def test_a_backward_that_is_watched_sees_arrays(rng):
    model = lived(mr.models.create("resnet20", width=4), rng)
    loss = F.cross_entropy(model(mr.tensor(rng.standard_normal((2, 3, 12, 12)).astype(np.float32))), np.array([1, 2]))
    seen = []

    class Arrays(mr.Observer):
        def before_backward(self, node, grad_output):
            seen.append(grad_output)

        def after_backward(self, node, grad_output, grads):
            seen.extend([grad_output, *(g for g in grads if g is not None)])

    with Arrays():
        loss.backward()
    assert len(seen) > 100
    assert {type(array) for array in seen} == {np.ndarray}


# -- programs drawn at random


class Drawn(Module):
    """Convolutions, norms, ReLUs and sums of whatever was made before, in any order."""

    def __init__(self, seed, C):
        super().__init__()
        rng = np.random.default_rng(seed)
        self.program = []
        for step in range(int(rng.integers(3, 14))):
            kind = str(rng.choice([*["conv", "norm", "relu", "add"] * 4, "norm", "look", "scale", "row"]))
            if kind == "conv":
                k = int(rng.choice([1, 3]))
                setattr(self, f"conv{step}", Conv2d(C, C, k, padding=k // 2, bias=bool(rng.integers(2))))
            elif kind == "norm":
                norm = BatchNorm2d(C)
                norm.train(bool(rng.integers(2)))
                setattr(self, f"norm{step}", norm)
            recent = rng.integers(max(0, step - 3), step + 1, 2)
            self.program.append((kind, step, *map(int, recent)))

    def forward(self, x):
        made = [x]
        for kind, step, a, b in self.program:
            a, b = made[a], made[b]
            if kind in ("conv", "norm"):
                made.append(getattr(self, f"{kind}{step}")(a))
            elif kind == "relu":
                made.append(F.relu(a))
            elif kind == "add":
                made.append(a + b)
            elif kind == "look":
                assert type(a.data) is np.ndarray
                made.append(a)
            elif kind == "scale":
                made.append(a * 0.5)
            else:
                made.append(a + mr.tensor(np.ones((1, a.shape[1], 1, 1), a.dtype)))
        return F.flatten(F.adaptive_avg_pool2d(made[-1] + made[len(made) // 2], 2))


@pytest.mark.parametrize("seed", range(60))
def test_any_program_of_such_operations(seed):
    rng = np.random.default_rng(seed)
    C = int(rng.choice([3, 16, 17]))
    model = Drawn(seed, C)
    for array in model.state_dict().values():
        signs = 1 if array.ndim == 1 else rng.choice([-0.3, 0.3], array.shape)
        array[...] = rng.uniform(0.3, 1.5, array.shape) * signs
    x = rng.standard_normal((2, C, 5, 7)).astype(np.float32)
    for recorded in (True, False):
        watched = run(model, x, Watching(), recorded, wants_x=recorded)
        same(run(model, x, Nobody(), recorded, wants_x=recorded), watched)


def wanted_before(y, x, use):
    total = y + x
    use(y)
    return F.relu(total) + y


CHAINS = {
    "a norm of a norm": lambda m, x: m.norm(m.other(m.conv(x))),
    "a norm that is wanted twice": lambda m, x: (lambda y: F.relu(y) + m.other(y))(m.norm(m.conv(x))),
    "a sum whose one side is wanted before": lambda m, x: wanted_before(m.norm(m.conv(x)), x, lambda y: y * 0.5),
    "a sum whose one side is read before": lambda m, x: wanted_before(m.norm(m.conv(x)), x, lambda y: y.data),
    "a sum that is returned": lambda m, x: m.norm(m.conv(x)) + x,
    "a sum of a sum": lambda m, x: F.relu(m.norm(m.conv(x)) + x + m.other(x)),
    "a sum of two that wait": lambda m, x: F.relu(m.norm(m.conv(x)) + m.other(m.conv(x))),
    "twice itself": lambda m, x: (lambda y: F.relu(y + y))(m.norm(m.conv(x))),
    "twice a convolution": lambda m, x: (lambda h: (lambda y: y + y)(m.conv(h + h)))(F.relu(x)),
    "a convolution in two norms": lambda m, x: (lambda h: F.relu(m.norm(h)) + F.relu(m.other(h)))(m.conv(x)),
    "a ReLU of a ReLU": lambda m, x: F.relu(F.relu(m.norm(m.conv(x)))),
    "a vector added": lambda m, x: F.relu(m.norm(m.conv(x)) + m.vector),
    "a number added": lambda m, x: F.relu(m.norm(m.conv(x)) + 1.5),
    "a ReLU of a convolution": lambda m, x: F.relu(m.conv(x)),
    "a sum of convolutions": lambda m, x: F.relu(m.conv(x) + m.conv(F.relu(x))),
    "a norm of rows": lambda m, x: F.relu(m.rows(F.flatten(F.adaptive_avg_pool2d(x, 2)))),
    "a difference": lambda m, x: F.relu(m.norm(m.conv(x)) - x),
    "a product": lambda m, x: F.relu(m.norm(m.conv(x)) * x),
    "a slice": lambda m, x: F.relu(m.norm(m.conv(x))[:, ::2]),
}


class Chain(Module):
    def __init__(self, fn, C):
        super().__init__()
        self.conv, self.norm, self.other = Conv2d(C, C, 3, padding=1, bias=True), BatchNorm2d(C), BatchNorm2d(C)
        self.rows = BatchNorm2d(4 * C)
        self.vector = mr.tensor(np.linspace(-1, 1, C, dtype=np.float32).reshape(1, C, 1, 1), requires_grad=True)
        object.__setattr__(self, "fn", fn)

    def forward(self, x):
        return self.fn(self, x)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("C", [3, 16])
@pytest.mark.parametrize("chain", CHAINS)
def test_chains_that_networks_seldom_have(rng, chain, C, training):
    mr.manual_seed(0)
    model = lived(Chain(CHAINS[chain], C), rng).train(training)
    x = rng.standard_normal((2, C, 5, 7)).astype(np.float32)
    for recorded in (True, False):
        results = []
        for watcher in (Watching(), Nobody()):
            state = {k: v.copy() for k, v in model.state_dict().items()}
            image = mr.tensor(x.copy(), requires_grad=recorded)
            with watcher, grad_mode(recorded):
                y = model(image)
                assert not waits(y)
                if recorded:
                    y.backward(np.random.default_rng(1).standard_normal(y.shape).astype(np.float32))
            found = {"y": y.data, "x": image.grad} | {f"buffer {k}": b.copy() for k, b in model.named_buffers()}
            results.append(found | {k: p.grad for k, p in model.named_parameters()})
            model.zero_grad()
            model.load_state_dict(state)
        same(results[1], results[0])


# -- what a module sees


class Block(Module):
    """conv, norm, relu; `within(self, x, h, y)` runs between norm and relu."""

    def __init__(self, within=None):
        super().__init__()
        self.conv = Conv2d(3, 4, 3, padding=1, bias=True)
        self.norm = BatchNorm2d(4)
        object.__setattr__(self, "within", within)

    def forward(self, x):
        h = self.conv(x)
        y = self.norm(h)
        if self.within:
            self.within(self, x, h, y)
        return F.relu(y)


MODES = [(training, recorded) for training in (True, False) for recorded in (True, False)]


def ready(within=None, training=True):
    mr.manual_seed(3)
    return lived(Block(within), np.random.default_rng(2)).train(training)


def image():
    return mr.tensor(np.random.default_rng(4).standard_normal((2, 3, 6, 5)).astype(np.float32))


@pytest.mark.parametrize(("training", "recorded"), MODES)
def test_data_is_an_array_inside_and_later(training, recorded):
    kept = []
    model = ready(lambda self, x, h, y: kept.append(y), training)
    with grad_mode(recorded):
        z = model(image())
    assert not waits(kept[0])  # when the outermost module returns, everything has been computed
    np.testing.assert_array_equal(np.maximum(kept[0].data, 0), z.data)
    looked = []
    model = ready(lambda self, x, h, y: looked.extend([y.data, y.data, h.data, y]), training)
    with grad_mode(recorded):
        again = model(image())
    assert {type(a) for a in looked[:3]} == {np.ndarray}
    assert looked[0] is looked[1]
    assert looked[0] is looked[3].data
    np.testing.assert_array_equal(looked[0], kept[0].data)
    np.testing.assert_array_equal(again.data, z.data)


def test_shape_dtype_and_repr_of_what_still_waits():
    told = []

    def within(self, x, h, y):
        assert waits(y)
        told.append((y.shape, y.ndim, y.size, y.dtype, len(y), repr(y.promised), y.promised.ndim, y.promised.size))
        assert waits(y)  # asking did not compute it

    ready(within)(image())
    shape = (2, 4, 6, 5)
    expected = "<WaitingNorm of shape (2, 4, 6, 5), float32, to be computed>"
    assert told[0] == (shape, 4, 240, np.float32, 2, expected, 4, 240)
    with mr.backend("native") as eager:
        x, w = np.ones((1, 2, 3, 3), np.float32), np.ones((4, 2, 1, 1), np.float32)
        waiting = eager.fused.conv2d_forward(x, w, None, (1, 1), (0, 0), (1, 1), 1)
    assert repr(waiting) == "<WaitingConv2d of shape (1, 4, 3, 3), float32, to be computed>"
    assert waiting.waits
    assert waiting.array() is waiting.array()
    assert repr(waiting) == "<WaitingConv2d of shape (1, 4, 3, 3), float32, computed>"
    np.testing.assert_array_equal(1 + waiting + np.ones(waiting.shape, np.float32), np.full(waiting.shape, 4))
    with pytest.raises(NotImplementedError):
        Deferred((2,), np.float32, ()).array()


@pytest.mark.parametrize(("training", "recorded"), MODES)
@pytest.mark.parametrize("which", ["h", "conv.weight", "conv.bias", "x"])
def test_writing_into_what_a_result_waits_for_fails_at_that_line(training, recorded, which):
    """Otherwise the write would change a result that, by the order of the program, was there before it."""
    waited = []

    def within(self, x, h, y):
        waited.append(waits(y))
        tensor = {"h": h, "conv.weight": self.conv.weight, "conv.bias": self.conv.bias, "x": x}[which]
        tensor.data[...] = 7

    model, x = ready(within, training), image()
    expected = ready(None, training)(image()).data
    # The tape holds what backward needs; a norm its input; a convolution, where it waits as well, all it is given.
    everything_waits = not training and not recorded
    held = {"h": not everything_waits, "conv.weight": recorded, "x": recorded, "conv.bias": False}[which]
    with grad_mode(recorded):
        if held or (everything_waits and which != "h"):
            with pytest.raises(ValueError, match="read-only"):
                model(x)
        else:
            np.testing.assert_array_equal(model(x).data, expected)
    assert waited == [True]
    gc.collect()
    assert x.data.flags.writeable
    assert all(array.flags.writeable for array in model.state_dict().values())


@pytest.mark.parametrize(("training", "recorded"), MODES)
def test_what_a_norm_computes_with_may_move_on(training, recorded):
    """Statistics, scale and shift are those of the call."""

    def within(self, x, h, y):
        for array in (self.norm.running_mean, self.norm.running_var, self.norm.bias.data):
            array += 5
        if not recorded:  # the tape holds the scale
            self.norm.weight.data[...] = 0

    expected = ready(None, training)(image()).data
    with grad_mode(recorded):
        np.testing.assert_array_equal(ready(within, training)(image()).data, expected)


@pytest.mark.parametrize(("training", "recorded"), MODES)
def test_an_error_amid_a_module_leaves_nothing_behind(training, recorded):
    failing = [True]

    def within(self, x, h, y):
        assert waits(y)
        if failing[0]:
            raise ZeroDivisionError

    model, x = ready(within, training), image()
    kept = {k: v.copy() for k, v in model.state_dict().items()}
    with grad_mode(recorded), pytest.raises(ZeroDivisionError):
        model(x)
    assert not _state.deferred
    assert _state.depth == 0
    assert _state.module == ""
    gc.collect()
    for array in (x.data, *model.state_dict().values()):
        assert array.flags.writeable
    for name, array in model.state_dict().items():
        array[...] = kept[name]
    failing[0] = False
    with grad_mode(recorded):
        np.testing.assert_array_equal(model(x).data, ready(None, training)(image()).data)


@pytest.mark.parametrize(("training", "recorded"), MODES)
def test_nan_goes_through_what_waits(training, recorded):
    results = []
    for watcher in (Nobody(), Watching()):
        x = image()
        x.data[1, 2, 3, 4] = np.nan
        with watcher, grad_mode(recorded):
            results.append(ready(None, training)(x).data)
    np.testing.assert_array_equal(*results)
    assert np.isnan(results[0]).sum() == (results[0].size if training else 4 * 6)  # of a corner's six neighbours


def test_a_module_may_catch_the_error_of_another():
    class Careful(Module):
        def __init__(self):
            super().__init__()
            self.wild, self.tame = ready(self.fail), ready(training=False)

        @staticmethod
        def fail(block, x, h, y):
            raise ZeroDivisionError

        def forward(self, x):
            y = self.tame.norm(self.tame.conv(x))  # waits while the other fails
            try:
                self.wild(x)
            except ZeroDivisionError:
                z = self.tame.norm(self.tame.conv(x))
                return F.relu(y + z)

    results = []
    for watcher in (Nobody(), Watching()):
        with watcher, mr.no_grad():
            results.append(Careful()(image()).data)
    np.testing.assert_array_equal(*results)


def test_a_module_that_runs_while_an_error_is_handled():
    """What has been computed when a module returns does not depend on what its caller is about."""
    kept = []
    model = ready(lambda self, x, h, y: kept.append(y))
    try:
        raise ZeroDivisionError
    except ZeroDivisionError:
        model(image())
        assert not waits(kept[0])


def test_outside_of_modules_nothing_waits():
    x, mean = image(), np.ones(3, np.float32)
    with mr.no_grad():
        for y in (
            F.conv2d(x, np.ones((4, 3, 3, 3), np.float32)),
            F.batch_norm(x, None, None, training=True),
            F.batch_norm(x, mean, mean),
            F.relu(x),
            x + x,
            ready()(x),
        ):
            assert type(y.promised) is np.ndarray


def inside(condition):
    """Whether a norm's result waits when it is made in a module."""
    found = []
    model = ready(lambda self, x, h, y: found.append(waits(y)))
    with condition:
        model(image())
    return found[0]


class Traced:
    def __enter__(self):
        self.before = sys.gettrace()
        sys.settrace(lambda *arguments: None)

    def __exit__(self, *exc_info):
        sys.settrace(self.before)


class Debugged:
    """As a debugger of Python 3.12 and later announces itself."""

    def __enter__(self):
        sys.monitoring.use_tool_id(sys.monitoring.DEBUGGER_ID, "a debugger")

    def __exit__(self, *exc_info):
        sys.monitoring.free_tool_id(sys.monitoring.DEBUGGER_ID)


@pytest.mark.skipif(sys.gettrace() is not None, reason="this test is itself being traced")
def test_while_somebody_looks_nothing_waits():
    assert inside(Nobody())
    assert not inside(Watching())
    assert not inside(Traced())
    assert not inside(mr.backend("reference"))
    assert inside(Nobody())


@pytest.mark.skipif(sys.version_info < (3, 12), reason="debuggers trace before Python 3.12")
def test_while_a_debugger_is_attached_nothing_waits():
    assert not inside(Debugged())


def test_an_observer_that_comes_amid_a_module(rng):
    class Late(Module):
        def __init__(self):
            super().__init__()
            self.block = ready()

        def forward(self, x):
            y = self.block.norm(self.block.conv(x))
            assert waits(y)
            seen = []

            class Looks(mr.Observer):
                def before_forward(self, node, arrays):
                    seen.extend(arrays)

                def after_forward(self, node, arrays, output):
                    seen.append(output)

            with Looks():
                y = F.relu(y)
            assert [type(array) for array in seen] == [np.ndarray] * 2
            return y

    np.testing.assert_array_equal(Late()(image()).data, ready()(image()).data)


def test_an_operation_of_ones_own_is_given_arrays():
    seen = []

    class Twice(mr.Function):
        def forward(self, x):
            seen.append(type(x))
            return 2 * x

        def backward(self, grad_output):
            seen.append(type(grad_output))
            return 2 * grad_output

    class Own(Module):
        def __init__(self):
            super().__init__()
            self.block = ready()

        def forward(self, x):
            return F.relu(Twice()(self.block.norm(self.block.conv(x))))

    model = Own()
    y = model(image())
    y.backward(np.ones(y.shape, np.float32))
    assert seen == [np.ndarray, np.ndarray]


@pytest.mark.parametrize("shape", [(5,), (3, 4), (2, 3, 4, 5)])
def test_two_leaves_never_share_a_gradient(rng, shape):
    class Sum(Module):
        def __init__(self, through):
            super().__init__()
            self.a, self.b = (mr.tensor(np.ones(shape, np.float32), requires_grad=True) for _ in range(2))
            object.__setattr__(self, "through", through)

        def forward(self):
            return F.relu(self.through(self.a) + self.through(self.b))

    class Same(mr.Function):
        def forward(self, x):
            return x.copy()

        def backward(self, grad_output):
            return grad_output

    for through in (lambda t: t, lambda t: Same()(t)):
        model = Sum(through)
        cotangent = rng.standard_normal(shape).astype(np.float32)
        model().backward(cotangent)
        for one, other in ((model.a.grad, model.b.grad), (model.a.grad, cotangent), (model.b.grad, cotangent)):
            assert not np.shares_memory(one, other)
        model.a.grad += 1
        np.testing.assert_array_equal(model.b.grad, cotangent)
        assert cotangent.flags.writeable


# -- memory, threads


def test_what_is_not_wanted_any_more_islet_go_of():
    x, w = np.ones((4, 16, 32, 32), np.float32), np.ones((16, 16, 3, 3), np.float32)
    backend = native.create().fused
    waiting = backend.conv2d_forward(x, w, None, (1, 1), (1, 1), (1, 1), 1)
    assert not x.flags.writeable
    gone = weakref.ref(waiting)
    del waiting
    assert gone() is None
    assert x.flags.writeable
    waiting = backend.conv2d_forward(x, w, None, (1, 1), (1, 1), (1, 1), 1)
    waiting.array()
    assert waiting.needs == ()
    assert x.flags.writeable


def test_a_result_that_nobody_keeps_is_not_computed(joined):
    """Between norm and ReLU there is no array at all: a training step needs less memory than one that is watched."""

    class Chain(Module):
        def __init__(self):
            super().__init__()
            self.norms = [BatchNorm2d(16) for _ in range(6)]

        def forward(self, x):
            for norm in self.norms:
                x = F.relu(norm(x))
            return x

    model, x = Chain(), mr.tensor(np.ones((4, 16, 32, 32), np.float32))
    used = {}
    for watcher in (Watching(), Nobody()):
        gc.collect()
        before = compiled().memory()["used"]
        with watcher:
            y = model(x)
        used[type(watcher)] = compiled().memory()["used"] - before
        del y
    assert joined["forward"] == 6
    array = x.data.nbytes
    assert used[Nobody] <= used[Watching] < used[Nobody] + array
    assert used[Nobody] >= 6 * array


def test_each_thread_has_its_own_module_calls():
    inside_, go, seen = threading.Event(), threading.Event(), []

    def slow(self, x, h, y):
        inside_.set()
        assert go.wait(20)
        seen.append(waits(y))

    def work():
        with mr.backend("native"):
            ready(slow)(image())

    thread = threading.Thread(target=work)
    thread.start()
    assert inside_.wait(20)
    assert type(F.batch_norm(image(), None, None, training=True).promised) is np.ndarray
    ready()(image())
    go.set()
    thread.join()
    assert seen == [True]


@pytest.mark.parametrize("recorded", [True, False])
def test_a_waiting_result_that_a_thread_takes_along(recorded):
    """Its array is made where it is wanted."""
    found = []

    def within(self, x, h, y):
        thread = threading.Thread(target=lambda: found.append(y.data))
        thread.start()
        thread.join()

    with grad_mode(recorded):
        z = ready(within)(image())
    np.testing.assert_array_equal(np.maximum(found[0], 0), z.data)


def test_gradients_between_two_shortcuts(rng):
    """A tensor that is used three times: the first gradient waits, the others are added in the order they come."""

    class Fan(Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = (Conv2d(16, 16, 3, padding=1) for _ in range(2))

        def forward(self, x):
            h = F.relu(x)
            return F.relu(self.a(h) + self.b(h)) + h

    mr.manual_seed(0)
    model, x = Fan(), rng.standard_normal((2, 16, 6, 5)).astype(np.float32)
    grads = []
    for watcher in (Nobody(), Watching()):
        image = mr.tensor(x, requires_grad=True)
        with watcher:
            model(image).backward(np.full(x.shape, 0.5, np.float32))
        grads.append(image.grad)
    np.testing.assert_array_equal(*grads)
