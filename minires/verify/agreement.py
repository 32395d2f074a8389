"""Whether a backend computes what the reference backend does, kernel by kernel: sizes that no block divides, every
memory layout, several orders of the threads.

Arrays that a kernel is to fill begin as NaN and have a fence around them: a number left out shows, and so does one that
was written outside.  Every check raises AssertionError.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np

import minires.functional as F
from minires import backends
from minires.arrays import Array, channels_first, channels_last
from minires.backends import reference
from minires.tensor import Tensor
from minires.verify import cases
from minires.verify.properties import PROPERTIES, expect

Geometry = tuple[Any, ...]  # shapes of x and weight, stride, padding, dilation, groups

# For the emulator: few numbers, since every thread of a block is run.
FEW_GEOMETRIES: tuple[Geometry, ...] = (
    ((2, 8, 7, 9), (12, 8, 3, 3), (1, 1), (1, 1), (1, 1), 1),
    ((1, 3, 6, 5), (5, 3, 3, 3), (1, 1), (0, 2), (1, 1), 1),
    ((3, 6, 4, 5), (4, 3, 3, 3), (1, 1), (1, 0), (1, 1), 2),
    ((2, 16, 5, 3), (8, 16, 1, 1), (1, 1), (0, 0), (1, 1), 1),
    ((2, 6, 5, 3), (9, 2, 1, 1), (1, 1), (0, 0), (1, 1), 3),
    ((1, 4, 9, 8), (6, 4, 3, 2), (2, 3), (1, 0), (2, 1), 1),
    ((2, 3, 15, 13), (7, 3, 7, 7), (2, 2), (3, 3), (1, 1), 1),
    ((40, 8, 5, 5), (8, 8, 3, 3), (2, 2), (1, 1), (1, 1), 1),
    ((1, 8, 5, 4), (12, 2, 2, 3), (1, 1), (1, 0), (1, 1), 4),  # pixels that can be read by fours, groups that cannot
    ((2, 1, 5, 6), (1, 1, 3, 3), (1, 1), (1, 1), (1, 1), 1),  # a reduction of one more than a tile's depth
    ((1, 4, 7, 11), (6, 4, 2, 3), (2, 1), (0, 1), (1, 3), 1),
    ((3, 4, 11, 13), (140, 4, 3, 3), (1, 1), (1, 1), (1, 1), 1),  # several tiles of pixels and of filters
)
GEOMETRIES: tuple[Geometry, ...] = (
    ((2, 3, 7, 9), (16, 3, 3, 3), (1, 1), (1, 1), (1, 1), 1),
    ((1, 1, 1, 1), (1, 1, 1, 1), (1, 1), (0, 0), (1, 1), 1),
    ((2, 1, 6, 5), (17, 1, 3, 2), (1, 1), (0, 2), (1, 1), 1),
    ((3, 17, 4, 9), (33, 17, 1, 3), (1, 1), (1, 0), (1, 1), 1),
    ((2, 64, 5, 3), (100, 64, 1, 1), (1, 1), (0, 0), (1, 1), 1),
    ((2, 100, 5, 6), (33, 100, 1, 1), (2, 2), (0, 0), (1, 1), 1),
    ((1, 33, 9, 8), (16, 33, 3, 2), (2, 3), (1, 0), (2, 1), 1),
    ((2, 3, 23, 19), (64, 3, 7, 7), (2, 2), (3, 3), (1, 1), 1),
    ((5, 16, 7, 11), (3, 16, 3, 3), (2, 2), (1, 1), (1, 1), 1),
    ((2, 16, 11, 7), (17, 16, 2, 3), (3, 5), (0, 1), (1, 1), 1),  # strides larger than the kernel: pixels nobody saw
    ((2, 17, 3, 4), (16, 17, 2, 2), (1, 1), (4, 3), (1, 1), 1),  # padding larger than the kernel
    ((1, 3, 2, 3), (3, 3, 1, 1), (1, 1), (2, 1), (1, 1), 1),  # outputs that see padding alone
    ((2, 16, 9, 10), (32, 16, 3, 3), (1, 1), (2, 3), (2, 3), 1),
    ((1, 3, 13, 1), (16, 3, 5, 1), (1, 1), (2, 0), (3, 1), 1),
    ((1, 3, 1, 14), (5, 3, 1, 4), (1, 3), (0, 1), (1, 2), 1),
    ((2, 6, 5, 7), (9, 2, 3, 3), (1, 1), (1, 1), (1, 1), 3),
    ((2, 66, 5, 4), (34, 33, 3, 1), (2, 1), (1, 0), (1, 1), 2),
    ((3, 32, 6, 5), (32, 1, 3, 3), (1, 1), (1, 1), (1, 1), 32),  # each channel alone
    ((2, 32, 6, 5), (48, 16, 3, 3), (1, 1), (1, 1), (1, 1), 2),
    ((1, 64, 4, 4), (16, 64, 4, 4), (1, 1), (0, 0), (1, 1), 1),  # one output
    ((0, 3, 7, 9), (16, 3, 3, 3), (1, 1), (1, 1), (1, 1), 1),
    ((0, 16, 5, 5), (8, 16, 1, 1), (2, 2), (0, 0), (1, 1), 1),
    ((70, 5, 3, 3), (6, 5, 3, 3), (1, 1), (1, 1), (1, 1), 1),  # blocks that cross images
    ((1, 600, 3, 4), (40, 600, 1, 1), (1, 1), (0, 0), (1, 1), 1),  # a reduction in several runs
    ((4, 3, 30, 31), (8, 3, 3, 3), (1, 1), (1, 1), (1, 1), 1),  # the filters' gradient in several segments
)
FOR_WINOGRAD: tuple[Geometry, ...] = (
    ((2, 8, 7, 9), (12, 8, 3, 3), (1, 1), (1, 1), (1, 1), 1),
    ((3, 16, 14, 13), (20, 16, 3, 3), (1, 1), (1, 1), (1, 1), 1),
    ((4, 20, 8, 17), (16, 20, 3, 3), (1, 1), (2, 0), (1, 1), 1),
    ((3, 200, 12, 9), (24, 200, 3, 3), (1, 1), (1, 2), (1, 1), 1),  # a reduction in several runs
    ((70, 16, 6, 6), (16, 16, 3, 3), (1, 1), (1, 1), (1, 1), 1),  # several groups of tiles, several segments
)
SIZES_OF_PRODUCTS = (
    (1, 1, 1), (37, 65, 19), (130, 3, 40), (5, 140, 33), (128, 128, 16), (1, 257, 7), (64, 60, 600),
)  # fmt: skip


# -- numbers


def off(found: Array, expected: Array) -> float:
    """Relative difference in norm; NaN counts as infinitely far."""
    expect(found.shape == expected.shape, f"the shape is {found.shape}, expected {expected.shape}")
    difference = float(np.linalg.norm(found - expected) / max(np.linalg.norm(expected), 1e-30))
    return difference if difference == difference else math.inf


def rounding(dtype: Any, terms: int) -> float:
    """What rounding may cost a sum of `terms` products of unit variance, relative in norm.

    A partial sum of k terms has size √k and is rounded by at most half an eps of it.  Roundings add up as a random
    walk, to eps/2 · K/√2 beside a result of size √K; the bound is three times that, and an eps for what is single.
    """
    return float(np.finfo(dtype).eps) * (1 + math.sqrt(terms))


def rounding_of_rung(rung: str, dtype: Any = np.float32) -> float:
    """What rounding to so many bits may cost a product of unit-variance operands, relative in norm.

    float32 keeps 24 bits, tf32 11, bf16 8; four times the rounding of one operand covers both and the sums.
    """
    of_tensor_cores = {"tf32": 4 * 2**-11, "bf16": 4 * 2**-8}
    return of_tensor_cores.get(rung[-4:], 1e-12 if dtype == np.float64 else 2e-6)


WINOGRAD = {np.float32: 5e-6, np.float64: 1e-12}  # its transforms lose a few bits more than a sum of products


def _near(found: Array, expected: Array, bound: float, told: str) -> None:
    distance = off(found, expected)
    expect(distance <= bound, f"{told} is off by {distance:.2g}, more than {bound:.2g}")


# -- memory


WIDTH = 1 << 14  # bytes around an array


def _within_field(shape: tuple[int, ...], dtype: Any, byte: int) -> tuple[Array, Array, int]:
    """An array, aligned to a cache line, in the midst of a field of one byte; the field; and where it begins there."""
    field = np.full(math.prod(shape) * np.dtype(dtype).itemsize + 2 * WIDTH + 64, byte, np.uint8)
    begin = WIDTH - field.ctypes.data % 64
    return np.ndarray(shape, dtype, field.data, begin), field, begin


def among_nan(array: Array) -> Array:
    """A copy of floats with NaN before and behind it in memory: a kernel that reads outside, and be it to multiply what
    it finds there with 0, gives NaN.  The axes lie in the order in which the array's do, without gaps."""
    order = sorted(range(array.ndim), key=lambda axis: -abs(array.strides[axis]))
    room, _, _ = _within_field(tuple(array.shape[axis] for axis in order), array.dtype, 0xFF)
    copy = room.transpose([order.index(axis) for axis in range(array.ndim)])
    copy[...] = array
    return copy


class Fence(ModuleType):
    """NumPy, but its `empty` gives NaN (integers: −77) with a fence around it."""

    POST = 0xA5  # every byte of it

    def __init__(self) -> None:
        super().__init__("numpy")
        self._fields: list[tuple[Array, int, int]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)

    def empty(self, shape: Any, dtype: Any = float) -> Array:
        dtype = np.dtype(dtype)
        array, field, begin = _within_field((shape,) if isinstance(shape, int) else tuple(shape), dtype, self.POST)
        array.fill(np.nan if dtype.kind == "f" else 77 if dtype.kind == "u" else -77)
        self._fields.append((field, begin, begin + array.nbytes))
        return array

    def check(self) -> None:
        """AssertionError if somebody wrote outside of an array that `empty` gave; those are forgotten then."""
        fields, self._fields = self._fields, []
        whole = all((f[:begin] == self.POST).all() and (f[end:] == self.POST).all() for f, begin, end in fields)
        expect(whole, "a kernel wrote outside of the array that it was to fill")


@contextmanager
def fenced(name: str, **options: Any) -> Iterator[Any]:
    """Within it the named backend computes, and every array that its kernels fill has a fence."""
    fence = Fence()
    with backends.backend(name, **options) as backend:
        if name == "emulated":
            backend.device.module = fence
            yield backend
        else:
            from minires.backends.native import backend as eager
            from minires.backends.native import filters, fused

            places = (eager, fused, filters)
            before = [place.empty for place in places]  # type: ignore[attr-defined]
            try:
                for place in places:
                    place.empty = lambda shape, like: fence.empty(shape, like.dtype)  # type: ignore[attr-defined]
                yield backend
            finally:
                for place, empty in zip(places, before, strict=True):
                    place.empty = empty  # type: ignore[attr-defined]
    fence.check()


# -- operations


def agree_with_reference(backend: str, operation: str, seeds: int = 12, **options: Any) -> None:
    """Outputs and gradients of awkward cases of an operation, and its properties; in double precision."""
    for number in range(seeds):
        case, expected = _case(operation, number)
        # The order in which the emulator runs the threads of a block: ascending, and two shuffled ones.
        order = {"seed": number % 3} if backend == "emulated" else {}
        with fenced(backend, **options, **order):
            found = _forward_and_gradients(case.fn, case.inputs)
        for position, (one, other) in enumerate(zip(found, expected, strict=True)):
            told = f"{case.told}: " + (f"the gradient of input {position - 1}" if position else "the output")
            _near_or_tiny(one, other, 1e-11, told)
    for number, holds in enumerate(PROPERTIES.get(operation, ())):
        with fenced(backend, **options):
            holds(np.random.default_rng(number))


@cache
def _case(operation: str, number: int) -> tuple[cases.Case, list[Array]]:
    """A case, the last ones larger than a block of threads where there is one, and what the reference backend gives."""
    rng = np.random.default_rng((11, number))
    large = LARGE.get(operation, ())
    case = large[number](rng) if number < len(large) else cases.draw(operation, cases.random_pick(rng), rng)
    with backends.backend("reference"):
        return case, _forward_and_gradients(case.fn, case.inputs)


def _forward_and_gradients(fn: Callable[..., Tensor], inputs: Sequence[Array]) -> list[Array]:
    tensors = [Tensor(among_nan(array), requires_grad=True) for array in inputs]
    y = fn(*tensors)
    result = np.array(y.data)
    y.backward(np.random.default_rng(y.ndim).standard_normal(y.shape))
    unmodified = all(np.array_equal(t.data, array) for t, array in zip(tensors, inputs, strict=True))
    expect(unmodified, "an input was changed")
    return [result, *(np.zeros(t.shape) if t.grad is None else np.array(t.grad) for t in tensors)]


def _near_or_tiny(found: Array, expected: Array, bound: float, told: str) -> None:
    """A gradient may be zero but for rounding: beside numbers of order 1 that is nothing."""
    expect(found.shape == expected.shape, f"{told} has shape {found.shape}, expected {expected.shape}")
    error = np.abs(found - expected) / (1 + np.abs(expected))
    expect(bool((error <= bound).all()), f"{told} is off by {error.max(initial=0):.2g}, more than {bound:.2g}")


def _no_oracle(*_: Array) -> Array:
    raise NotImplementedError


def _large(fn: Callable[..., Tensor], *shapes: tuple[int, ...]) -> Callable[[np.random.Generator], cases.Case]:
    def case(rng: np.random.Generator) -> cases.Case:
        return cases.Case(fn, [rng.standard_normal(s) for s in shapes], _no_oracle, f"of shapes {shapes}")

    return case


def _far_from_zero(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.batch_norm(x + 30, None, None, weight, bias, training=True)


def _in_evaluation(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    C = x.shape[1]
    return F.batch_norm(x, np.linspace(-1, 1, C), np.linspace(0.5, 2, C), weight, bias, eps=0.1)


def _labels(logits: Tensor) -> Any:
    N, C = logits.shape
    return np.arange(N) * 7 % C


# Larger than a block of threads, and no multiple of one: several blocks of pixels, channels beyond a warp or a vector.
LARGE: dict[str, tuple[Callable[[np.random.Generator], cases.Case], ...]] = {
    "batch_norm": (_large(_far_from_zero, (5, 37, 23, 17), (37,), (37,)),),
    "batch_norm_eval": (_large(_in_evaluation, (5, 37, 23, 17), (37,), (37,)),),
    "relu": (_large(F.relu, (3, 37, 5, 7)), _large(F.relu, (40_003,))),
    "add": (_large(lambda a, b: a + b, (3, 37, 5, 7), (3, 37, 5, 7)), _large(lambda a, b: a + b, (1003,), (1003,))),
    "max_pool2d": (
        _large(lambda x: F.max_pool2d(x, 3, 2, 1), (2, 70, 7, 6)),
        _large(lambda x: F.max_pool2d(x, (17, 16), (3, 2), (1, 8)), (1, 3, 20, 40)),  # the tap no longer fits a byte
    ),
    "avg_pool2d": tuple(  # the last window along W begins on the image and ends beyond the padding
        _large(lambda x, counted=counted: F.avg_pool2d(x, 3, 2, 1, True, counted), (2, 70, 7, 6))
        for counted in (False, True)
    ),
    "adaptive_avg_pool2d": (_large(lambda x: F.adaptive_avg_pool2d(x, (3, 4)), (2, 70, 7, 6)),),
    "softmax": (_large(F.softmax, (11, 70)),),
    "log_softmax": (_large(F.log_softmax, (11, 70)),),
    "cross_entropy": (
        _large(lambda x: F.cross_entropy(x, _labels(x), 0.1), (11, 70)),
        _large(lambda x: F.cross_entropy(x, _labels(x)), (11, 70)),
    ),
    "linear": (_large(F.linear, (70, 150), (40, 150), (40,)),),
}


# -- convolutions


@cache
def _convolution(geometry: Geometry, dtype: Any) -> tuple[list[Array], list[Array]]:
    """x, w, b and the cotangent in dtype; y and the gradients of the three by the reference backend in float64."""
    x_shape, w_shape, *options = geometry
    rng = np.random.default_rng(3)
    x, w, b = (rng.standard_normal(s).astype(dtype) for s in (x_shape, w_shape, w_shape[:1]))
    exact = [a.astype(float) for a in (x, w, b)]
    y = reference.conv2d_forward(*exact, *options)
    g = rng.standard_normal(y.shape).astype(dtype)
    exact_g = g.astype(float)
    gradients = (
        reference.conv2d_backward_input(exact_g, exact[1], x_shape, *options),
        reference.conv2d_backward_weight(exact_g, exact[0], w_shape, *options),
        reference.conv2d_backward_bias(exact_g),
    )
    return [x, w, b, g], [y, *gradients]


def check_convolution(
    backend: Any, geometry: Geometry, dtype: Any, bound: float | None = None, gradients: bool = True
) -> None:
    """Forward and the gradients beside the reference backend in double precision.

    bound   relative in norm; None: what rounding may cost a sum of so many products
    """
    x_shape, w_shape, *options = geometry
    (x, w, b, g), expected = _convolution(geometry, dtype)
    # As the kernels want them: then they are read where they lie.
    x, g = (channels_first(among_nan(channels_last(a))) for a in (x, g))
    w = channels_first(among_nan(channels_last(w))) if backend.name == "emulated" else among_nan(w)
    kept = [array.copy() for array in (x, w, b, g)]
    found = [backend.conv2d_forward(x, w, b, *options)]
    if gradients:
        found.append(backend.conv2d_backward_input(g, w, x_shape, *options))
        found.append(backend.conv2d_backward_weight(g, x, w_shape, *options))
        found.append(backend.conv2d_backward_bias(g))
    expect(all(array.dtype == dtype for array in found), f"a result is not {np.dtype(dtype)}")
    same = all(np.array_equal(a, b) for a, b in zip((x, w, b, g), kept, strict=True))
    expect(same, "an input was changed")
    taps, pixels = w_shape[2] * w_shape[3], g.size // max(g.shape[1], 1)
    terms = (w_shape[1] * taps, w_shape[0] * taps, pixels, pixels)
    names = ("y", "the gradient of x", "of w", "of b")
    for name, one, other, n in zip(names, found, expected, terms, strict=False):
        limit = rounding(dtype, n) if bound is None or name == "of b" else bound
        _near(one, other, limit, f"conv2d {geometry}: {name}")


def convolutions_of_rung(rung: str, gradients: bool = False) -> None:
    """A rung of the ladder: the forward pass, and on request the gradients that go with it."""
    from minires.backends.kernels.conv2d import Geometry as Sizes

    dtypes = (np.float32,) if rung.endswith(("tf32", "bf16")) else (np.float64,)
    for number, (geometry, dtype) in enumerate(itertools.product(FEW_GEOMETRIES, dtypes)):
        sizes = Sizes.of(*geometry)
        if (rung == "conv_03_1x1" and not sizes.is_1x1) or (rung == "conv_08_winograd" and not sizes.suits_winograd):
            continue
        with fenced("emulated", conv2d=rung, seed=number % 3) as backend:
            check_convolution(backend, geometry, dtype, rounding_of_rung(rung, dtype), gradients)


def fused_epilogue() -> None:
    """conv_09: relu?(conv(x) · scale + shift (+ residual))"""
    from minires.backends.kernels import conv2d
    from minires.backends.kernels.provider import Emulator

    rng = np.random.default_rng(5)
    x, w = rng.standard_normal((2, 5, 7, 6)), rng.standard_normal((9, 6, 3, 3))
    sizes = conv2d.Geometry.of((2, 6, 5, 7), w.shape, (1, 1), (1, 1), (1, 1), 1)
    scale, shift, more = rng.standard_normal(9), rng.standard_normal(9), rng.standard_normal((2, 5, 7, 9))
    plain = reference.conv2d_forward(x.transpose(0, 3, 1, 2), w, None, (1, 1), (1, 1), (1, 1), 1)
    fence = Fence()
    for residual, relu in itertools.product([False, True], repeat=2):
        y = fence.empty((2, 5, 7, 9))
        conv2d.fused(Emulator(1), x, channels_last(w), y, scale, shift, more if residual else None, relu, sizes)
        expected = plain.transpose(0, 2, 3, 1) * scale + shift + (more if residual else 0)
        _near(y, np.maximum(expected, 0) if relu else expected, 1e-12, f"conv_09_fused {residual=} {relu=}")
    fence.check()


def native_convolutions(winograd: bool = False) -> None:
    """Every geometry, in both precisions; with Winograd's algorithm those that it may compute."""
    for geometry in FOR_WINOGRAD if winograd else GEOMETRIES:
        for dtype in (np.float32,) if winograd else (np.float32, np.float64):
            with fenced("native", winograd=winograd) as backend:
                check_convolution(backend, geometry, dtype, WINOGRAD[dtype] if winograd else None)


def what_follows_a_convolution(winograd: bool) -> None:
    """relu((x ⋆ w + b − mean) · scale + shift + added), with any of its parts left out."""
    options = ((1, 1), (1, 1), (1, 1), 1)
    rng = np.random.default_rng(6)
    dtype: Any = np.float32 if winograd else np.float64
    x, w = rng.standard_normal((2, 24, 10, 9)).astype(dtype), rng.standard_normal((21, 24, 3, 3)).astype(dtype)
    b, mean, scale, shift = rng.standard_normal((4, 21)).astype(dtype)
    plain = channels_last(reference.conv2d_forward(x.astype(float), w.astype(float), None, *options))
    added = rng.standard_normal(plain.shape).astype(dtype)
    for bias, norm, more, relu in itertools.product([False, True], repeat=4):
        expected = plain + (b if bias else 0)
        expected = (expected - mean) * scale + shift if norm else expected
        expected = expected + (added if more else 0)
        expected = np.maximum(expected, 0) if relu else expected
        with fenced("native", winograd=winograd) as backend:
            y = backend._convolve(
                x, w, b if bias else None, options, (mean, scale, shift) if norm else (None,) * 3,
                channels_first(added) if more else None, relu,
            )  # fmt: skip
            bound = WINOGRAD[dtype] if winograd else rounding(dtype, 9 * 24)
            _near(channels_last(y), expected, bound, f"conv2d with {bias=} {norm=} {more=} {relu=}")


def a_gradient_that_came_by_another_way() -> None:
    """It is added, also at the pixels that no output saw."""
    x_shape, w_shape = (2, 16, 7, 8), (32, 16, 2, 1)
    rng = np.random.default_rng(7)
    for stride in ((1, 1), (2, 2), (3, 1)):
        w, added = rng.standard_normal(w_shape), rng.standard_normal((2, 7, 8, 16))
        options = (stride, (0, 0), (1, 1), 1)
        shape = reference.conv2d_forward(np.zeros(x_shape), w, None, *options).shape
        g = rng.standard_normal(shape)
        expected = reference.conv2d_backward_input(g, w, x_shape, *options) + channels_first(added)
        with fenced("native") as backend:
            found = backend._gradient_of_input(g, w, x_shape, options, channels_first(added))
        _near(found, expected, rounding(np.float64, 64), f"the gradient of x with another one added, {stride=}")


# -- products of matrices


def products_of_rung(rung: str) -> None:
    """Every size, transposed operands, gaps between rows and columns, in the precision that the rung has."""
    from minires.backends.kernels.gemm import gemm
    from minires.backends.kernels.provider import Emulator

    dtype = np.float32 if rung.endswith(("tf32", "bf16")) else np.float64
    rng = np.random.default_rng(8)
    fence = Fence()
    for number, (M, N, K) in enumerate(SIZES_OF_PRODUCTS):
        for a_transposed, b_transposed in itertools.product([False, True], repeat=2):
            a = rng.standard_normal((K, M) if a_transposed else (M, K)).astype(dtype)
            b = rng.standard_normal((N, K) if b_transposed else (K, N)).astype(dtype)
            a, b = (among_nan(m.T if transposed else m) for m, transposed in ((a, a_transposed), (b, b_transposed)))
            out = fence.empty((M, N), dtype)
            gemm(Emulator(number % 3), rung, a, b, out)
            _near(out, a.astype(float) @ b, rounding_of_rung(rung, dtype), f"{rung} {M}×{K} · {K}×{N}")
    a = rng.standard_normal((80, 70)).astype(dtype)[::2, ::3]
    b = rng.standard_normal((48, 90)).astype(dtype)[::2, 5:55]
    room = fence.empty((40, 60), dtype)
    gemm(Emulator(), rung, a, b, room[:, 5:55])
    _near(room[:, 5:55], a.astype(float) @ b, rounding_of_rung(rung, dtype), f"{rung} with gaps")
    expect(bool(np.isnan(room[:, :5]).all() and np.isnan(room[:, 55:]).all()), f"{rung} wrote between the rows of C")
    fence.check()


def native_products() -> None:
    rng = np.random.default_rng(9)
    fence = Fence()
    with backends.backend("native") as backend:
        for (M, N, K), dtype in itertools.product(
            (*SIZES_OF_PRODUCTS, (40, 50, 700), (300, 20, 50), (9, 4, 0)), (np.float32, np.float64)
        ):
            a, b, bias = (rng.standard_normal(shape).astype(dtype) for shape in ((M, K), (K, N), (N,)))
            exact = a.astype(float) @ b
            for transposed, start in itertools.product([False, True], [None, bias]):
                c = fence.empty((M, N), dtype)
                backend.kernels.matmul(a, b.T.copy() if transposed else b, transposed, start, c)
                told = f"matmul {M}×{K} · {K}×{N}"
                _near(c, exact + (0 if start is None else bias), rounding(dtype, K), told)
            c = fence.empty((M, N), dtype)
            backend.kernels.matmul_at(a.T.copy(), b, c)
            _near(c, exact, rounding(dtype, K), f"matmul_at {M}×{K} · {K}×{N}")
    fence.check()


# -- kernels that an operation does not reach, or not with a grid smaller than the array


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
        expect(bool(np.array_equal(found, expected)), f"{kernel} differs in {(found != expected).sum()} of 1000 elements")


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
            lr, momentum, decay, int(step == 0),
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
        _near(moved, p, 1e-14, "a parameter after a step of SGD")
        _near(velocity, v, 1e-14, "its velocity")


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
        told = f"batch norm with bias {shift is not None}, skip-add {residual is not None}, {relu=}"
        _near(y, expected, 1e-13, told)
        fence.check()


def batch_norm_gradients_behind_relu() -> None:
    """Σ g, Σ g · (x − mean) and the gradient of x, where g counts only where the ReLU behind let the number pass."""
    rng = np.random.default_rng(15)
    x, g = rng.standard_normal((2, 1900, 37))
    mean, scale, bias, mean_g, slope = rng.standard_normal((5, 37))
    fence = Fence()
    for relu in (False, True):
        passed = np.where((x - mean) * scale + bias > 0, g, 0) if relu else g
        sums, centred, grad = fence.empty(37), fence.empty(37), fence.empty(x.shape)
        with backends.backend("native") as backend:
            affine = (scale, bias) if relu else (None, None)
            backend.kernels.batch_norm_sums(g, x, mean, *affine, sums, centred)
            backend.kernels.batch_norm_input(g, x, mean, scale, bias, relu, mean_g, slope, grad)
        _near(sums, passed.sum(0), 1e-12, f"Σ g {relu=}")
        _near(centred, (passed * (x - mean)).sum(0), 1e-12, f"Σ g · (x − mean) {relu=}")
        _near(grad, scale * (passed - mean_g - (x - mean) * slope), 1e-12, f"the gradient of x {relu=}")
    fence.check()


def sums_of_pixels() -> None:
    """The gradient of a bias, of more pixels than a block."""
    rng = np.random.default_rng(18)
    fence = Fence()
    for P, C in ((3000, 37), (5, 3), (1, 1)):
        g, found = among_nan(rng.standard_normal((P, C))), fence.empty(C)
        with backends.backend("native") as backend:
            backend.kernels.sum_pixels(g, found)
        _near(found, g.sum(0), 1e-12, f"the sum of {P} pixels of {C} channels")
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
                for change in (-x[where], np.nextafter(x[where], dtype(9))):
                    other = x.copy()
                    other[where] = change
                    expect(digest(other) != before, f"digest missed a change of element {where} of {size}")
            rolled = np.roll(x, 128 * 4 // x.itemsize)
            expect(bool(np.array_equal(rolled, x)) or digest(rolled) != before, "digest does not see the order")
