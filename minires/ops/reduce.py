"""Sum, mean and maximum over axes."""

from __future__ import annotations

import math

from minires.arrays import Array, array_module, as_array
from minires.autograd import Function
from minires.backends.reference.sums import sum_axes


class Sum(Function):
    """y = Σ x over `axis` (a tuple of non-negative axes);  ∂x = g, repeated along `axis`"""

    def __init__(self, axis: tuple[int, ...], keepdims: bool) -> None:
        self.axis = axis
        self.keepdims = keepdims

    def forward(self, x: Array) -> Array:
        total = self.total(x)
        return total.astype(x.dtype, copy=False) if x.dtype.kind == "f" else total  # integers are counted in 64 bits

    def total(self, x: Array) -> Array:
        """The sum, in float32 at least: float16 ends at 65,504"""
        self.saved = x.shape
        return sum_axes(x.astype("float32") if x.dtype == "float16" else x, self.axis, self.keepdims)

    def backward(self, grad_output: Array) -> Array:
        kept = tuple(1 if i in self.axis else n for i, n in enumerate(self.saved))  # the shape with keepdims=True
        return array_module(grad_output).broadcast_to(grad_output.reshape(kept), self.saved)


class Mean(Sum):
    """y = Σ x / (number of summands) over `axis`;  ∂x = g / (number of summands), repeated along `axis`"""

    def forward(self, x: Array) -> Array:
        total = self.total(x)
        return (total / total.dtype.type(self.summands())).astype(x.dtype, copy=False)

    def backward(self, grad_output: Array) -> Array:
        return super().backward(grad_output) / grad_output.dtype.type(self.summands())

    def summands(self) -> int:
        return math.prod(self.saved[i] for i in self.axis)


class Max(Function):
    """y = max x over `axis` (a tuple of non-negative axes);  ∂x = g / (number of maxima) where x = y, else 0

    NaN is larger than every number.  Equal maxima share the gradient evenly.
    """

    def __init__(self, axis: tuple[int, ...], keepdims: bool) -> None:
        self.axis = axis
        self.keepdims = keepdims

    def forward(self, x: Array) -> Array:
        y = as_array(x.max(axis=self.axis, keepdims=True))
        self.saved = x, y
        return y if self.keepdims else y.squeeze(self.axis)

    def backward(self, grad_output: Array) -> Array:
        x, y = self.saved
        largest = (x == y) | (x != x)  # NaN equals nothing, itself included
        share = grad_output.reshape(y.shape) / largest.sum(axis=self.axis, keepdims=True, dtype=x.dtype)
        return array_module(x).where(largest, share, x.dtype.type(0))
