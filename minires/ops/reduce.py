"""Sum and mean over axes."""

from __future__ import annotations

import math

from minires.arrays import Array, array_module
from minires.autograd import Function
from minires.backends.reference.sums import sum_axes


class Sum(Function):
    """Σ x over `axis` (a tuple of non-negative axes)"""

    def __init__(self, axis: tuple[int, ...], keepdims: bool) -> None:
        self.axis = axis
        self.keepdims = keepdims

    def forward(self, x: Array) -> Array:
        return self.total(x).astype(x.dtype, copy=False)

    def total(self, x: Array) -> Array:
        """The sum, in float32 at least: float16 ends at 65,504"""
        self.saved = x.shape
        return sum_axes(x.astype("float32") if x.dtype == "float16" else x, self.axis, self.keepdims)

    def backward(self, grad_output: Array) -> Array:
        kept = tuple(1 if i in self.axis else n for i, n in enumerate(self.saved))  # the shape with keepdims=True
        return array_module(grad_output).broadcast_to(grad_output.reshape(kept), self.saved)


class Mean(Sum):
    """Σ x / (number of summands) over `axis`"""

    def forward(self, x: Array) -> Array:
        total = self.total(x)
        return (total / total.dtype.type(self.summands())).astype(x.dtype, copy=False)

    def backward(self, grad_output: Array) -> Array:
        return super().backward(grad_output) / grad_output.dtype.type(self.summands())

    def summands(self) -> int:
        return math.prod(self.saved[i] for i in self.axis)
