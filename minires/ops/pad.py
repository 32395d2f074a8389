"""Padding with a constant; option A of the paper pads the channels of a shortcut with zeros (section 3.3)."""

from __future__ import annotations

from minires.arrays import Array, array_module
from minires.autograd import Function


class Pad(Function):
    """x with `pad` = ((before, after), ...) elements of `value` put around each axis"""

    def __init__(self, pad: tuple[tuple[int, int], ...], value: float) -> None:
        self.pad = pad
        self.value = value

    def forward(self, x: Array) -> Array:
        shape = tuple(before + n + after for n, (before, after) in zip(x.shape, self.pad, strict=True))
        self.saved = tuple(slice(before, before + n) for n, (before, _) in zip(x.shape, self.pad, strict=True))
        y = array_module(x).full_like(x, self.value, shape=shape)  # keeps the memory order of x
        y[self.saved] = x
        return y

    def backward(self, grad_output: Array) -> Array:
        return grad_output[self.saved]
