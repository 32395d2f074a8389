"""Basic indexing: x[:, :, ::2, ::2] is the subsampling of option A's shortcut."""

from __future__ import annotations

from typing import Any

from minires.arrays import Array
from minires.autograd import Function
from minires.backends import optional


class Slice(Function):
    """y = x[index], index made of integers, slices, None and Ellipsis;  ∂x[index] = g, elsewhere 0"""

    def __init__(self, index: Any) -> None:
        self.index = index

    def forward(self, x: Array) -> Array:
        self.saved = x.shape
        return x[self.index]

    def backward(self, grad_output: Array) -> Array:
        return optional(self.backend, "slice_backward")(grad_output, self.saved, self.index)
