"""The bugs in convolution and its gradients."""

from __future__ import annotations

from collections.abc import Iterator

from ..bug import Bug, inside
from .builders import CONVOLUTIONS, WINOGRAD, kernel


def bugs() -> Iterator[Bug]:
    file = "conv2d.h"
    yield from inside("conv2d_filters", "cpu/conv2d.h", "filters_of_group(const Conv2d& c", CONVOLUTIONS, [
        ("taps, ‹taps * C›, taps", "taps"),
        ("c.O / c.groups, ‹C›, taps", "C - 1"),
    ])  # fmt: skip
    yield from inside("conv2d_filters", "cpu/conv2d.h", "long conv2d_filters_size(", CONVOLUTIONS, [
        ("c.groups * one.packed_size()", "one.packed_size()"),
    ])  # fmt: skip
    yield from kernel("conv2d_filters", file, CONVOLUTIONS, [
        ("tap[t] = ‹t›", "c.KH * c.KW - 1 - t"),
        ("g * (c.O / c.groups) * (c.C / c.groups) * c.KH * c.KW", "0"),
        ("g * group.packed_size()", "0"),
        ("g < c.groups", "g < 1"),
    ])  # fmt: skip
    yield from kernel("conv2d_forward", file, CONVOLUTIONS, [
        ("r * c.dilation_h - c.padding_h", "r * c.dilation_h + c.padding_h"),
        ("s * c.dilation_w - c.padding_w", "s - c.padding_w"),
        ("x + g * C", "x"),
        ("y + g * O", "y"),
        ("bias ? bias + g * O : nullptr", "bias"),
        ("bias ? bias + g * O : nullptr", "nullptr"),
        ("‹c.stride_h›, c.stride_w, c.OH", "c.stride_w"),
    ])  # fmt: skip
    yield from inside("conv2d_backward_input", "cpu/conv2d.h", "long taps_of(", CONVOLUTIONS, [
        ("first + padding - k * dilation", "first - padding - k * dilation"),
        ("first + padding - k * dilation", "first + padding - k"),
        ("distance[found] = ‹at / stride›", "at"),
        ("long k = ‹K - 1›", "K - 2"),
    ])  # fmt: skip
    yield from kernel("conv2d_backward_input", file, CONVOLUTIONS, [
        ("zero(grad_x + ((n * c.H + h) * c.W + v * c.stride_w + b) * c.C, c.C);", ""),
        ("row_tap[r] * c.KW + column_tap[s]", "column_tap[s] * c.KH + row_tap[r]"),
        ("w + g * O * C * taps", "w"),
        ("grad_y + g * O", "grad_y"),
        ("H = ‹ceil_div(c.H - a, c.stride_h)›", "(c.H - a) / c.stride_h"),
        ("c.stride_h, c.stride_w, ‹a›, b}", "0"),
    ])  # fmt: skip
    yield from kernel("conv2d_backward_input", file, WINOGRAD, [
        ("‹8›, 7, 6, 5", "0"),
        ("c.C, c.H, c.W, ‹2 - c.padding_h›, 2 - c.padding_w};", "c.padding_h"),
    ])  # fmt: skip
    yield from kernel("conv2d_backward_weight", file, CONVOLUTIONS, [
        ("r * c.dilation_h - c.padding_h", "r * c.dilation_h"),
        ("x + g * C", "x"),
        ("grad_y + g * O", "grad_y"),
        ("grad_w + g * O * C * taps", "grad_w"),
        ("from[t * C + i]", "from[i * taps + t]"),
        ("to[i * taps + t]", "to[i * taps + taps - 1 - t]"),
    ])  # fmt: skip
