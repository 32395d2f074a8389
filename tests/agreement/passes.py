"""Kernels of one pass over memory, launched as no operation does: small grids, fused tails, the optimiser."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from minires import backends
from minires.arrays import Array
from minires.verify.properties import expect

from .fences import Fence, among_nan
from .rounding import near


def small_grids() -> None:
    """relu, its gradient and add where each thread has several elements; add with ReLU."""
    from minires.backends.kernels.provider import Emulator

    rng = np.random.default_rng(10)
    a, b = rng.standard_normal((2, 1000))
    a[::7] = 0
    fence, emulator = Fence(), Emulator(2)

    def launch(kernel: str, *arguments: Any) -> Array:
        y = fence.empty(1000)
        emulator.launch(kernel, np.float64, (3,), (64,), *(y if v is ... else v for v in arguments))
        fence.check()
        return y

    results = {
        "relu_forward": (launch("relu_forward", a, ..., 1000), np.maximum(a, 0)),
        "relu_backward": (launch("relu_backward", b, a, ..., 1000), np.where(a > 0, b, 0)),
        "add_forward": (launch("add_forward", a, b, ..., 1000, 0), a + b),
        "add_forward with relu": (launch("add_forward", a, b, ..., 1000, 1), np.maximum(a + b, 0)),
    }
    for kernel, (found, expected) in results.items():
        expect(
            bool(np.array_equal(found, expected)), f"{kernel} differs in {(found != expected).sum()} of 1000 elements"
        )


def sgd_of_kernel() -> None:
    """Chunks of 100 elements of parameters of 250, 1 and 130, the first step and two more."""
    from minires.backends.kernels.provider import Emulator

    rng = np.random.default_rng(12)
    sizes, chunk, (lr, momentum, decay) = [250, 1, 130], 100, (0.1, 0.9, 0.01)
    chunks = [(which, begin) for which, n in enumerate(sizes) for begin in range(0, n, chunk)]
    owner, start = np.array(chunks, np.int32).T.copy()
    fence = Fence()
    params, velocities = [fence.empty(n) for n in sizes], [fence.empty(n) for n in sizes]
    for p in params:
        p[...] = rng.standard_normal(p.shape)
    expected = [(p.copy(), np.zeros(p.shape)) for p in params]
    for step in range(3):
        grads = [rng.standard_normal(n) for n in sizes]
        tables = [np.array([a.ctypes.data for a in arrays], np.uint64) for arrays in (params, grads, velocities)]
        Emulator(step).launch(
            "sgd_step", np.float64, (2,), (32,), *tables, np.array(sizes, np.int32), owner, start, len(owner), chunk,
            np.array(lr), momentum, decay, int(step == 0),
        )  # fmt: skip
        _check_sgd(expected, params, velocities, grads, lr, momentum, decay)
    fence.check()


def native_sgd() -> None:
    rng = np.random.default_rng(13)
    sizes, (lr, momentum, decay) = [40_000, 1, 13], (0.1, 0.9, 0.01)
    params, velocities = [rng.standard_normal(n) for n in sizes], [np.zeros(n) for n in sizes]
    expected = [(p.copy(), np.zeros(p.shape)) for p in params]
    for _ in range(3):
        grads = [rng.standard_normal(n) for n in sizes]
        with backends.backend("native") as backend:
            backend.sgd_step(params, grads, velocities, lr, momentum, decay)
        _check_sgd(expected, params, velocities, grads, lr, momentum, decay)


def _check_sgd(
    expected: list[tuple[Array, Array]], params: list[Array], velocities: list[Array], grads: list[Array],
    lr: float, momentum: float, decay: float,
) -> None:  # fmt: skip
    for (p, v), moved, velocity, g in zip(expected, params, velocities, grads, strict=True):
        v[...] = momentum * v + g + decay * p
        p -= lr * v
        near(moved, p, 1e-14, "a parameter after a step of SGD")
        near(velocity, v, 1e-14, "its velocity")


def batch_norm_fused(kernel: bool) -> None:
    """relu?(batch norm (+ skip-add)), by the CUDA kernel or by the native ones, and on the latter its gradients."""
    rng = np.random.default_rng(14)
    x, more = rng.standard_normal((2, 1700, 37))
    mean, scale, bias = rng.standard_normal((3, 37))
    var = rng.uniform(0.5, 2, 37)
    plain = (x - mean) / np.sqrt(var + 0.1) * scale
    fence = Fence()
    for shift, residual, relu in itertools.product([None, bias], [None, more], [False, True]):
        expected = plain + (0 if shift is None else shift) + (0 if residual is None else residual)
        expected = np.maximum(expected, 0) if relu else expected
        y = fence.empty(x.shape)
        if kernel:
            from minires.backends.kernels.provider import Emulator

            floor = 0.0 if relu else -np.inf
            arguments = (x, mean, var, scale, shift, residual, y, *x.shape, 0.1, float(floor))
            Emulator(1).launch("batch_norm_apply", np.float64, (3, 2), (32, 8), *arguments)
        else:
            with backends.backend("native") as backend:
                whole = scale / np.sqrt(var + 0.1)
                backend.kernels.batch_norm_apply(x, mean, whole, shift, residual, relu, y)
        name = f"batch norm with bias {shift is not None}, skip-add {residual is not None}, {relu=}"
        near(y, expected, 1e-13, name)
        fence.check()


def batch_norm_gradients_behind_relu() -> None:
    """Σ g, Σ g · (x − mean) and the gradient of x, where g counts only where the ReLU behind let the number pass."""
    rng = np.random.default_rng(15)
    x, g = rng.standard_normal((2, 1900, 37))
    mean, scale, bias, mean_g, slope = rng.standard_normal((5, 37))
    x[::3], bias[::2] = mean, 0.0  # outputs that are exactly 0: the ReLU behind is flat there
    fence = Fence()
    for relu in (False, True):
        passed = np.where((x - mean) * scale + bias > 0, g, 0) if relu else g
        sums, centred, grad = fence.empty(37), fence.empty(37), fence.empty(x.shape)
        with backends.backend("native") as backend:
            affine = (scale, bias) if relu else (None, None)
            backend.kernels.batch_norm_sums(g, x, mean, *affine, sums, centred)
            backend.kernels.batch_norm_input(g, x, mean, scale, bias, relu, mean_g, slope, grad)
        near(sums, passed.sum(0), 1e-12, f"Σ g {relu=}")
        near(centred, (passed * (x - mean)).sum(0), 1e-12, f"Σ g · (x − mean) {relu=}")
        near(grad, scale * (passed - mean_g - (x - mean) * slope), 1e-12, f"the gradient of x {relu=}")
    fence.check()


def sums_of_pixels() -> None:
    """The gradient of a bias, of more pixels than a block."""
    rng = np.random.default_rng(18)
    fence = Fence()
    for P, C in ((3000, 37), (5, 3), (1, 1)):
        g, found = among_nan(rng.standard_normal((P, C))), fence.empty(C)
        with backends.backend("native") as backend:
            backend.kernels.sum_pixels(g, found)
        near(found, g.sum(0), 1e-12, f"the sum of {P} pixels of {C} channels")
    fence.check()


def adds_with_relu() -> None:
    """add(a, b, relu) of the native backend, longer than a task and no multiple of a vector."""
    rng = np.random.default_rng(16)
    a, b = rng.standard_normal((2, 70_001))
    a[-9:] = -9  # in the rest of a vector too, ReLU has something to do
    fence = Fence()
    for relu in (False, True):
        y = fence.empty(a.shape)
        with backends.backend("native") as backend:
            backend.kernels.add(a, b, relu, y)
        expect(bool(np.array_equal(y, np.maximum(a + b, 0) if relu else a + b)), f"add differs, {relu=}")
    fence.check()


def digest_sees_every_change() -> None:
    """Of any one number, of its sign alone, and of the order of two; the digest of equal arrays is equal."""
    rng = np.random.default_rng(17)
    with backends.backend("native") as backend:
        digest = backend.kernels.digest
        for size, dtype in itertools.product((1, 5, 128, 700, 5000), (np.float32, np.float64)):
            x = rng.standard_normal(size).astype(dtype)
            before = digest(x)
            expect(digest(x.copy()) == before, "the digest of a copy is another one")
            for where in {0, size // 3, size // 2, size - 1}:
                for change in (-x[where], np.nextafter(x[where], np.array(9, dtype))):
                    other = x.copy()
                    other[where] = change
                    expect(digest(other) != before, f"digest missed a change of element {where} of {size}")
            rolled = np.roll(x, 128 * 4 // x.itemsize)
            expect(bool(np.array_equal(rolled, x)) or digest(rolled) != before, "digest does not see the order")


def between_kernels() -> None:
    """Copies and arithmetic per channel of the native backend: the bits of the same NumPy expression."""
    from minires.backends import composed
    from minires.backends.native.compiled import native

    rng, fence = np.random.default_rng(16), Fence()
    dtypes: tuple[Any, ...] = (np.float32, np.float64)
    for dtype in dtypes:
        a, b, w = (rng.uniform(0.1, 3, 37).astype(dtype) for _ in range(3))
        y, z, v = (fence.empty(37, dtype) for _ in range(3))
        inv_std = 1 / np.sqrt(a + dtype(1e-3))
        native().norm_constants(a, 1e-3, w, y, z)
        _same("norm_constants", (y, z), (inv_std, inv_std * w))
        native().norm_slopes(a, b, w, 7, y, z, v)
        _same("norm_slopes", (y, z, v), (b * w, a / dtype(7), w * (b * w) / dtype(7)))
        native().multiply(a, b, y)
        _same("multiply", (y,), (a * b,))
        found, expected = w.copy(), w.copy()
        native().move_statistic(found, b, 0.3, 7 / 6)
        composed.move_statistic(None, expected, b, 0.3, 7 / 6)
        _same("move_statistic", (found,), (expected,))
        filled = fence.empty((3, 5), dtype)
        native().fill(filled, -2.5)
        _same("fill", (filled,), (np.full((3, 5), -2.5, dtype),))
        for n in (1, 64, 1000):
            x, total = rng.integers(-99, 99, n).astype(dtype), fence.empty((), dtype)  # exact in any order
            native().mean(x, total)
            _same("mean", (total,), (x.sum() / dtype(n),))
    for kind, shape in itertools.product(("u1", "i2", "f4", "f8"), ((), (5,), (1, 7, 3), (2, 3, 5, 7), (9, 1, 700, 4))):
        x = rng.integers(0, 200, shape).astype(kind)
        for axes in itertools.permutations(range(len(shape))):
            to = fence.empty(tuple(shape[i] for i in axes), np.dtype(kind)).transpose(np.argsort(axes))
            native().copy(to, x)
            _same("copy", (to,), (x,))
        if len(shape) > 1:  # strides of every sign
            wide = np.repeat(np.repeat(x, 2, 0), 3, -1)[::-2, ..., ::3]
            narrow = fence.empty(shape, np.dtype(kind))[::-1]
            native().copy(narrow, wide)
            _same("copy", (narrow,), (wide,))
    fence.check()


def _same(name: str, found: tuple[Array, ...], expected: tuple[Array, ...]) -> None:
    for number, (one, other) in enumerate(zip(found, expected, strict=True)):
        wrong = int(np.sum(one != other))
        expect(one.shape == other.shape and not wrong, f"{name}: result {number} differs in {wrong} elements")
