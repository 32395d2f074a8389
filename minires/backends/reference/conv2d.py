"""Convolution as im2col and one matrix product."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from minires.arrays import Array, array_module, channels_first, channels_last
from minires.backends.reference.sums import sum_axes
from minires.backends.reference.windows import Pair, Shape, output_size, taps, windows
from minires.backends.workspace import scratch_like

BLOCK = 1 << 22  # bytes of rows of im2col that are made before they are multiplied


def blocks(x: Array, kernel: Pair, output: Pair) -> Iterator[slice]:
    """The batch in blocks of images: their rows of im2col are still in the processor's cache when they are multiplied.

    Rows that go to memory and come back cost as much as the multiplication.  One block where nothing is copied (1×1),
    and on a GPU, where many small products would cost more than they save.
    """
    N, C = x.shape[:2]
    row = C * kernel[0] * kernel[1] * x.itemsize
    whole = kernel == (1, 1) or array_module(x) is not np
    size = max(N if whole else BLOCK // (row * output[0] * output[1]), 1)
    return (slice(start, start + size) for start in range(0, N, size))


def im2col(x: Array, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair, groups: int) -> Array:
    """(N, C, H, W) -> (G, N·OH·OW, KH·KW·C/G): a window a row.  Valid until this thread's next call.

    The 1×1 window with stride 1 is the pixel itself: then the result is a view of `x`, and nothing is copied.
    """
    view = windows(x, kernel, stride, padding, dilation)  # (N, C, H, W) -> (N, OH, OW, KH, KW, C)
    N, OH, OW, KH, KW, C = view.shape
    view = view.reshape(N, OH, OW, KH, KW, groups, C // groups)  # splitting an axis keeps it a view
    view = view.transpose(5, 0, 1, 2, 3, 4, 6)  # -> (G, N, OH, OW, KH, KW, C/G)
    if not view.flags.c_contiguous:
        columns = scratch_like(view)
        columns[...] = view
        view = columns
    return view.reshape(groups, N * OH * OW, KH * KW * (C // groups))


def conv2d_forward(
    x: Array, weight: Array, bias: Array | None, stride: Pair, padding: Pair, dilation: Pair, groups: int
) -> Array:
    """x (N, C, H, W), weight (O, C/G, KH, KW), bias (O,) or None -> y (N, O, OH, OW)"""
    N, _, H, W = x.shape
    O, _, KH, KW = weight.shape
    OH, OW = output_size((H, W), (KH, KW), stride, padding, dilation)
    filters = _filter_rows(weight, groups).transpose(0, 2, 1)  # (G, K, O/G)
    y = array_module(x).empty((N, OH, OW, O), x.dtype)
    for block in blocks(x, (KH, KW), (OH, OW)):
        columns = im2col(x[block], (KH, KW), stride, padding, dilation, groups)  # (G, M, K): M pixels, K = KH·KW·C/G
        rows = y[block].reshape(-1, groups, O // groups).transpose(1, 0, 2)  # (G, M, O/G), a view
        array_module(x).matmul(columns, filters, out=rows)
    if bias is not None:
        y += bias
    return channels_first(y)


def conv2d_backward_weight(
    grad_output: Array, x: Array, weight_shape: Shape, stride: Pair, padding: Pair, dilation: Pair, groups: int
) -> Array:
    """grad_output (N, O, OH, OW), x (N, C, H, W) -> grad_weight (O, C/G, KH, KW)"""
    O, Cg, KH, KW = weight_shape
    grad_weight = array_module(x).zeros((groups, O // groups, KH * KW * Cg), x.dtype)  # (G, O/G, K)
    for block in blocks(x, (KH, KW), (grad_output.shape[2], grad_output.shape[3])):
        columns = im2col(x[block], (KH, KW), stride, padding, dilation, groups)  # (G, M, K)
        grad_weight += _pixel_rows(grad_output[block], groups).transpose(0, 2, 1) @ columns  # (G, O/G, M) @ (G, M, K)
    return grad_weight.reshape(O, KH, KW, Cg).transpose(0, 3, 1, 2)


def conv2d_backward_bias(grad_output: Array) -> Array:
    """grad_output (N, O, OH, OW) -> grad_bias (O,)"""
    return sum_axes(grad_output, (0, 2, 3))


def conv2d_backward_input(
    grad_output: Array, weight: Array, x_shape: Shape, stride: Pair, padding: Pair, dilation: Pair, groups: int
) -> Array:
    """grad_output (N, O, OH, OW), weight (O, C/G, KH, KW) -> grad_input (N, C, H, W)"""
    O, Cg, KH, KW = weight.shape
    margin = (dilation[0] * (KH - 1) - padding[0], dilation[1] * (KW - 1) - padding[1])
    if stride == (1, 1) and min(margin) >= 0:
        # Every input pixel gathers from the outputs that saw it: again a convolution, with flipped filters.
        flipped = weight.reshape(groups, O // groups, Cg, KH, KW)[..., ::-1, ::-1]
        flipped = flipped.swapaxes(1, 2).reshape(groups * Cg, O // groups, KH, KW)  # (O, C/G, ...) -> (C, O/G, ...)
        return conv2d_forward(grad_output, flipped, None, (1, 1), margin, dilation, groups)

    # col2im: every window sends its gradient back, tap by tap, to the pixels it was cut from.
    N, C, H, W = x_shape
    _, _, OH, OW = grad_output.shape
    columns = _pixel_rows(grad_output, groups) @ _filter_rows(weight, groups)  # (G, M, O/G) @ (G, O/G, K) -> (G, M, K)
    columns = columns.reshape(groups, N, OH, OW, KH * KW, Cg)
    ph, pw = padding
    grad_x = array_module(weight).zeros((N, H + 2 * ph, W + 2 * pw, groups, Cg), weight.dtype)
    for tap, rows, cols in taps((KH, KW), stride, dilation, (OH, OW)):
        grad_x[:, rows, cols] += columns[..., tap, :].transpose(1, 2, 3, 0, 4)  # (G, N, ...) -> (N, OH, OW, G, C/G)
    return channels_first(grad_x[:, ph : ph + H, pw : pw + W].reshape(N, H, W, C))


def _filter_rows(weight: Array, groups: int) -> Array:
    """(O, C/G, KH, KW) -> (G, O/G, KH·KW·C/G), in the order of im2col's rows"""
    return weight.transpose(0, 2, 3, 1).reshape(groups, weight.shape[0] // groups, -1)


def _pixel_rows(y: Array, groups: int) -> Array:
    """(N, O, OH, OW) -> (G, N·OH·OW, O/G)"""
    O = y.shape[1]
    return channels_last(y).reshape(-1, groups, O // groups).transpose(1, 0, 2)
