"""Operations that wait for the next one: convolution, batch norm, skip-add and ReLU in one pass over memory.

What a training step of a residual network does between two convolutions takes longer to fetch and to write back than
to compute.  Here batch norm and the skip-add answer with a `Deferred`, and the ReLU behind them computes the whole
expression, each number fetched and written once; in inference the convolution before them waits as well and applies it
to its sums while they are still in registers.  On the way back the ReLU waits for the batch norm before it, and the
gradient of a convolution for the one that comes along the shortcut.

The arithmetic is that of the operations one by one, in the same order and with the same roundings.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

from minires.arrays import Array
from minires.backends.native.backend import NativeBackend, computes, constants, conv2d_shape, scaled
from minires.backends.native.filters import KeptFilters
from minires.backends.native.layout import (
    contiguous,
    empty,
    packed,
    pixels,
    unpacked,
    unpixels,
)
from minires.deferred import Deferred, resolved

Maybe = Array | Deferred


class Waiting(Deferred):
    """A result of the forward pass that a skip-add and a ReLU can still join:  relu?(result (+ added)).

    One operation joins.  If a second one wants the result, it is computed on its own for that one and all after it.
    """

    joined = False

    def join(self) -> bool:
        """Whether the next operation may compute this result as a part of its own; it may from now on, others not."""
        free, self.joined = self.waits and not self.joined, True
        return free

    def computed_with(self, added: Array | None, relu: bool) -> Array:
        """The array, with `added`, an array of this shape, added to it and ReLU applied."""
        raise NotImplementedError

    def compute(self) -> Array:
        return self.computed_with(None, relu=False)


class WaitingConv2d(Waiting):
    """A convolution, and what batch norm in evaluation makes of it:  (x ⋆ w + b − mean) · scale + shift."""

    def __init__(self, backend: NativeBackend, x: Array, w: Array, b: Array | None, geometry: tuple[Any, ...]) -> None:
        N, OH, OW, O = conv2d_shape(x.shape, w.shape, *geometry[:3])
        super().__init__((N, O, OH, OW), x.dtype, needs=(x, w, b))
        self.backend = backend
        self.geometry = geometry
        self.norm: tuple[Array | None, ...] = (None, None, None)

    def normalised(self, mean: Array, scale: Array, shift: Array | None) -> WaitingConv2d:
        x, w, b = self.needs
        later = WaitingConv2d(self.backend, x, w, b, self.geometry)
        later.norm = mean, scale, np.zeros_like(mean) if shift is None else contiguous(shift).copy()
        return later

    def computed_with(self, added: Array | None, relu: bool) -> Array:
        x, w, b = self.needs
        return self.backend._convolve(x, w, b, self.geometry, self.norm, added, relu)


class NormRecord:
    """What a batch norm computed with, and the output of the ReLU that joined in, if one did."""

    def __init__(self, mean: Array, scale: Array, bias: Array | None) -> None:
        self.mean, self.scale, self.bias = mean, scale, bias
        self.relu: Callable[[], Array | None] = lambda: None


class WaitingNorm(Waiting):
    """Batch norm whose statistics are known:  (x − mean) · scale + bias."""

    def __init__(
        self, backend: NativeBackend, x: Array, X: Array, mean: Array, scale: Array, bias: Array | None
    ) -> None:
        super().__init__(x.shape, x.dtype, needs=(x, X))
        self.backend = backend
        self.used = NormRecord(mean, contiguous(scale), None if bias is None else contiguous(bias).copy())

    def computed_with(self, added: Array | None, relu: bool) -> Array:
        _, X = self.needs
        mean, scale, bias = self.used.mean, self.used.scale, self.used.bias
        y = empty(X.shape, X)
        self.backend.kernels.batch_norm_apply(X, mean, scale, bias, None if added is None else pixels(added), relu, y)
        result = unpixels(y, self.shape)
        if relu and added is None:
            self.used.relu = weakref.ref(result)
        return result


class WaitingSum(Waiting):
    """A skip-add, one side of which may be waiting as well."""

    def __init__(self, backend: NativeBackend, first: Maybe, second: Array) -> None:
        super().__init__(first.shape, first.dtype, needs=(first, second))
        self.backend = backend

    def computed_with(self, added: Array | None, relu: bool) -> Array:
        assert added is None, "a sum joins no other sum"
        first, second = self.needs
        if isinstance(first, Waiting) and first.waits:
            return first.computed_with(second, relu)
        A, B = packed(resolved(first)), packed(second)
        y = empty(A.shape, A)
        self.backend.kernels.add(A, B, relu, y)
        return unpacked(y)


class MaskedGradient(Deferred):
    """What ReLU's backward passes on: the gradient where the output y is positive, else 0."""

    def __init__(self, backend: NativeBackend, grad: Array, y: Array) -> None:
        super().__init__(y.shape, y.dtype, needs=(grad, y))
        self.backend = backend

    def compute(self) -> Array:
        return NativeBackend.relu_backward(self.backend, *self.needs)


class GradientOfInput(Deferred):
    """What a convolution's backward sends to its input; what reached it by the shortcut is added on the way."""

    def __init__(
        self, backend: NativeBackend, grad: Array, w: Array, x_shape: tuple[int, ...], geometry: tuple[Any, ...]
    ) -> None:
        super().__init__(x_shape, w.dtype, needs=(grad, w))
        self.backend = backend
        self.geometry = geometry

    def compute(self) -> Array:
        grad, w = self.needs
        return self.backend._gradient_of_input(grad, w, self.shape, self.geometry, None)

    def plus(self, other: Array) -> Array:
        grad, w = self.needs
        return self.backend._gradient_of_input(grad, w, self.shape, self.geometry, other)


class FusedBackend(NativeBackend):
    """The native backend, where results may be `Deferred`: the engine asks it where nobody looks at every one.

    keeps_filters   whether filters, once arranged, are kept for the next call with the same weights
    """

    defers = True

    def __init__(self, kernels: Any, winograd: bool, keeps_filters: bool = False) -> None:
        super().__init__(kernels, winograd)
        if keeps_filters:
            self.arrange = KeptFilters().arranged

    def conv2d_forward(self, x: Array, w: Array, b: Array | None, *geometry: Any) -> Any:
        return WaitingConv2d(self, x, w, b, geometry)

    def conv2d_backward_input(self, grad_output: Array, w: Array, x_shape: tuple[int, ...], *geometry: Any) -> Any:
        return GradientOfInput(self, grad_output, w, x_shape, geometry)

    def batch_norm_forward(self, x: Maybe, weight: Array | None, bias: Array | None, eps: float) -> Any:
        array: Array = resolved(x)
        X = pixels(array)
        mean, var, inv_std = self._statistics(X, eps)
        waiting = WaitingNorm(self, array, X, mean, scaled(inv_std, weight), bias)
        return waiting, mean, var, (X, mean, inv_std, waiting.used)

    def batch_norm_eval_forward(
        self, x: Maybe, mean: Array, var: Array, weight: Array | None, bias: Array | None, eps: float
    ) -> Any:
        mean, scale, _ = constants(x, mean, var, weight, eps)  # type: ignore[arg-type]  # it has a dtype
        mean, scale = mean.copy(), scale.copy()  # they may have moved on before the result is wanted
        if isinstance(x, WaitingConv2d) and x.norm[0] is None and x.join():  # it has room for one norm
            return x.normalised(mean, scale, bias)
        array: Array = resolved(x)
        return WaitingNorm(self, array, pixels(array), mean, scale, bias)

    def batch_norm_backward(self, grad_output: Maybe, saved: Any, weight: Array | None) -> tuple[Array, Array, Array]:
        X, mean, inv_std, used = saved
        if isinstance(grad_output, MaskedGradient) and grad_output.waits:
            grad, y = grad_output.needs
            if y is used.relu():  # where y is positive can be told from x, which is read anyway
                return self._gradients(grad, X, mean, inv_std, used.scale, used.bias, relu=True)
        return super().batch_norm_backward(resolved(grad_output), saved, weight)

    def batch_norm_eval_backward(self, grad_output: Maybe, *saved: Any) -> tuple[Array, Array, Array]:
        return super().batch_norm_eval_backward(resolved(grad_output), *saved)

    def add_forward(self, a: Maybe, b: Maybe) -> Any:
        if a.shape != b.shape or not computes(a):
            return resolved(a) + resolved(b)
        if not isinstance(a, (WaitingConv2d, WaitingNorm)):
            a, b = b, a
        second: Array = resolved(b)  # which may be the same as the first: then that waits no longer
        joins = isinstance(a, (WaitingConv2d, WaitingNorm)) and a.join()  # a sum of a sum is computed one by one
        return WaitingSum(self, a if joins else resolved(a), second)

    def relu_forward(self, x: Maybe) -> Array:
        if isinstance(x, Waiting) and x.join():
            return x.computed_with(None, relu=True)
        return super().relu_forward(resolved(x))

    def relu_backward(self, grad_output: Array, y: Array) -> Any:
        return MaskedGradient(self, grad_output, y)
