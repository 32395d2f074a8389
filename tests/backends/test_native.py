"""The native backend's numbers: every operation, awkward convolutions, every instruction set, any number of threads."""

from __future__ import annotations

import math
from types import SimpleNamespace

import agreement
import numpy as np
import pytest
from agreement.geometries import GEOMETRIES
from agreement.rounding import WINOGRAD, off, rounding

import minires as mr
import minires.functional as F
from minires import backends
from minires.backends import reference
from minires.backends.native import backend as module
from minires.backends.native import compiled, filters
from minires.verify.cases import CASES, draw, random_pick
from minires.verify.lockstep import lockstep
from minires.verify.properties import PROPERTIES

if backends.available()["native"]:
    pytest.skip(backends.available()["native"], allow_module_level=True)

from minires.backends.native.compiled import native

SETS_HERE = [name for name, kernels in native().instruction_sets().items() if kernels is not None]
# Instruction sets of this build; the run reports those that this processor lacks as skipped.
SETS = [
    pytest.param(name, marks=[] if kernels is not None else pytest.mark.skip(reason=f"this processor has no {name}"))
    for name, kernels in native().instruction_sets().items()
]
DTYPES = (np.float32, np.float64)


@pytest.fixture(autouse=True)
def poisoned(monkeypatch):
    """Every array that a kernel is to fill begins as NaN: a number left out shows."""

    def empty(shape, like, lasting=False):
        array = native().empty(shape, like.dtype, lasting)
        array.fill(np.nan if array.dtype.kind == "f" else -77)
        return array

    for place in (module, filters):
        monkeypatch.setattr(place, "empty", empty)


@pytest.fixture(autouse=True)
def threads_as_before():
    before = mr.get_num_threads()
    yield
    mr.set_num_threads(before)


# -- every operation as the reference backend is tested


@pytest.mark.parametrize("operation", CASES)
@pytest.mark.parametrize("isa", SETS)
def test_operations(isa, operation):
    """Oracle, dtypes, memory layouts and finite differences in double precision."""
    for number in range(8):
        with mr.backend("native", isa=isa, winograd=number % 2 == 0):
            rng = np.random.default_rng((5, number))
            draw(operation, random_pick(rng), rng).check()


@pytest.mark.parametrize(
    ("operation", "holds"), [pytest.param(op, p, id=f"{op}-{p.__name__}") for op, ps in PROPERTIES.items() for p in ps]
)
@pytest.mark.parametrize("isa", SETS)
def test_properties(isa, operation, holds, rng):
    with mr.backend("native", isa=isa):
        holds(rng)


# -- convolutions


def check_in_both_precisions(backend, geometry, bounds=None):
    for dtype in DTYPES:
        agreement.check_convolution(backend, geometry, dtype, bounds and bounds[dtype])


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
@pytest.mark.parametrize("isa", SETS)
def test_convolutions_beside_the_reference(isa, geometry):
    with mr.backend("native", isa=isa, winograd=False) as backend:
        check_in_both_precisions(backend, geometry)


@pytest.mark.parametrize("padding", [(0, 0), (1, 1), (2, 2), (0, 1)])
@pytest.mark.parametrize("size", [(5, 7), (14, 13), (8, 8), (4, 3), (3, 3), (17, 6)])
@pytest.mark.parametrize("channels", [(16, 16), (32, 48), (64, 16), (16, 128)])
@pytest.mark.parametrize("isa", SETS)
def test_convolutions_that_winograd_may_take(isa, channels, size, padding):
    C, O = channels
    N = 1 + (size[0] + padding[0] + C // 16) % 3
    geometry = ((N, C, *size), (O, C, 3, 3), (1, 1), padding, (1, 1), 1)
    with mr.backend("native", isa=isa, winograd=True) as backend:
        check_in_both_precisions(backend, geometry, WINOGRAD)
    with mr.backend("native", isa=isa, winograd=False) as backend:
        check_in_both_precisions(backend, geometry)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (2, 2), (7, 1)])
@pytest.mark.parametrize("isa", SETS)
def test_images_smaller_than_a_tile(isa, size):
    with mr.backend("native", isa=isa) as backend:
        check_in_both_precisions(backend, ((3, 16, *size), (16, 16, 3, 3), (1, 1), (1, 1), (1, 1), 1), WINOGRAD)


@pytest.mark.parametrize("winograd", [False, True])
@pytest.mark.parametrize("shapes", [((2, 16, 6, 7), 32), ((1, 5, 4, 3), 9), ((3, 32, 5, 5), 17)])
@pytest.mark.parametrize("isa", SETS)
def test_what_follows_a_convolution(isa, shapes, winograd):
    for dtype in DTYPES:
        agreement.what_follows_a_convolution(winograd, *shapes, dtype=dtype, isa=isa)


@pytest.mark.parametrize("isa", SETS)
def test_products_of_matrices(isa):
    agreement.native_products(isa)


@pytest.mark.parametrize("isa", SETS)
def test_an_empty_batch_gives_empty_results_and_gradients_of_zero(isa):
    with mr.backend("native", isa=isa):
        for fn, shape, out, parameters in (
            (F.linear, (0, 3), (0, 2), [(2, 3), (2,)]),
            (F.linear, (4, 0, 3), (4, 0, 2), [(2, 3), (2,)]),
            (F.conv2d, (0, 3, 4, 5), (0, 2, 3, 4), [(2, 3, 2, 2), (2,)]),
            (lambda x: F.max_pool2d(x, 2), (0, 3, 4, 5), (0, 3, 2, 2), []),
            (lambda x: F.avg_pool2d(x, 2), (0, 3, 4, 5), (0, 3, 2, 2), []),
            (F.relu, (0, 3, 4, 5), (0, 3, 4, 5), []),
            (F.softmax, (0, 3), (0, 3), []),
        ):
            inputs = [mr.tensor(np.ones(s, np.float32), requires_grad=True) for s in (shape, *parameters)]
            y = fn(*inputs)
            assert y.shape == out
            y.backward(np.ones(out, np.float32))
            for tensor in inputs:
                np.testing.assert_array_equal(tensor.grad, np.zeros(tensor.shape))


# -- batch norm, pooling


@pytest.mark.parametrize("C", [1, 3, 16, 17, 64, 100])
@pytest.mark.parametrize("isa", SETS)
def test_batch_norm_of_many_pixels(rng, isa, C):
    """Several blocks of pixels, a mean far from zero: the statistics of blocks merged in order must not cancel."""
    N, H, W = (3, 41, 83) if C > 16 else (7, 89, 61)
    for dtype in DTYPES:
        x = (rng.standard_normal((N, C, H, W)) + 100).astype(dtype)
        weight, bias, g = (rng.standard_normal(s).astype(dtype) for s in ((C,), (C,), x.shape))
        exact = [a.astype(float) for a in (x, weight, bias)]
        ys, means, variances, kept = reference.batch_norm_forward(*exact, 1e-5)
        with mr.backend("native", isa=isa) as backend:
            y, mean, var, saved = backend.batch_norm_forward(x, weight, bias, 1e-5)
            grads = backend.batch_norm_backward(g, saved, weight)
            even = backend.batch_norm_eval_forward(x, mean, var, weight, bias, 1e-5)
        # A running sum of positive numbers is off by eps/6 · √P; three times that.  The squares are about the mean that
        # was found, and its own error does not enter them; into x − mean it enters a hundredfold.
        bound = rounding(dtype, N * H * W / 4)
        assert off(mean, means) <= bound
        assert off(var, variances) <= bound
        assert off(y, ys) <= 100 * bound
        assert off(even, ys) <= 100 * bound
        expected = reference.batch_norm_backward(g.astype(float), kept, exact[1])
        assert off(grads[0], expected[0]) <= 100 * bound
        for found, one in zip(grads[1:], expected[1:], strict=True):  # a sum has size √P, or is 0 by chance
            assert np.abs(found - one).max() <= 100 * bound * math.sqrt(N * H * W)


@pytest.mark.parametrize("kernel", [(16, 16), (17, 16), (3, 90)])
@pytest.mark.parametrize("isa", SETS)
def test_windows_of_256_taps_and_more(rng, isa, kernel):
    """The number of the maximum's tap no longer fits a byte."""
    for dtype in DTYPES:
        x = rng.standard_normal((2, 3, 20, 95)).astype(dtype)
        options = kernel, (3, 2), (1, 8), (1, 1)
        output = (20 + 2 - kernel[0]) // 3 + 1, (95 + 16 - kernel[1]) // 2 + 1
        expected, taps = reference.max_pool2d_forward(x, *options, output)
        g = rng.standard_normal(expected.shape).astype(dtype)
        with mr.backend("native", isa=isa) as backend:
            y, argmax = backend.max_pool2d_forward(x, *options, output)
            grad = backend.max_pool2d_backward(g, argmax, x.shape, *options)
        np.testing.assert_array_equal(y, expected)
        np.testing.assert_array_equal(argmax, taps)
        assert argmax.dtype == (np.uint8 if kernel == (16, 16) else np.int32)
        assert off(grad, reference.max_pool2d_backward(g, taps, x.shape, *options)) <= rounding(dtype, 100)


# -- NaN and memory layouts


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("isa", SETS)
def test_nan_goes_through(isa, dtype):
    """Wherever it stands: in whole vectors and in the rest of one."""
    for C, where in ((16, 3), (17, 16), (5, 4)):
        x = np.ones((2, C, 6, 5), dtype)
        x[1, where, 2, 3] = np.nan
        hit = np.isnan(x)
        w = np.ones((C, C, 3, 3), dtype)
        for winograd in (False, True):
            with mr.backend("native", isa=isa, winograd=winograd):
                y = F.conv2d(x, w, padding=1).data
                assert np.isnan(y[1, :, 1:4, 2:5]).all()
                assert not np.isnan(y[0]).any()  # of the other image nothing
        with mr.backend("native", isa=isa):
            np.testing.assert_array_equal(np.isnan(F.relu(x).data), hit)
            np.testing.assert_array_equal(np.isnan((mr.tensor(x) + mr.tensor(x)).data), hit)
            constants = np.ones(C), np.ones(C)
            np.testing.assert_array_equal(np.isnan(F.batch_norm(x, *constants).data), hit)
            trained = np.isnan(F.batch_norm(x, None, None, training=True).data)
            assert trained[:, where].all()
            assert trained.sum() == x[:, where].size
            for pool in (F.max_pool2d, F.avg_pool2d):
                windows = np.isnan(pool(x, 2).data)
                assert windows[1, where, 1, 1]
                assert windows.sum() == 1
            assert np.isnan(F.adaptive_avg_pool2d(x, 1).data).sum() == 1
            rows = np.zeros((3, C), dtype)
            rows[1, where] = np.nan
            for fn in (F.softmax, F.log_softmax, lambda r, C=C: F.linear(r, np.ones((4, C), dtype))):
                np.testing.assert_array_equal(np.isnan(fn(rows).data).all(1), [False, True, False])


def beside_a_byte(array):
    """The same values, one byte off any address that is aligned."""
    room = np.zeros(array.nbytes + 1, np.uint8)
    moved = np.ndarray(array.shape, array.dtype, buffer=room, offset=1 if room.ctypes.data % 2 == 0 else 0)
    moved[...] = array
    assert not moved.flags.aligned
    return moved


LAYOUTS = {
    "channels last": lambda a: a.transpose(0, *range(2, a.ndim), 1).copy().transpose(0, -1, *range(1, a.ndim - 1)),
    "sliced": lambda a: np.repeat(np.repeat(a, 2, axis=-1), 3, axis=1)[:, ::3][..., ::2],
    "backwards": lambda a: a[:, ::-1][..., ::-1].copy()[..., ::-1][:, ::-1],
    "F": np.asfortranarray,
    "misaligned": beside_a_byte,
    "misaligned, channels last": lambda a: beside_a_byte(a.transpose(0, *range(2, a.ndim), 1)).transpose(
        0, -1, *range(1, a.ndim - 1)
    ),
    "read-only": lambda a: np.frombuffer(a.tobytes(), a.dtype).reshape(a.shape),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("isa", SETS)
def test_the_memory_layout_changes_no_bit(rng, isa, dtype, layout):
    laid = LAYOUTS[layout]
    x, rows = rng.standard_normal((2, 5, 6, 7)).astype(dtype), rng.standard_normal((4, 5)).astype(dtype)
    w, m = rng.standard_normal((3, 5, 3, 3)).astype(dtype), rng.standard_normal((3, 5)).astype(dtype)
    operations = {
        "conv2d": (F.conv2d, [x, w]),
        "conv2d 1×1": (F.conv2d, [x, w[:, :, :1, :1].copy()]),
        "linear": (F.linear, [rows, m]),
        "batch_norm": (lambda t: F.batch_norm(t, None, None, training=True), [x]),
        "batch_norm of rows": (lambda t: F.batch_norm(t, None, None, training=True), [rows]),
        "batch_norm_eval": (lambda t: F.batch_norm(t, np.ones(5), np.ones(5)), [x]),
        "relu": (F.relu, [x]),
        "relu of rows": (F.relu, [rows]),
        "add": (lambda a, b: a + b, [x, x * 2]),
        "max_pool2d": (lambda t: F.max_pool2d(t, 3, 2, 1), [x]),
        "avg_pool2d": (lambda t: F.avg_pool2d(t, 3, 2, 1), [x]),
        "adaptive_avg_pool2d": (lambda t: F.adaptive_avg_pool2d(t, (4, 3)), [x]),
        "softmax": (F.softmax, [rows]),
        "log_softmax": (lambda t: F.log_softmax(t, 1), [x]),
        "cross_entropy": (lambda t: F.cross_entropy(t, np.array([0, 1, 4, 2])), [rows]),
    }
    for name, (fn, arrays) in operations.items():
        with mr.backend("native", isa=isa):
            results = []
            for how in (np.ascontiguousarray, laid):
                inputs = [mr.tensor(how(a), requires_grad=True) for a in arrays]
                y = fn(*inputs)
                cotangent = np.random.default_rng(1).standard_normal(y.shape).astype(dtype)
                y.backward(how(cotangent) if cotangent.ndim > 1 else cotangent)
                results.append([y.data, *(t.grad for t in inputs)])
        for plain, other in zip(*results, strict=True):
            np.testing.assert_array_equal(plain, other, err_msg=f"{name}, {layout}")


@pytest.mark.parametrize("isa", SETS)
def test_a_parameter_beside_a_byte_is_updated(rng, isa):
    start, g = rng.standard_normal((2, 5, 3)).astype(np.float32)
    moved = []
    for laid in (np.array, beside_a_byte):
        p = mr.tensor(laid(start), requires_grad=True)
        step = mr.optim.SGD([p], lr=0.1, momentum=0.9)
        with mr.backend("native", isa=isa):
            for _ in range(2):
                p.grad = g.copy()
                step.step()
        moved.append(p.data)
    np.testing.assert_array_equal(*moved)


# -- the same bits


def everything(dtype, winograd, isa):
    """Large enough for several tasks of every kernel; a dictionary of arrays."""
    rng = np.random.default_rng(11)
    draw_ = lambda *shape: rng.standard_normal(shape).astype(dtype)  # noqa: E731
    found = {}
    with mr.backend("native", isa=isa, winograd=winograd) as backend:
        for i, (x_shape, w_shape, stride, groups) in enumerate((
            ((3, 16, 29, 31), (48, 16, 3, 3), (1, 1), 1), ((2, 64, 13, 14), (64, 64, 3, 3), (1, 1), 1),
            ((2, 3, 45, 47), (16, 3, 7, 7), (2, 2), 1), ((2, 100, 17, 16), (33, 50, 1, 1), (1, 1), 2),
            ((1, 512, 4, 4), (96, 512, 3, 3), (1, 1), 1),
        )):  # fmt: skip
            if groups == 2:
                w_shape = (34, 50, 1, 1)
            x, w, options = draw_(*x_shape), draw_(*w_shape), (stride, (w_shape[2] // 2,) * 2, (1, 1), groups)
            y = backend.conv2d_forward(x, w, None, *options)
            g = draw_(*y.shape)
            found[f"{i} y"] = y
            found[f"{i} x"] = backend.conv2d_backward_input(g, w, x_shape, *options)
            found[f"{i} w"] = backend.conv2d_backward_weight(g, x, w_shape, *options)
            found[f"{i} b"] = backend.conv2d_backward_bias(g)
        x, rows = draw_(5, 33, 41, 37), draw_(70, 1000)
        y, mean, var, saved = backend.batch_norm_forward(x, None, None, 1e-5)
        found |= {"bn": y, "mean": mean, "var": var}
        g = draw_(*x.shape)
        found |= dict(zip(("bn x", "bn w", "bn b"), backend.batch_norm_backward(g, saved, None), strict=True))
        found["relu"], found["add"] = backend.relu_forward(x), backend.add_forward(x, g)
        found["relu x"] = backend.relu_backward(g, x)
        window = (3, 3), (2, 2), (1, 1)
        pooled, argmax = backend.max_pool2d_forward(x, *window, (1, 1), (21, 19))
        found |= {"pool": pooled, "argmax": argmax}
        found["pool x"] = backend.max_pool2d_backward(draw_(*pooled.shape), argmax, x.shape, *window, (1, 1))
        found["average"] = backend.avg_pool2d_forward(x, *window, (21, 19), False)
        found["average x"] = backend.avg_pool2d_backward(draw_(*pooled.shape), x.shape, *window, False)
        found["global"] = backend.adaptive_avg_pool2d_forward(x, (1, 1))
        w = draw_(130, 1000)
        found["linear"] = backend.linear_forward(rows, w, None)
        found["linear x"] = backend.linear_backward_input(draw_(70, 130), w)
        found["linear w"] = backend.linear_backward_weight(draw_(70, 130), rows)
        loss, log_p = backend.cross_entropy_forward(rows, np.arange(70), 0.1)
        found |= {"loss": loss, "log": log_p}
        found["loss x"] = backend.cross_entropy_backward(loss, log_p, np.arange(70), 0.1)
        p, v = draw_(100_000), draw_(100_000)
        backend.sgd_step([p], [draw_(100_000)], [v], 0.1, 0.9, 1e-4)
        found |= {"p": p, "v": v}
    return found


@pytest.mark.parametrize("winograd", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("isa", SETS)
def test_the_same_bits_for_any_number_of_threads_and_in_every_run(isa, dtype, winograd):
    mr.set_num_threads(1)
    expected = everything(dtype, winograd, isa)
    assert not any(np.isnan(array).any() for array in expected.values())
    for threads in (1, 2, 3, 5, 2):
        mr.set_num_threads(threads)
        assert native().get_num_threads() == threads
        for name, found in everything(dtype, winograd, isa).items():
            np.testing.assert_array_equal(found, expected[name], err_msg=f"{name}, {threads} threads")


def test_instruction_sets_agree(rng):
    """Not to the bit: they sum in another order, and the portable one rounds a product before it adds it."""
    names = [name for name, kernels in native().instruction_sets().items() if kernels is not None]
    results = {name: everything(np.float32, False, name) for name in names}
    assert "portable" in results
    for name, found in results.items():
        for key, array in found.items():
            assert off(array.astype(float), results["portable"][key].astype(float)) <= 2e-6, (name, key)


def test_resnet20_beside_the_reference():
    """Every node is within its own rounding.  Of the whole gradients 1e-3 of the norm remains: rounding differs between
    instruction sets, and where it flips a single ReLU at its kink, a gradient moves by some 1e-4."""
    rng = np.random.default_rng(0)
    images, labels = rng.standard_normal((4, 3, 32, 32)).astype(np.float32), np.array([3, 7, 0, 1])
    gradients = {}
    for name in ("reference", "native"):
        mr.manual_seed(0)
        model = mr.models.create("resnet20")
        with mr.backend(name):
            F.cross_entropy(model(mr.tensor(images)), labels).backward()
        gradients[name] = {key: p.grad for key, p in model.named_parameters()}
    for key, expected in gradients["reference"].items():
        assert off(gradients["native"][key], expected) <= 1e-3, key
    for isa in SETS_HERE:
        assert lockstep(model, images, labels, isa=isa).passed


def test_a_set_that_this_build_lacks(monkeypatch):
    """A build of one instruction set: the others are missing, which is no wrong usage."""
    portable = native().instruction_sets()["portable"]
    only = SimpleNamespace(instruction_sets=lambda: {"portable": portable})
    monkeypatch.setattr(compiled, "native", lambda: only)
    with pytest.raises(mr.BackendUnavailable, match="isa avx2: this installation holds kernels of portable only"):
        compiled.instruction_set("avx2")
    with pytest.raises(ValueError, match="isa must be one of"):
        compiled.instruction_set("avx")
