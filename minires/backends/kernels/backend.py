"""The contract of a backend, computed by the hand-written kernels."""

from __future__ import annotations

import math
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from minires.arrays import Array, address_of, array_module, channels_first, channels_last
from minires.backends import composed
from minires.backends.composed import Norm
from minires.backends.kernels import conv2d
from minires.backends.kernels.catalogue import check_conv2d, check_gemm
from minires.backends.kernels.gemm import gemm
from minires.backends.kernels.own_rung import GemmRung, plugged
from minires.backends.kernels.provider import Provider, ceil_div, check_count, variant
from minires.backends.reference.sums import sum_axes

Pair = tuple[int, int]
ROWS = 8  # of threads in a block that walks down the pixels, 32 channels wide


class KernelBackend:
    """The functions of `minires.backends.reference`, computed by kernels of csrc/cuda.

    name     as `mr.backend` takes it
    device   what launches the kernels
    gemm     rung for products of matrices; "auto": the best general one; "cublas": CuPy's.  Or a .cu file, your own
             kernel: then conv2d="auto" is im2col, so that it computes every convolution and both of its gradients
    conv2d   rung for convolutions; "auto": 1×1 as a plain product, all else as an implicit GEMM.  Or a .cu file: it
             computes every convolution forward, or raises ValueError for one that its arguments don't describe; the
             gradients are those of "auto"

    Activations are kept channels-last.  float32 and float64; a .cu file only float32, unless its numbers are `real`.
    """

    def __init__(self, name: str, device: Provider, gemm: str | Path = "auto", conv2d: str | Path = "auto") -> None:
        self.name = name
        self.device = device
        own_gemm, self.own_conv2d = plugged(device, gemm, "gemm"), plugged(device, conv2d, "conv2d")
        self.gemm: GemmRung = own_gemm or check_gemm(gemm)
        self.conv2d = "auto" if self.own_conv2d else check_conv2d(conv2d)
        if own_gemm and self.conv2d == "auto":
            self.conv2d = "conv_02_im2col"
        words = [f"{option}={rung}" for option, rung in (("gemm", gemm), ("conv2d", conv2d)) if rung != "auto"]
        self.path = f"{name}:{','.join(words)}" if words else name  # as `mr.backend` takes it

    @property
    def array_module(self) -> ModuleType:
        """Whose arrays it computes with: numpy or cupy."""
        return self.device.module

    # -- convolution and linear

    def conv2d_forward(
        self, x: Array, w: Array, b: Array | None, stride: Pair, padding: Pair, dilation: Pair, groups: int
    ) -> Array:
        geometry = conv2d.Geometry.of(x.shape, w.shape, stride, padding, dilation, groups)
        if self.own_conv2d is not None:
            y = self._empty((geometry.N, w.shape[0], geometry.OH, geometry.OW), x)
            self.own_conv2d.conv2d(x, w, stride, padding, dilation, groups, y)
            return y if b is None else y + b.reshape(-1, 1, 1)
        y = self._empty((geometry.N, geometry.OH, geometry.OW, w.shape[0]), x)
        conv2d.forward(self.device, self.conv2d, self.gemm, channels_last(x), _ohwi(w), y, geometry)
        if b is not None:
            y += b
        return channels_first(y)

    def conv2d_backward_input(
        self, grad_output: Array, w: Array, x_shape: tuple[int, ...], stride: Pair, padding: Pair, dilation: Pair,
        groups: int,
    ) -> Array:  # fmt: skip
        geometry = conv2d.Geometry.of(x_shape, w.shape, stride, padding, dilation, groups)
        grad_x = self._empty((geometry.N, geometry.H, geometry.W, x_shape[1]), w)
        conv2d.backward_input(
            self.device, self.conv2d, self.gemm, channels_last(grad_output), _ohwi(w), grad_x, geometry
        )
        return channels_first(grad_x)

    def conv2d_backward_weight(
        self, grad_output: Array, x: Array, w_shape: tuple[int, ...], stride: Pair, padding: Pair, dilation: Pair,
        groups: int,
    ) -> Array:  # fmt: skip
        geometry = conv2d.Geometry.of(x.shape, w_shape, stride, padding, dilation, groups)
        O, C, KH, KW = w_shape
        grad_w = self._empty((O, KH, KW, C), x)
        conv2d.backward_weight(
            self.device, self.conv2d, self.gemm, channels_last(grad_output), channels_last(x), grad_w, geometry
        )
        return channels_first(grad_w)

    def conv2d_backward_bias(self, grad_output: Array) -> Array:
        return sum_axes(grad_output, (0, 2, 3))

    def linear_forward(self, x: Array, w: Array, b: Array | None) -> Array:
        y = self._empty((math.prod(x.shape[:-1]), w.shape[0]), x)
        gemm(self.device, self.gemm, x.reshape(y.shape[0], x.shape[-1]), w.T, y)
        if b is not None:
            y += b
        return y.reshape(*x.shape[:-1], w.shape[0])

    def linear_backward_input(self, grad_output: Array, w: Array) -> Array:
        grad = grad_output.reshape(-1, w.shape[0])
        grad_x = self._empty((grad.shape[0], w.shape[1]), w)
        gemm(self.device, self.gemm, grad, w, grad_x)
        return grad_x.reshape(*grad_output.shape[:-1], w.shape[1])

    def linear_backward_weight(self, grad_output: Array, x: Array) -> Array:
        grad, rows = grad_output.reshape(-1, grad_output.shape[-1]), x.reshape(-1, x.shape[-1])
        grad_w = self._empty((grad.shape[1], rows.shape[1]), x)
        gemm(self.device, self.gemm, grad.T, rows, grad_w)
        return grad_w

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
        X = self._pixels(x)  # (N, C, ...) -> (P, C)
        P, C = X.shape
        part, parts = self._parts(P, C)
        moments = self._empty((parts, C, 3), X)
        grid = (ceil_div(C, 32), parts)
        self.device.launch("batch_norm_moments", X.dtype, grid, (32, ROWS), X, moments, P, C, part)
        mean, var = self._empty((C,), X), self._empty((C,), X)
        self.device.launch("batch_norm_merge", X.dtype, (ceil_div(C, 64),), (64,), moments, mean, var, parts, C)
        y = self._normalise(X, mean, var, weight, bias, eps, shortcut, relu)
        return self._unpixels(y, x.shape), mean, var, (X, mean, var, eps)

    def batch_norm_backward(self, grad_output: Array, saved: Any, weight: Array | None) -> tuple[Array, Array, Array]:
        X, mean, var, eps = saved
        return self._batch_norm_gradients(grad_output, X, mean, var, weight, eps, batch=True)

    def fused_conv2d_forward(
        self, x: Array, w: Array, b: Array | None, norm: Norm | None, shortcut: Array | None, relu: bool,
        *geometry: Any,
    ) -> Array:  # fmt: skip
        """The convolution in one launch, all that follows in another."""
        if norm is None:
            return composed.fused_conv2d_forward(self, x, w, b, norm, shortcut, relu, *geometry)
        y = self.conv2d_forward(x, w, b, *geometry)
        mean, var, gamma, beta, eps = norm
        X = self._pixels(y)
        mean, var = (self._vector(v, X) for v in (mean, var))
        return self._unpixels(self._normalise(X, mean, var, gamma, beta, eps, shortcut, relu), y.shape)

    def batch_norm_eval_forward(
        self, x: Array, mean: Array, var: Array, weight: Array | None, bias: Array | None, eps: float
    ) -> Array:
        X = self._pixels(x)
        mean, var = (self._vector(v, X) for v in (mean, var))
        return self._unpixels(self._normalise(X, mean, var, weight, bias, eps), x.shape)

    def batch_norm_eval_backward(
        self, grad_output: Array, x: Array, mean: Array, var: Array, weight: Array | None, eps: float
    ) -> tuple[Array, Array, Array]:
        X = self._pixels(x)
        mean, var = (self._vector(v, X) for v in (mean, var))
        return self._batch_norm_gradients(grad_output, X, mean, var, weight, eps, batch=False)

    def _normalise(
        self, X: Array, mean: Array, var: Array, weight: Array | None, bias: Array | None, eps: float,
        shortcut: Array | None = None, relu: bool = False,
    ) -> Array:  # fmt: skip
        """relu?((X − mean) / √(var + eps) · weight + bias + shortcut), (P, C)"""
        (P, C), y = X.shape, self._empty(X.shape, X)
        weight, bias = (None if v is None else self._vector(v, X) for v in (weight, bias))
        more = None if shortcut is None else self._pixels(shortcut)
        arguments = (X, mean, var, weight, bias, more, y, P, C, float(eps), 0.0 if relu else float("-inf"))
        self.device.launch("batch_norm_apply", X.dtype, self._pixel_grid(P, C), (32, ROWS), *arguments)
        return y

    def _batch_norm_gradients(
        self, grad_output: Array, X: Array, mean: Array, var: Array, weight: Array | None, eps: float, batch: bool
    ) -> tuple[Array, Array, Array]:
        G, (P, C) = self._pixels(grad_output), X.shape
        weight = None if weight is None else self._vector(weight, X)
        part, parts = self._parts(P, C)
        sums = self._empty((parts, C, 2), X)
        grid = (ceil_div(C, 32), parts)
        self.device.launch("batch_norm_backward_sums", X.dtype, grid, (32, ROWS), G, X, mean, sums, P, C, part)
        grad_weight, grad_bias, grad_x = self._empty((C,), X), self._empty((C,), X), self._empty(X.shape, X)
        self.device.launch(
            "batch_norm_backward_merge", X.dtype, (ceil_div(C, 64),), (64,),
            sums, var, grad_weight, grad_bias, parts, C, float(eps),
        )  # fmt: skip
        self.device.launch(
            "batch_norm_backward_input", X.dtype, self._pixel_grid(P, C), (32, ROWS),
            G, X, mean, var, weight, grad_weight, grad_bias, grad_x, P, C, float(eps), int(batch),
        )  # fmt: skip
        return self._unpixels(grad_x, grad_output.shape), grad_weight, grad_bias

    def _parts(self, P: int, C: int) -> tuple[int, int]:
        """How the pixels are divided among blocks: some 256 at work, none with less than 64 pixels."""
        parts = max(1, min(ceil_div(256, ceil_div(C, 32)), ceil_div(P, 64)))
        part = max(1, ceil_div(P, parts))
        return part, max(1, ceil_div(P, part))

    # -- activation, the skip-add, and the update of the weights

    def add_forward(self, a: Array, b: Array) -> Array:
        if a.shape != b.shape:
            return a + b  # broadcasting is the array module's
        A, B = self._packed(a), self._packed(b)
        y = self._empty(A.shape, A)
        self.device.launch("add_forward", A.dtype, self._flat_grid(A.size), (256,), A, B, y, A.size, 0)
        return self._unpacked(y)

    def sgd_step(
        self,
        params: list[Array],
        grads: list[Array],
        velocities: list[Array],
        lr: Any,
        momentum: float,
        weight_decay: float,
    ) -> None:
        """v ← momentum · v + g + weight_decay · p,  p ← p − lr · v, for all parameters in one launch, in place.

        The arrays are contiguous and of one dtype; a velocity that has not moved yet is zero.

        lr   a number, or one with a `cell`: an array () that a capture reads anew at each replay
        """
        xp, upload, chunk = self.array_module, self.device.upload, 4096
        homes = {array_module(a).__name__ for a in (*params, *grads)}
        if homes != {xp.__name__}:
            modules = " and ".join(sorted(homes))
            raise TypeError(f"backend {self.name!r} computes on {xp.__name__} arrays, the parameters are of {modules}")
        starts = [(i, start) for i, p in enumerate(params) for start in range(0, p.size, chunk)]
        owner, start = upload(np.array(starts, np.int32).reshape(-1, 2).T.copy())
        grads = [self._contiguous(g) for g in grads]
        tables = [upload(np.array([address_of(a) for a in row], np.uint64)) for row in (params, grads, velocities)]
        sizes = upload(np.array([p.size for p in params], np.int32))
        rate = getattr(lr, "cell", None)
        rate = upload(np.array(float(lr))) if rate is None else rate
        arguments = (*tables, sizes, owner, start, len(starts), chunk, rate, float(momentum), float(weight_decay))
        self.device.launch("sgd_step", params[0].dtype, (min(len(starts), 4096),), (256,), *arguments, 0)

    def relu_forward(self, x: Array) -> Array:
        X = self._packed(x)
        y = self._empty(X.shape, X)
        self.device.launch("relu_forward", X.dtype, self._flat_grid(X.size), (256,), X, y, X.size)
        return self._unpacked(y)

    def relu_backward(self, grad_output: Array, y: Array) -> Array:
        G, Y = self._packed(grad_output), self._packed(y)
        grad_x = self._empty(G.shape, G)
        self.device.launch("relu_backward", G.dtype, self._flat_grid(G.size), (256,), G, Y, grad_x, G.size)
        return self._unpacked(grad_x)

    # -- pooling

    def max_pool2d_forward(
        self, x: Array, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair, output: Pair
    ) -> tuple[Array, Array]:
        X = channels_last(x)
        y = self._empty((X.shape[0], *output, X.shape[3]), X)
        argmax = self.array_module.empty(y.shape, "int32")
        sizes = (*X.shape, *output, *kernel, *stride, *padding, *dilation)
        self.device.launch("max_pool_forward", X.dtype, self._image_grid(y), (32, 8), X, y, argmax, *sizes)
        return channels_first(y), argmax

    def max_pool2d_backward(
        self, grad_output: Array, argmax: Array, x_shape: tuple[int, ...], kernel: Pair, stride: Pair, padding: Pair,
        dilation: Pair,
    ) -> Array:  # fmt: skip
        G, (N, C, H, W) = channels_last(grad_output), x_shape
        grad_x = self._empty((N, H, W, C), G)
        sizes = (N, H, W, C, *G.shape[1:3], *kernel, *stride, *padding, *dilation)
        self.device.launch("max_pool_backward", G.dtype, self._image_grid(grad_x), (32, 8), G, argmax, grad_x, *sizes)
        return channels_first(grad_x)

    def avg_pool2d_forward(
        self, x: Array, kernel: Pair, stride: Pair, padding: Pair, output: Pair, count_include_pad: bool
    ) -> Array:
        X = channels_last(x)
        y = self._empty((X.shape[0], *output, X.shape[3]), X)
        sizes = (int(count_include_pad), *X.shape, *output, *kernel, *stride, *padding, 1, 1)
        self.device.launch("avg_pool_forward", X.dtype, self._image_grid(y), (32, 8), X, y, *sizes)
        return channels_first(y)

    def avg_pool2d_backward(
        self, grad_output: Array, x_shape: tuple[int, ...], kernel: Pair, stride: Pair, padding: Pair,
        count_include_pad: bool,
    ) -> Array:  # fmt: skip
        G, (N, C, H, W) = channels_last(grad_output), x_shape
        grad_x = self._empty((N, H, W, C), G)
        sizes = (int(count_include_pad), N, H, W, C, *G.shape[1:3], *kernel, *stride, *padding, 1, 1)
        self.device.launch("avg_pool_backward", G.dtype, self._image_grid(grad_x), (32, 8), G, grad_x, *sizes)
        return channels_first(grad_x)

    def adaptive_avg_pool2d_forward(self, x: Array, output: Pair) -> Array:
        X = channels_last(x)
        y = self._empty((X.shape[0], *output, X.shape[3]), X)
        arguments = (X, y, *X.shape, *output)
        self.device.launch("adaptive_avg_pool_forward", X.dtype, self._image_grid(y), (32, 8), *arguments)
        return channels_first(y)

    def adaptive_avg_pool2d_backward(self, grad_output: Array, x_shape: tuple[int, ...]) -> Array:
        G, (N, C, H, W) = channels_last(grad_output), x_shape
        grad_x = self._empty((N, H, W, C), G)
        arguments = (G, grad_x, N, H, W, C, *G.shape[1:3])
        self.device.launch("adaptive_avg_pool_backward", G.dtype, self._image_grid(grad_x), (32, 8), *arguments)
        return channels_first(grad_x)

    # -- softmax and cross-entropy

    def softmax_forward(self, x: Array, axis: int) -> Array:
        return self._along_rows("softmax_forward", axis, x)

    def softmax_backward(self, grad_output: Array, y: Array, axis: int) -> Array:
        return self._along_rows("softmax_backward", axis, grad_output, y)

    def log_softmax_forward(self, x: Array, axis: int) -> Array:
        return self._along_rows("log_softmax_forward", axis, x)

    def log_softmax_backward(self, grad_output: Array, y: Array, axis: int) -> Array:
        return self._along_rows("log_softmax_backward", axis, grad_output, y)

    def cross_entropy_forward(self, logits: Array, labels: Array, label_smoothing: float) -> tuple[Array, Array]:
        X = self._contiguous(logits)
        rows, C = X.shape
        log_p, loss = self._empty(X.shape, X), self._empty((rows,), X)
        arguments = (X, self._labels(labels), log_p, loss, rows, C, float(label_smoothing))
        self.device.launch("cross_entropy_forward", X.dtype, (ceil_div(rows, 8),), (32, 8), *arguments)
        return loss, log_p

    def cross_entropy_backward(self, grad_loss: Array, log_p: Array, labels: Array, label_smoothing: float) -> Array:
        rows, C = log_p.shape
        grad_x = self._empty(log_p.shape, log_p)
        arguments = (self._contiguous(grad_loss), log_p, self._labels(labels), grad_x, rows, C, float(label_smoothing))
        self.device.launch("cross_entropy_backward", log_p.dtype, (ceil_div(rows, 8),), (32, 8), *arguments)
        return grad_x

    def _along_rows(self, kernel: str, axis: int, *arrays: Array) -> Array:
        xp = self.array_module
        moved = [self._contiguous(xp.moveaxis(array, axis, -1)) for array in arrays]
        out = self._empty(moved[0].shape, moved[0])
        C = out.shape[-1]
        rows = out.size // C if C else 0
        self.device.launch(kernel, out.dtype, (ceil_div(rows, 8),), (32, 8), *moved, out, rows, C)
        return xp.moveaxis(out, -1, axis)

    # -- arrays as the kernels take them

    def _empty(self, shape: tuple[int, ...], like: Array) -> Array:
        variant(self.name, like.dtype)  # raises unless float32 or float64
        return self.array_module.empty(shape, like.dtype)

    def _contiguous(self, x: Array) -> Array:
        return self.array_module.ascontiguousarray(x)

    def _vector(self, v: Array, like: Array) -> Array:
        return self._contiguous(v.astype(like.dtype, copy=False))

    def _labels(self, labels: Array) -> Array:
        return self._contiguous(labels.astype("int64", copy=False))

    def _pixels(self, x: Array) -> Array:
        """(N, C, ...) -> (N·..., C), contiguous"""
        return self._contiguous(self.array_module.moveaxis(x, 1, -1)).reshape(x.size // max(x.shape[1], 1), x.shape[1])

    def _unpixels(self, X: Array, shape: tuple[int, ...]) -> Array:
        """(N·..., C) -> (N, C, ...), a view"""
        N, C, *spatial = shape
        return self.array_module.moveaxis(X.reshape(N, *spatial, C), -1, 1)

    def _packed(self, x: Array) -> Array:
        """Without gaps, images channels-last: two arrays of one shape lie alike whatever their strides were."""
        return channels_last(x) if x.ndim == 4 else self._contiguous(x).reshape(x.shape)

    def _unpacked(self, X: Array) -> Array:
        return channels_first(X) if X.ndim == 4 else X

    def _flat_grid(self, n: int) -> tuple[int]:
        return (min(ceil_div(n, 256), 4096),)

    def _pixel_grid(self, P: int, C: int) -> tuple[int, int]:
        return min(ceil_div(P, 4 * ROWS), 4096), ceil_div(C, 32)

    def _image_grid(self, y: Array) -> tuple[int, int]:
        N, H, W, C = y.shape
        return ceil_div(check_count("pixels", N * H * W), 8), ceil_div(C, 32)


def _ohwi(w: Array) -> Array:
    """(O, C, KH, KW) -> (O, KH, KW, C), contiguous"""
    return channels_last(w)
