"""Basic indexing: x[:, :, ::2, ::2] is the subsampling of option A's shortcut."""

from __future__ import annotations

from typing import Any

from minires.arrays import Array, array_module
from minires.autograd import Function


class Slice(Function):
    """x[index], index made of integers, slices, None and Ellipsis"""

    def __init__(self, index: Any) -> None:
        self.index = index

    def forward(self, x: Array) -> Array:
        self.saved = x.shape
        return x[self.index]

    def backward(self, grad_output: Array) -> Array:
        grad_input = array_module(grad_output).zeros(self.saved, grad_output.dtype)
        grad_input[self.index] = grad_output
        return grad_input
