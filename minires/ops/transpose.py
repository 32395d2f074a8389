"""The same array with its axes in another order."""

from __future__ import annotations

from minires.arrays import Array
from minires.autograd import Function


class Transpose(Function):
    """y = x with its axes in another order: axis i of y is axis axes[i] of x;  ∂x = g, transposed back"""

    def __init__(self, axes: tuple[int, ...]) -> None:
        self.axes = axes

    def forward(self, x: Array) -> Array:
        return x.transpose(self.axes)

    def backward(self, grad_output: Array) -> Array:
        return grad_output.transpose([self.axes.index(i) for i in range(len(self.axes))])
