"""Rectified linear unit."""

from __future__ import annotations

from minires.arrays import Array, as_array
from minires.autograd import Function


class ReLU(Function):
    """y = max(x, 0), any shape;  ∂x = g where y > 0, else 0: the derivative at 0 is taken as 0"""

    def forward(self, x: Array) -> Array:
        y: Array = as_array(self.backend.relu_forward(x))
        self.saved = y  # the sign of y is enough; x itself may be freed
        return y

    def backward(self, grad_output: Array) -> Array:
        return self.backend.relu_backward(grad_output, self.saved)
