"""Pooling: one pass over the whole batch per tap of the window."""

from __future__ import annotations

from minires.arrays import Array, array_module, channels_first, channels_last
from minires.backends.reference.windows import Pair, pad_hw, taps


def max_pool2d_forward(
    x: Array, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair, output: Pair
) -> tuple[Array, Array]:
    """x (N, C, H, W) -> y (N, C, OH, OW), and for each output the number of the tap that was its maximum.

    Of equal maxima the first counts; NaN wins over everything.  x may hold integers.
    """
    xp = array_module(x)
    least = float("-inf") if x.dtype.kind == "f" else xp.iinfo(x.dtype).min
    margin = _margins(x.shape, kernel, stride, padding, dilation, output)
    padded = pad_hw(channels_last(x), padding, margin, least)  # (N, C, H, W) -> (N, PH, PW, C)
    N, _, _, C = padded.shape
    start = [  # the first tap that lies inside the image: the maximum, should all of a window be −∞
        -(-xp.maximum(p - xp.arange(o) * s, 0) // d)
        for p, o, s, d in zip(padding, output, stride, dilation, strict=True)
    ]
    y = xp.full((N, *output, C), least, x.dtype)  # (N, OH, OW, C)
    argmax = xp.empty(y.shape, xp.uint8 if kernel[0] * kernel[1] <= 256 else xp.int32)
    argmax[...] = (start[0][:, None] * kernel[1] + start[1])[:, :, None]  # (OH, OW, 1)
    for tap, rows, cols in taps(kernel, stride, dilation, output):
        seen = padded[:, rows, cols]  # (N, OH, OW, C)
        xp.copyto(argmax, tap, where=~(seen <= y) & (y == y))  # larger or NaN, where no NaN has been met yet
        xp.maximum(y, seen, out=y)
    return channels_first(y), argmax


def max_pool2d_backward(
    grad_output: Array,
    argmax: Array,
    x_shape: tuple[int, ...],
    kernel: Pair,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
) -> Array:
    """grad_output (N, C, OH, OW) -> grad_input (N, C, H, W): each output's gradient goes to its maximum"""
    grad = channels_last(grad_output)  # (N, OH, OW, C)
    output = (grad.shape[1], grad.shape[2])
    grad_x = _padded_zeros(grad, x_shape, padding, _margins(x_shape, kernel, stride, padding, dilation, output))
    for tap, rows, cols in taps(kernel, stride, dilation, output):
        grad_x[:, rows, cols] += grad * (argmax == tap)
    return _crop(grad_x, x_shape, padding)


def avg_pool2d_forward(
    x: Array, kernel: Pair, stride: Pair, padding: Pair, output: Pair, count_include_pad: bool
) -> Array:
    """x (N, C, H, W) -> y (N, C, OH, OW)"""
    margin = _margins(x.shape, kernel, stride, padding, (1, 1), output)
    padded = pad_hw(channels_last(x), padding, margin)  # (N, C, H, W) -> (N, PH, PW, C)
    y = array_module(x).zeros((padded.shape[0], *output, padded.shape[3]), x.dtype)  # (N, OH, OW, C)
    for _, rows, cols in taps(kernel, stride, (1, 1), output):
        y += padded[:, rows, cols]
    y /= _window_sizes(x, x.shape, kernel, stride, padding, output, count_include_pad)
    return channels_first(y)


def avg_pool2d_backward(
    grad_output: Array, x_shape: tuple[int, ...], kernel: Pair, stride: Pair, padding: Pair, count_include_pad: bool
) -> Array:
    """grad_output (N, C, OH, OW) -> grad_input (N, C, H, W): each output's gradient is shared out evenly"""
    grad = channels_last(grad_output)  # (N, OH, OW, C)
    output = (grad.shape[1], grad.shape[2])
    share = grad / _window_sizes(grad, x_shape, kernel, stride, padding, output, count_include_pad)
    grad_x = _padded_zeros(grad, x_shape, padding, _margins(x_shape, kernel, stride, padding, (1, 1), output))
    for _, rows, cols in taps(kernel, stride, (1, 1), output):
        grad_x[:, rows, cols] += share
    return _crop(grad_x, x_shape, padding)


def adaptive_avg_pool2d_forward(x: Array, output: Pair) -> Array:
    """x (N, C, H, W) -> y (N, C, OH, OW): output i averages the inputs from ⌊i·H/OH⌋ up to ⌈(i+1)·H/OH⌉"""
    y = _bin_sums(_bin_sums(channels_last(x), 1, output[0]), 2, output[1])  # (N, H, W, C) -> (N, OH, OW, C)
    y /= _bin_sizes(y, (x.shape[2], x.shape[3]), output)
    return channels_first(y)


def adaptive_avg_pool2d_backward(grad_output: Array, x_shape: tuple[int, ...]) -> Array:
    """grad_output (N, C, OH, OW) -> grad_input (N, C, H, W)

    Input h lies in the bins from ⌊h·OH/H⌋ up to ⌈(h+1)·OH/H⌉: the forward rule with the two sizes exchanged.
    """
    _, _, H, W = x_shape
    grad = channels_last(grad_output)  # (N, OH, OW, C)
    share = grad / _bin_sizes(grad, (H, W), (grad.shape[1], grad.shape[2]))
    return channels_first(_bin_sums(_bin_sums(share, 1, H), 2, W))  # (N, OH, OW, C) -> (N, C, H, W)


def _margins(x_shape: tuple[int, ...], kernel: Pair, stride: Pair, padding: Pair, dilation: Pair, output: Pair) -> Pair:
    """How far the last window reaches beyond the bottom and the right edge (under ceil_mode further than `padding`)."""
    reach = [(o - 1) * s + d * (k - 1) + 1 for o, s, d, k in zip(output, stride, dilation, kernel, strict=True)]
    return max(reach[0] - padding[0] - x_shape[2], 0), max(reach[1] - padding[1] - x_shape[3], 0)


def _padded_zeros(like: Array, x_shape: tuple[int, ...], top_left: Pair, bottom_right: Pair) -> Array:
    N, C, H, W = x_shape
    (top, left), (bottom, right) = top_left, bottom_right
    return array_module(like).zeros((N, top + H + bottom, left + W + right, C), like.dtype)


def _crop(padded: Array, x_shape: tuple[int, ...], top_left: Pair) -> Array:
    """(N, PH, PW, C) -> (N, C, H, W), a view"""
    (top, left), (H, W) = top_left, x_shape[2:]
    return channels_first(padded[:, top : top + H, left : left + W])


def _window_sizes(
    like: Array,
    x_shape: tuple[int, ...],
    kernel: Pair,
    stride: Pair,
    padding: Pair,
    output: Pair,
    count_include_pad: bool,
) -> Array:
    """(OH, OW, 1): the number of pixels that each window's sum is divided by.

    What ceil_mode adds beyond the padding never counts; the padding counts if `count_include_pad`.
    """
    xp = array_module(like)
    sizes = []
    for size, k, s, p, o in zip(x_shape[2:], kernel, stride, padding, output, strict=True):
        begin = xp.arange(o) * s - p
        end = xp.minimum(begin + k, size + p)
        if not count_include_pad:
            begin, end = xp.maximum(begin, 0), xp.minimum(end, size)
        sizes.append((end - begin).astype(like.dtype))
    return (sizes[0][:, None] * sizes[1])[:, :, None]


def _bin_sums(x: Array, axis: int, bins: int) -> Array:
    """Along `axis`, of length n, the sums over [⌊i·n/bins⌋, ⌈(i+1)·n/bins⌉) for i = 0 … bins − 1."""
    xp = array_module(x)
    n = x.shape[axis]
    i = xp.arange(bins)
    begin, end = i * n // bins, -(-(i + 1) * n // bins)
    y = xp.take(x, begin, axis)
    for step in range(1, int((end - begin).max())):  # the bins may differ in length by one or two
        inside = (begin + step < end).reshape(bins, *(1,) * (x.ndim - axis - 1))
        y += xp.where(inside, xp.take(x, xp.minimum(begin + step, n - 1), axis), x.dtype.type(0))
    return y


def _bin_sizes(like: Array, size: Pair, bins: Pair) -> Array:
    """(OH, OW, 1): the number of pixels in each bin"""
    xp = array_module(like)
    rows, columns = (-(-(xp.arange(b) + 1) * n // b) - xp.arange(b) * n // b for n, b in zip(size, bins, strict=True))
    return (rows[:, None] * columns)[:, :, None].astype(like.dtype)
