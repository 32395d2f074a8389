"""Sliding windows over an image batch: the geometry that convolution and pooling share."""

from __future__ import annotations

from collections.abc import Iterator

from minires.arrays import Array, array_module, channels_last

Pair = tuple[int, int]
Shape = tuple[int, ...]


def output_size(size: Shape, kernel: Shape, stride: Pair, padding: Pair, dilation: Pair) -> Pair:
    """(H, W) and (KH, KW) -> (OH, OW) of a convolution."""
    (H, W), (KH, KW), (sh, sw), (ph, pw), (dh, dw) = size, kernel, stride, padding, dilation
    return (H + 2 * ph - dh * (KH - 1) - 1) // sh + 1, (W + 2 * pw - dw * (KW - 1) - 1) // sw + 1


def pad_hw(x: Array, top_left: Pair, bottom_right: Pair, value: float = 0.0) -> Array:
    """(N, H, W, C) -> (N, top+H+bottom, left+W+right, C), contiguous; `x` itself if there is nothing to pad."""
    if top_left == bottom_right == (0, 0):
        return x
    N, H, W, C = x.shape
    (top, left), (bottom, right) = top_left, bottom_right
    padded = array_module(x).full((N, top + H + bottom, left + W + right, C), value, x.dtype)
    padded[:, top : top + H, left : left + W] = x
    return padded


def windows(x: Array, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair) -> Array:
    """(N, C, H, W) -> (N, OH, OW, KH, KW, C): every window of the zero-padded input, as a view (nothing is copied)."""
    xl = pad_hw(channels_last(x), padding, padding)  # (N, C, H, W) -> (N, H+2p, W+2p, C)
    N, H, W, C = xl.shape
    (KH, KW), (sh, sw), (dh, dw) = kernel, stride, dilation
    OH = (H - dh * (KH - 1) - 1) // sh + 1
    OW = (W - dw * (KW - 1) - 1) // sw + 1
    by_image, by_row, by_column, by_channel = xl.strides
    # moving on by one window is `stride` pixels, by one tap within a window `dilation` pixels
    view: Array = array_module(x).lib.stride_tricks.as_strided(
        xl, (N, OH, OW, KH, KW, C), (by_image, by_row * sh, by_column * sw, by_row * dh, by_column * dw, by_channel)
    )
    return view


def taps(kernel: Pair, stride: Pair, dilation: Pair, output: Pair) -> Iterator[tuple[int, slice, slice]]:
    """For each tap of the kernel its number and the rows and columns of the padded input that all windows see it on."""
    (KH, KW), (sh, sw), (dh, dw), (OH, OW) = kernel, stride, dilation, output
    for p in range(KH):
        for q in range(KW):
            rows = slice(p * dh, p * dh + (OH - 1) * sh + 1, sh)
            columns = slice(q * dw, q * dw + (OW - 1) * sw + 1, sw)
            yield p * KW + q, rows, columns
