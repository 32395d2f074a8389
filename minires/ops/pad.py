"""Padding with a constant; option A of the paper pads the channels of a shortcut with zeros (section 3.3)."""

from __future__ import annotations

from minires.arrays import Array
from minires.autograd import Function
from minires.backends import optional
from minires.backends.composed import inside


class Pad(Function):
    """y = x with `pad` = ((before, after), ...) elements of `value` put around each axis;  ∂x = g without them"""

    def __init__(self, pad: tuple[tuple[int, int], ...], value: float) -> None:
        self.pad = pad
        self.value = value

    def forward(self, x: Array) -> Array:
        self.saved = inside(x.shape, self.pad)
        return optional(self.backend, "pad_forward")(x, self.pad, self.value)

    def backward(self, grad_output: Array) -> Array:
        return grad_output[self.saved]
