"""Max, average and adaptive average pooling."""

from __future__ import annotations

from typing import Any

import numpy as np

from minires._checks import LARGEST_SIZE
from minires.arrays import Array
from minires.autograd import Function
from minires.backends import reference

Pair = tuple[int, int]


def pooled_size(
    op: str, x_shape: tuple[int, ...], kernel: Pair, stride: Pair, padding: Pair, dilation: Pair, ceil_mode: bool
) -> Pair:
    """(OH, OW) of a pooling.

    Under ceil_mode the last window may hang over, but must start inside the input or its left padding.
    Raises ValueError when a window does not fit.
    """
    at = f"(x {x_shape}, kernel_size {kernel}, stride {stride}, padding {padding}, dilation {dilation})"
    output = []
    for axis, size, k, s, p, d in zip("HW", x_shape[2:], kernel, stride, padding, dilation, strict=True):
        span = d * (k - 1) + 1
        if size < 1:
            raise ValueError(f"{op}: x must not be empty along {axis} {at}")
        if p > span // 2:
            raise ValueError(f"{op}: padding must be at most half of kernel_size's span, {span} along {axis} {at}")
        if size + 2 * p < span and not (ceil_mode and size + 2 * p > span - s):
            padded = f"the padded x with {size + 2 * p}"
            raise ValueError(f"{op}: kernel_size spans {span} along {axis}, more than {padded} {at}")
        o = (size + 2 * p - span + (s - 1 if ceil_mode else 0)) // s + 1
        if ceil_mode and (o - 1) * s >= size + p:
            o -= 1
        output.append(o)
    return output[0], output[1]


def window_sizes(x_shape: tuple[int, ...], kernel: Pair, stride: Pair, padding: Pair, y_shape: tuple[int, ...]) -> Any:
    """(OH, OW): the elements of each window, padding included, but not what hangs over beyond the padding."""
    rows, columns = (
        [min(k, size + 2 * p - i * s) for i in range(o)]
        for size, k, s, p, o in zip(x_shape[2:], kernel, stride, padding, y_shape[2:], strict=True)
    )
    return np.outer(rows, columns)


class MaxPool2d(Function):
    """y[n,c,i,j] = max_p,q  x[n, c, i·s+p·d−pad, j·s+q·d−pad]   (outside of x: −∞)

    ∂x[n,c,h,w] = Σ g[n,c,i,j]  over all windows (i, j) whose maximum lies at h, w
    x (N, C, H, W)  ->  y (N, C, OH, OW).  Of equal maxima the first receives the gradient.
    A dilated window can step over a small x: it sees padding alone, and its maximum is −∞, as in PyTorch.
    """

    def __init__(self, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair, ceil_mode: bool) -> None:
        self.kernel = kernel
        self.stride = stride
        self.padding = padding
        self.dilation = dilation
        self.ceil_mode = ceil_mode

    def forward(self, x: Array) -> Array:
        window = self.kernel, self.stride, self.padding, self.dilation
        output = pooled_size("max_pool2d", x.shape, *window, self.ceil_mode)
        if self.kernel[0] * self.kernel[1] > LARGEST_SIZE:  # the number of a tap is kept in 32 bits
            raise ValueError(f"max_pool2d: kernel_size must have at most {LARGEST_SIZE} taps, got {self.kernel}")
        backend = self.backend if x.dtype.kind == "f" else reference  # no kernel is compiled for integers
        y, argmax = backend.max_pool2d_forward(x, *window, output)
        self.saved = argmax, x.shape
        return y

    def backward(self, grad_output: Array) -> Array:
        argmax, x_shape = self.saved
        window = self.kernel, self.stride, self.padding, self.dilation
        return self.backend.max_pool2d_backward(grad_output, argmax, x_shape, *window)


class AvgPool2d(Function):
    """y[n,c,i,j] = mean_p,q  x[n, c, i·s+p−pad, j·s+q−pad]   (outside of x: 0)

    ∂x[n,c,h,w] = Σ g[n,c,i,j] / (size of the window)  over all windows (i, j) that hold h, w
    x (N, C, H, W)  ->  y (N, C, OH, OW).  With count_include_pad the padding counts in the mean, otherwise not.
    """

    def __init__(self, kernel: Pair, stride: Pair, padding: Pair, ceil_mode: bool, count_include_pad: bool) -> None:
        self.kernel = kernel
        self.stride = stride
        self.padding = padding
        self.ceil_mode = ceil_mode
        self.count_include_pad = count_include_pad

    def forward(self, x: Array) -> Array:
        window = self.kernel, self.stride, self.padding
        output = pooled_size("avg_pool2d", x.shape, *window, (1, 1), self.ceil_mode)
        self.saved = x.shape
        return self.backend.avg_pool2d_forward(x, *window, output, self.count_include_pad)

    def backward(self, grad_output: Array) -> Array:
        window = self.kernel, self.stride, self.padding
        return self.backend.avg_pool2d_backward(grad_output, self.saved, *window, self.count_include_pad)


class AdaptiveAvgPool2d(Function):
    """y[n,c,i,j] = mean of x[n, c, ⌊i·H/OH⌋ : ⌈(i+1)·H/OH⌉, ⌊j·W/OW⌋ : ⌈(j+1)·W/OW⌉]

    ∂x[n,c,h,w] = Σ g[n,c,i,j] / (size of the window)  over all windows (i, j) that hold h, w
    x (N, C, H, W)  ->  y (N, C, OH, OW).  With output size (1, 1) it is the global average pooling of the paper.
    """

    def __init__(self, output_size: Pair) -> None:
        self.output_size = output_size

    def forward(self, x: Array) -> Array:
        self.saved = x.shape
        return self.backend.adaptive_avg_pool2d_forward(x, self.output_size)

    def backward(self, grad_output: Array) -> Array:
        return self.backend.adaptive_avg_pool2d_backward(grad_output, self.saved)
