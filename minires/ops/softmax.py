"""Softmax and its logarithm."""

from __future__ import annotations

from minires.arrays import Array
from minires.autograd import Function


class Softmax(Function):
    """y_i = exp(x_i) / Σ_j exp(x_j) along `axis`;  ∂x_i = y_i · (g_i − Σ_j g_j·y_j)"""

    def __init__(self, axis: int) -> None:
        self.axis = axis

    def forward(self, x: Array) -> Array:
        y: Array = self.backend.softmax_forward(x, self.axis)
        self.saved = y
        return y

    def backward(self, grad_output: Array) -> Array:
        return self.backend.softmax_backward(grad_output, self.saved, self.axis)


class LogSoftmax(Function):
    """y_i = x_i − log Σ_j exp(x_j) along `axis`;  ∂x_i = g_i − softmax(x)_i · Σ_j g_j"""

    def __init__(self, axis: int) -> None:
        self.axis = axis

    def forward(self, x: Array) -> Array:
        y: Array = self.backend.log_softmax_forward(x, self.axis)
        self.saved = y
        return y

    def backward(self, grad_output: Array) -> Array:
        return self.backend.log_softmax_backward(grad_output, self.saved, self.axis)
