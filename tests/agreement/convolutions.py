"""Convolutions of the hand-written kernels beside the reference backend."""

from __future__ import annotations

import itertools
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np

from minires.arrays import Array, channels_first, channels_last
from minires.backends import reference
from minires.verify import bounds, exact
from minires.verify.bounds import Arithmetic
from minires.verify.enclosure import Enclosure
from minires.verify.properties import expect

from .fences import Fence, among_nan, fenced
from .geometries import FEW_GEOMETRIES, FOR_WINOGRAD, GEOMETRIES, Geometry
from .rounding import WINOGRAD, near, rounding, rounding_of_rung, within


@cache
def _convolution(geometry: Geometry, dtype: Any) -> tuple[list[Array], list[Array]]:
    """x, w, b and the cotangent in dtype; y and the gradients of the three by the reference backend in float64."""
    x_shape, w_shape, *options = geometry
    rng = np.random.default_rng(3)
    x, w, b = (np.asarray(rng.standard_normal(s), dtype) for s in (x_shape, w_shape, w_shape[:1]))
    wide = [a.astype(float) for a in (x, w, b)]
    y = reference.conv2d_forward(wide[0], wide[1], wide[2], *options)
    g = rng.standard_normal(y.shape).astype(dtype)
    wide_g = g.astype(float)
    gradients = (
        reference.conv2d_backward_input(wide_g, wide[1], x_shape, *options),
        reference.conv2d_backward_weight(wide_g, wide[0], w_shape, *options),
        reference.conv2d_backward_bias(wide_g),
    )
    return [x, w, b, g], [y, *gradients]


@cache
def _exact_convolution(geometry: Geometry, dtype: Any) -> tuple[exact.Conv2d, list[Enclosure]]:
    """The exact y and gradients of the same arrays."""
    (x, w, b, g), _ = _convolution(geometry, dtype)
    terms = exact.Conv2d(SimpleNamespace(geometry=geometry[2:], output_shape=g.shape), x, w, b)
    return terms, [terms.forward(), *terms.backward(g)]


def check_convolution(
    backend: Any,
    geometry: Geometry,
    dtype: Any,
    bound: float | None = None,
    gradients: bool = True,
    bound_of_gradients: float | None = None,
    **options_of_backend: Any,
) -> None:
    """Forward and the gradients beside the reference backend in double precision, and within their a-priori bounds.

    bound                relative in norm; None: what rounding may cost a sum of so many products
    bound_of_gradients   of x and w; None: that of the forward pass
    """
    x_shape, w_shape, *options = geometry
    (x, w, b, g), expected = _convolution(geometry, dtype)
    # In the layout that the kernels read without a copy.
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
    for number, (name, one, other, n) in enumerate(zip(names, found, expected, terms, strict=False)):
        given = bound_of_gradients or bound if number else bound
        limit = rounding(dtype, n) if given is None or name == "of b" else given
        near(one, other, limit, f"conv2d {geometry}: {name}")
    options_of_backend |= {"winograd": getattr(backend, "winograd", False)}
    arithmetic = Arithmetic.of(dtype, backend.name, **options_of_backend)
    convolution, results = _exact_convolution(geometry, dtype)
    limits = [bounds.forward(convolution, arithmetic), *bounds.backward(convolution, arithmetic, g)]
    for name, one, result, limit in zip(names, found, results, limits, strict=False):
        within(one, result, limit, f"conv2d {geometry}: {name}")


def convolutions_of_rung(rung: str, gradients: bool = False, dtype: Any = None) -> None:
    """A rung of the ladder: the forward pass, and on request the gradients that go with it.

    dtype   None: the most precise that the rung has
    """
    from minires.backends.kernels.conv2d import Geometry as Sizes

    dtype = dtype or (np.float32 if rung.endswith(("tf32", "bf16")) else np.float64)
    bound, bound_of_gradients = rounding_of_rung(rung, dtype), rounding_of_rung("", dtype)
    for number, geometry in enumerate(FEW_GEOMETRIES):
        sizes = Sizes.of(*geometry)
        if (rung == "conv_03_1x1" and not sizes.is_1x1) or (rung == "conv_08_winograd" and not sizes.suits_winograd):
            continue
        with fenced("emulated", conv2d=rung, seed=number % 3) as backend:
            check_convolution(backend, geometry, dtype, bound, gradients, bound_of_gradients, conv2d=rung)


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
        near(y, np.maximum(expected, 0) if relu else expected, 1e-12, f"conv_09_fused {residual=} {relu=}")
    x[1, 3, 2] = np.nan  # reaches the outputs that see it, through ReLU too
    y = fence.empty((2, 5, 7, 9))
    conv2d.fused(Emulator(1), x, channels_last(w), y, scale, shift, None, True, sizes)
    seen = np.zeros(y.shape, bool)
    seen[1, 2:5, 1:4] = True
    expect(np.array_equal(np.isnan(y), seen), "conv_09_fused loses NaN or spreads it")
    fence.check()


def native_convolutions(winograd: bool = False) -> None:
    """Every geometry, in both precisions; with Winograd's algorithm those that it may compute."""
    for geometry in FOR_WINOGRAD if winograd else GEOMETRIES:
        for dtype in (np.float32,) if winograd else (np.float32, np.float64):
            with fenced("native", winograd=winograd) as backend:
                check_convolution(backend, geometry, dtype, WINOGRAD[dtype] if winograd else None)


def what_follows_a_convolution(
    winograd: bool, x_shape: tuple[int, ...] = (2, 24, 10, 9), O: int = 21, dtype: Any = None, isa: str = "auto"
) -> None:
    """relu((x ⋆ w + b − mean) · scale + shift + added), with any of its parts left out."""
    options = ((1, 1), (1, 1), (1, 1), 1)
    rng = np.random.default_rng(6)
    dtype = dtype or (np.float32 if winograd else np.float64)
    x, w = rng.standard_normal(x_shape).astype(dtype), rng.standard_normal((O, x_shape[1], 3, 3)).astype(dtype)
    b, mean, scale, shift = rng.standard_normal((4, O)).astype(dtype)
    plain = channels_last(reference.conv2d_forward(x.astype(float), w.astype(float), None, *options))
    added = rng.standard_normal(plain.shape).astype(dtype)
    for bias, norm, more, relu in itertools.product([False, True], repeat=4):
        expected = plain + (b if bias else 0)
        expected = (expected - mean) * scale + shift if norm else expected
        expected = expected + (added if more else 0)
        expected = np.maximum(expected, 0) if relu else expected
        with fenced("native", isa=isa, winograd=winograd) as backend:
            y = backend._convolve(
                x, w, b if bias else None, options, (mean, scale, shift) if norm else (None,) * 3,
                channels_first(added) if more else None, relu,
            )  # fmt: skip
            bound = WINOGRAD[dtype] if winograd else rounding(dtype, 9 * x_shape[1])
            near(channels_last(y), expected, bound, f"conv2d with {bias=} {norm=} {more=} {relu=}")
