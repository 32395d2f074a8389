"""The same elements in another shape."""

from __future__ import annotations

from minires.arrays import Array
from minires.autograd import Function
from minires.backends import optional


class Reshape(Function):
    """y = x in another `shape`, in row-major order of the logical shape;  ∂x = g in the shape of x"""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape

    def forward(self, x: Array) -> Array:
        self.saved = x.shape
        return optional(self.backend, "reshape_forward")(x, self.shape)

    def backward(self, grad_output: Array) -> Array:
        return optional(self.backend, "reshape_forward")(grad_output, self.saved)
