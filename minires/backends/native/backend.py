"""The contract of a backend, computed by the C++ kernels."""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any

import numpy as np

from minires.arrays import Array, channels_first
from minires.backends import composed
from minires.backends.composed import Norm
from minires.backends.native.compiled import native
from minires.backends.native.filters import KeptFilters, arranged
from minires.backends.native.layout import (
    channels_last,
    contiguous,
    empty,
    filled,
    optional,
    packed,
    pixels,
    unpacked,
    unpixels,
)
from minires.backends.native.rectangles import bins, windows_of_pool
from minires.backends.reference.windows import output_size

Pair = tuple[int, int]


class NativeBackend:
    """The functions of `minires.backends.reference`, computed by the kernels of csrc/cpu.

    kernels    of one instruction set
    winograd   whether 3×3 convolutions of stride 1 may be computed by Winograd's algorithm

    Activations lie channels-last.  float32 and float64.  Results do not depend on the number of threads.
    """

    name = "native"
    array_module: ModuleType = np

    def __init__(self, kernels: Any, winograd: bool) -> None:
        self.kernels = kernels
        self.winograd = winograd
        self.kept_filters = KeptFilters()

    def recording(self, constants: bool, bytes: int, eager: bool) -> Any:
        """What `mr.capture` records with: see csrc/cpu/recording.h; launches run while it records, eager or not."""
        native().trim()  # what eager runs before needed: the recording takes as much
        return native().Recording(constants, bytes)

    # -- convolution and linear

    def conv2d_forward(
        self, x: Array, w: Array, b: Array | None, stride: Pair, padding: Pair, dilation: Pair, groups: int
    ) -> Array:
        geometry = stride, padding, dilation, groups
        return self._convolve(x, w, b, geometry, (None, None, None), None, False)

    def fused_conv2d_forward(
        self, x: Array, w: Array, b: Array | None, norm: Norm | None, shortcut: Array | None, relu: bool,
        *geometry: Any,
    ) -> Array:  # fmt: skip
        constants: tuple[Array | None, ...] = (None, None, None)
        if norm is not None:
            mean, var, gamma, beta, eps = norm
            mean, scale, _ = norm_constants(x, mean, var, gamma, eps)
            constants = mean, scale, np.zeros_like(mean) if beta is None else contiguous(beta)
        return self._convolve(x, w, b, geometry, constants, shortcut, relu, self.kept_filters.arranged)

    def _convolve(
        self, x: Array, w: Array, b: Array | None, geometry: tuple[Any, ...], norm: tuple[Array | None, ...],
        shortcut: Array | None, relu: bool, arrange: Any = arranged,
    ) -> Array:  # fmt: skip
        """relu?((x ⋆ w + b − mean) · scale + shift + shortcut)

        norm      (mean, scale, shift) or three times None
        arrange   how the filters come into the order in which the kernel reads them
        """
        X, options = channels_last(x), (*geometry, self.winograd)
        y = empty(conv2d_shape(x.shape, w.shape, *geometry[:3]), x)
        if native().recording() or not (w.flags.c_contiguous and w.flags.aligned):
            arrange = arranged  # a recording keeps its own filters; and a copy of w won't come again
        filters = arrange(self.kernels, X.shape, contiguous(w), y.shape, options)
        shortcut = None if shortcut is None else channels_last(shortcut)
        self.kernels.conv2d_forward(X, w.shape, filters, optional(b), *norm, shortcut, relu, y, *options)
        return channels_first(y)

    def conv2d_backward_input(
        self, grad_output: Array, w: Array, x_shape: tuple[int, ...], stride: Pair, padding: Pair, dilation: Pair,
        groups: int,
    ) -> Array:  # fmt: skip
        N, C, H, W = x_shape
        grad_x = empty((N, H, W, C), w)
        geometry = stride, padding, dilation, groups
        grad = channels_last(grad_output)
        self.kernels.conv2d_backward_input(grad, contiguous(w), grad_x, *geometry, self.winograd)
        return channels_first(grad_x)

    def conv2d_backward_weight(
        self, grad_output: Array, x: Array, w_shape: tuple[int, ...], stride: Pair, padding: Pair, dilation: Pair,
        groups: int,
    ) -> Array:  # fmt: skip
        grad_w = empty(w_shape, x)
        self.kernels.conv2d_backward_weight(
            channels_last(grad_output), channels_last(x), grad_w, stride, padding, dilation, groups, self.winograd
        )
        return grad_w

    def conv2d_working_bytes(self, x_shape: tuple[int, ...], w: Array, *geometry: Any) -> int:
        """What a training step holds for this convolution beside its arrays, at most."""
        N, C, H, W = x_shape
        y_shape = conv2d_shape(x_shape, w.shape, *geometry[:3])
        size: int = self.kernels.conv2d_working_size((N, H, W, C), w, y_shape, *geometry, self.winograd)
        return size * w.itemsize

    def conv2d_backward_bias(self, grad_output: Array) -> Array:
        return self._column_sums(pixels(grad_output))

    def linear_forward(self, x: Array, w: Array, b: Array | None) -> Array:
        rows = x.reshape(math.prod(x.shape[:-1]), x.shape[-1])
        y = empty((rows.shape[0], w.shape[0]), x)
        self.kernels.matmul(contiguous(rows), contiguous(w), True, optional(b), y)
        return y.reshape(*x.shape[:-1], w.shape[0])

    def linear_backward_input(self, grad_output: Array, w: Array) -> Array:
        rows = grad_output.reshape(math.prod(grad_output.shape[:-1]), w.shape[0])
        grad_x = empty((rows.shape[0], w.shape[1]), w)
        self.kernels.matmul(contiguous(rows), contiguous(w), False, None, grad_x)
        return grad_x.reshape(*grad_output.shape[:-1], w.shape[1])

    def linear_backward_bias(self, grad_output: Array) -> Array:
        return self._column_sums(contiguous(grad_output.reshape(-1, grad_output.shape[-1])))

    def linear_backward_weight(self, grad_output: Array, x: Array) -> Array:
        M, O, K = math.prod(x.shape[:-1]), grad_output.shape[-1], x.shape[-1]
        grad_w = empty((O, K), x)
        self.kernels.matmul_at(contiguous(grad_output.reshape(M, O)), contiguous(x.reshape(M, K)), grad_w)
        return grad_w

    def _column_sums(self, rows: Array) -> Array:
        """(P, C) -> (C,)"""
        sums = empty(rows.shape[1:], rows)
        self.kernels.sum_pixels(rows, sums)
        return sums

    # -- batch norm

    def batch_norm_forward(
        self, x: Array, weight: Array | None, bias: Array | None, eps: float
    ) -> tuple[Array, Array, Array, Any]:
        return self._batch_norm(x, weight, bias, None, False, eps)

    def batch_norm_relu_forward(
        self, x: Array, weight: Array | None, bias: Array | None, eps: float
    ) -> tuple[Array, Array, Array, Any]:
        return self._batch_norm(x, weight, bias, None, True, eps)

    def batch_norm_add_relu_forward(
        self, x: Array, weight: Array | None, bias: Array | None, shortcut: Array, eps: float
    ) -> tuple[Array, Array, Array, Any]:
        return self._batch_norm(x, weight, bias, shortcut, True, eps)

    def _batch_norm(
        self, x: Array, weight: Array | None, bias: Array | None, shortcut: Array | None, relu: bool, eps: float
    ) -> tuple[Array, Array, Array, Any]:
        X = pixels(x)  # (N, C, ...) -> (P, C)
        mean, var, inv_std, scale = self._statistics(X, weight, eps)
        y = self._normalise(X, mean, scale, bias, shortcut, relu)
        return unpixels(y, x.shape), mean, var, (X, mean, inv_std, bias)

    def batch_norm_backward(self, grad_output: Array, kept: Any, weight: Array | None) -> tuple[Array, Array, Array]:
        """grad_x = weight · inv_std · (g − mean(g) − (x − mean) · inv_std² · mean(g · (x − mean)))"""
        return self._gradients(grad_output, kept, weight, relu=False)

    def batch_norm_relu_backward(
        self, grad_output: Array, y: Array, kept: Any, weight: Array | None
    ) -> tuple[Array, Array, Array]:
        return self._gradients(grad_output, kept, weight, relu=True)  # y's sign follows from x, which is read anyway

    def batch_norm_eval_forward(
        self, x: Array, mean: Array, var: Array, weight: Array | None, bias: Array | None, eps: float
    ) -> Array:
        mean, scale, _ = norm_constants(x, mean, var, weight, eps)
        return unpixels(self._normalise(pixels(x), mean, scale, bias), x.shape)

    def batch_norm_eval_backward(
        self, grad_output: Array, x: Array, mean: Array, var: Array, weight: Array | None, eps: float
    ) -> tuple[Array, Array, Array]:
        mean, scale, inv_std = norm_constants(x, mean, var, weight, eps)
        G, X = pixels(grad_output), pixels(x)
        grad_bias, centred = self._sums(G, X, mean, None, None)
        grad_X = self._normalise(G, np.zeros_like(mean), scale, None)  # mean and variance are constants: g · scale
        return unpixels(grad_X, grad_output.shape), product(centred, inv_std), grad_bias

    def move_statistic(self, running: Array, batch: Array, momentum: float, correction: float) -> None:
        if running.dtype == batch.dtype and running.flags.c_contiguous:
            native().move_statistic(running, batch, momentum, correction)
        else:
            composed.move_statistic(self, running, batch, momentum, correction)

    def _statistics(self, X: Array, weight: Array | None, eps: float) -> tuple[Array, Array, Array, Array]:
        """(P, C) -> mean, biased variance, 1/√(variance + eps) and that times weight, (C,) each"""
        mean, var = empty(X.shape[1:], X), empty(X.shape[1:], X)
        self.kernels.batch_norm_statistics(X, mean, var)
        return mean, var, *deviation_and_scale(var, weight, eps)

    def _normalise(
        self, X: Array, mean: Array, scale: Array, bias: Array | None, shortcut: Array | None = None, relu: bool = False
    ) -> Array:
        """relu?((X − mean) · scale + bias + shortcut), (P, C)"""
        y = empty(X.shape, X)
        more = None if shortcut is None else pixels(shortcut)
        self.kernels.batch_norm_apply(X, mean, contiguous(scale), optional(bias), more, relu, y)
        return y

    def _sums(self, G: Array, X: Array, mean: Array, scale: Array | None, bias: Array | None) -> tuple[Array, Array]:
        """Σ g and Σ g · (x − mean), (C,) each; with a scale, g counts where (x − mean) · scale + bias is positive"""
        sum_g, centred = empty(mean.shape, X), empty(mean.shape, X)
        self.kernels.batch_norm_sums(G, X, mean, scale, bias, sum_g, centred)
        return sum_g, centred

    def _gradients(self, grad_output: Array, kept: Any, weight: Array | None, relu: bool) -> tuple[Array, Array, Array]:
        """Of batch norm in training and, if `relu`, of the ReLU behind it."""
        X, mean, inv_std, bias = kept
        scale, bias = inv_std if weight is None else product(inv_std, contiguous(weight)), optional(bias)
        G, P = pixels(grad_output), X.shape[0]
        grad_bias, centred = self._sums(G, X, mean, scale if relu else None, bias)
        grad_weight, mean_g, slope = (empty(mean.shape, X) for _ in range(3))
        native().norm_slopes(grad_bias, centred, inv_std, P, grad_weight, mean_g, slope)
        grad_X = empty(X.shape, X)
        self.kernels.batch_norm_input(G, X, mean, scale, bias, relu, mean_g, slope, grad_X)
        return unpixels(grad_X, grad_output.shape), grad_weight, grad_bias

    # -- activation, the skip-add, and the update of the weights

    def add_forward(self, a: Array, b: Array) -> Array:
        if a.shape != b.shape or not computes(a):
            return a + b  # broadcasting is NumPy's, and so are other dtypes
        A, B = packed(a), packed(b)
        y = empty(A.shape, A)
        self.kernels.add(A, B, False, y)
        return unpacked(y)

    def relu_forward(self, x: Array) -> Array:
        X = packed(x)
        y = empty(X.shape, X)
        self.kernels.relu_forward(X, y)
        return unpacked(y)

    def relu_backward(self, grad_output: Array, y: Array) -> Array:
        Y = packed(y)
        grad_x = empty(Y.shape, Y)
        self.kernels.relu_backward(packed(grad_output), Y, grad_x)
        return unpacked(grad_x)

    def sgd_step(
        self,
        params: list[Array],
        grads: list[Array],
        velocities: list[Array],
        lr: Any,
        momentum: float,
        weight_decay: float,
    ) -> None:
        """v ← momentum · v + g + weight_decay · p,  p ← p − lr · v, for each parameter, in place.

        The arrays are contiguous and of one dtype; a velocity that has not moved yet is zero.

        lr   a number, or one with a `cell`: an array () that a capture reads anew at each replay
        """
        lr = getattr(lr, "cell", lr)
        for p, g, v in zip(params, grads, velocities, strict=True):
            if not isinstance(p, np.ndarray) or not isinstance(g, np.ndarray):
                raise TypeError("backend 'native' computes on numpy arrays, a parameter is of another module")
            aligned = contiguous(p)
            self.kernels.sgd_step(aligned, contiguous(g), v, lr, momentum, weight_decay)
            if aligned is not p:
                p[...] = aligned

    # -- memory

    def copied(self, x: Array) -> Array:
        if x.dtype.kind not in "biuf" or x.itemsize > 8:
            return composed.copied(self, x)
        copy = empty(x.shape, x)
        native().copy(copy, x)
        return copy

    def reshape_forward(self, x: Array, shape: tuple[int, ...]) -> Array:
        """A view where there is one."""
        view = x.reshape(shape)
        copied = native().recording() and not np.may_share_memory(view, x)  # by NumPy, which a recording misses
        return self.copied(x).reshape(shape) if copied else view

    def pad_forward(self, x: Array, pad: tuple[Pair, ...], value: float) -> Array:
        if not computes(x):
            return composed.pad_forward(self, x, pad, value)
        shape = tuple(before + n + after for n, (before, after) in zip(x.shape, pad, strict=True))
        y = filled(shape, x, value)
        native().copy(y[composed.inside(x.shape, pad)], x)
        return y

    def slice_backward(self, grad_output: Array, x_shape: tuple[int, ...], index: Any) -> Array:
        if not computes(grad_output) or not grad_output.ndim:  # NumPy's index of one element is no view
            return composed.slice_backward(self, grad_output, x_shape, index)
        grad_x = filled(x_shape, grad_output, 0)
        native().copy(grad_x[index], grad_output)
        return grad_x

    def mean_forward(self, x: Array) -> Array:
        y = empty((), x)
        native().mean(contiguous(x), y)
        return y

    # -- pooling

    def max_pool2d_forward(
        self, x: Array, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair, output: Pair
    ) -> tuple[Array, Array]:
        X = channels_last(x)
        y = empty((X.shape[0], *output, X.shape[3]), X)
        argmax = native().empty(y.shape, np.dtype(np.uint8 if kernel[0] * kernel[1] <= 256 else np.int32))
        self.kernels.max_pool2d_forward(X, y, argmax, kernel, stride, padding, dilation)
        return channels_first(y), argmax

    def max_pool2d_backward(
        self, grad_output: Array, argmax: Array, x_shape: tuple[int, ...], kernel: Pair, stride: Pair, padding: Pair,
        dilation: Pair,
    ) -> Array:  # fmt: skip
        N, C, H, W = x_shape
        grad_x = empty((N, H, W, C), grad_output)
        grad = channels_last(grad_output)
        self.kernels.max_pool2d_backward(grad, argmax, grad_x, kernel, stride, padding, dilation)
        return channels_first(grad_x)

    def avg_pool2d_forward(
        self, x: Array, kernel: Pair, stride: Pair, padding: Pair, output: Pair, count_include_pad: bool
    ) -> Array:
        rectangles = windows_of_pool(x.shape, kernel, stride, padding, output, count_include_pad)
        return self._average(x, output, *rectangles)

    def avg_pool2d_backward(
        self, grad_output: Array, x_shape: tuple[int, ...], kernel: Pair, stride: Pair, padding: Pair,
        count_include_pad: bool,
    ) -> Array:  # fmt: skip
        output = (grad_output.shape[2], grad_output.shape[3])
        rectangles = windows_of_pool(x_shape, kernel, stride, padding, output, count_include_pad)
        return self._average_backward(grad_output, x_shape, *rectangles)

    def adaptive_avg_pool2d_forward(self, x: Array, output: Pair) -> Array:
        return self._average(x, output, *bins((x.shape[2], x.shape[3]), output))

    def adaptive_avg_pool2d_backward(self, grad_output: Array, x_shape: tuple[int, ...]) -> Array:
        output = (grad_output.shape[2], grad_output.shape[3])
        return self._average_backward(grad_output, x_shape, *bins((x_shape[2], x_shape[3]), output))

    def _average(self, x: Array, output: Pair, rows: Any, columns: Any, size: Array) -> Array:
        X = channels_last(x)
        y = empty((X.shape[0], *output, X.shape[3]), X)
        self.kernels.average2d_forward(X, y, rows, columns, size.astype(X.dtype))
        return channels_first(y)

    def _average_backward(
        self, grad_output: Array, x_shape: tuple[int, ...], rows: Any, columns: Any, size: Array
    ) -> Array:
        N, C, H, W = x_shape
        G = channels_last(grad_output)
        grad_x = empty((N, H, W, C), G)
        self.kernels.average2d_backward(G, grad_x, rows, columns, size.astype(G.dtype))
        return channels_first(grad_x)

    # -- softmax and cross-entropy

    def softmax_forward(self, x: Array, axis: int) -> Array:
        return self._along_rows(self.kernels.softmax, axis, False, x)

    def softmax_backward(self, grad_output: Array, y: Array, axis: int) -> Array:
        return self._along_rows(self.kernels.softmax_backward, axis, False, grad_output, y)

    def log_softmax_forward(self, x: Array, axis: int) -> Array:
        return self._along_rows(self.kernels.softmax, axis, True, x)

    def log_softmax_backward(self, grad_output: Array, y: Array, axis: int) -> Array:
        return self._along_rows(self.kernels.softmax_backward, axis, True, grad_output, y)

    def cross_entropy_forward(self, logits: Array, labels: Array, label_smoothing: float) -> tuple[Array, Array]:
        X = contiguous(logits)
        log_p, loss = empty(X.shape, X), empty(X.shape[:1], X)
        self.kernels.cross_entropy_forward(X, _labels(labels), label_smoothing, log_p, loss)
        return loss, log_p

    def cross_entropy_backward(self, grad_loss: Array, log_p: Array, labels: Array, label_smoothing: float) -> Array:
        grad_x = empty(log_p.shape, log_p)
        self.kernels.cross_entropy_backward(contiguous(grad_loss), log_p, _labels(labels), label_smoothing, grad_x)
        return grad_x

    def _along_rows(self, kernel: Any, axis: int, log: bool, *arrays: Array) -> Array:
        moved = [np.moveaxis(array, axis, -1) for array in arrays]
        shape = moved[0].shape
        rows = [contiguous(m.reshape(math.prod(shape[:-1]), shape[-1])) for m in moved]
        out = empty(rows[0].shape, rows[0])
        kernel(*rows, log, out)
        return np.moveaxis(out.reshape(shape), -1, axis)


def conv2d_shape(
    x: tuple[int, ...], w: tuple[int, ...], stride: Pair, padding: Pair, dilation: Pair
) -> tuple[int, int, int, int]:
    """(N, OH, OW, O)"""
    return x[0], *output_size(x[2:], w[2:], stride, padding, dilation), w[0]


def computes(x: Any) -> bool:
    """Whether the kernels compute in x's dtype."""
    return x.dtype in (np.float32, np.float64) and x.dtype.isnative


def deviation_and_scale(var: Array, weight: Array | None, eps: float) -> tuple[Array, Array]:
    """1/√(var + eps), and that times weight, (C,) each"""
    inv_std = empty(var.shape, var, lasting=True)
    scale = None if weight is None else empty(var.shape, var, lasting=True)
    native().norm_constants(contiguous(var), eps, optional(weight), inv_std, scale)
    return inv_std, inv_std if scale is None else scale


def norm_constants(x: Array, mean: Array, var: Array, weight: Array | None, eps: float) -> tuple[Array, Array, Array]:
    """What batch norm in evaluation computes with, in x's dtype: mean, scale and 1/√(var + eps), (C,) each."""
    inv_std, scale = deviation_and_scale(var.astype(x.dtype, copy=False), weight, eps)
    return contiguous(mean.astype(x.dtype, copy=False)), scale, inv_std


def product(a: Array, b: Array) -> Array:
    """a · b, element by element, (C,) each"""
    y = empty(a.shape, a)
    native().multiply(a, b, y)
    return y


def _labels(labels: Array) -> Array:
    return contiguous(labels.astype(np.int64, copy=False))
