"""Sum and mean over axes."""

from __future__ import annotations

import math

from minires.arrays import Array, array_module
from minires.autograd import Function


class Sum(Function):
    """Σ x over `axis` (a tuple of non-negative axes)"""

    def __init__(self, axis: tuple[int, ...], keepdims: bool) -> None:
        self.axis = axis
        self.keepdims = keepdims

    def forward(self, x: Array) -> Array:
        self.saved = x.shape
        return x.sum(axis=self.axis, keepdims=self.keepdims)

    def backward(self, grad_output: Array) -> Array:
        kept = tuple(1 if i in self.axis else n for i, n in enumerate(self.saved))  # the shape with keepdims=True
        return array_module(grad_output).broadcast_to(grad_output.reshape(kept), self.saved)


class Mean(Sum):
    """Σ x / (number of summands) over `axis`"""

    def forward(self, x: Array) -> Array:
        return super().forward(x) / x.dtype.type(self.summands())

    def backward(self, grad_output: Array) -> Array:
        return super().backward(grad_output) / grad_output.dtype.type(self.summands())

    def summands(self) -> int:
        return math.prod(self.saved[i] for i in self.axis)
