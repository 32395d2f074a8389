"""The fully connected layer."""

from __future__ import annotations

from minires.arrays import Array
from minires.autograd import Function
from minires.backends import optional


class Linear(Function):
    """y = x · weightᵀ + bias;  ∂x = g · weight,  ∂weight = gᵀ · x,  ∂bias = Σ g over all rows

    x (..., in), weight (out, in), bias (out,) or None  ->  y (..., out)
    """

    def forward(self, x: Array, weight: Array, bias: Array | None) -> Array:
        self.saved = x, weight  # (..., in), (out, in)
        return self.backend.linear_forward(x, weight, bias)  # (..., out)

    def backward(self, grad_output: Array) -> tuple[Array | None, ...]:
        x, weight = self.saved  # (..., in), (out, in)
        wants_x, wants_weight, wants_bias = self.needs_input_grad
        return (
            self.backend.linear_backward_input(grad_output, weight) if wants_x else None,
            self.backend.linear_backward_weight(grad_output, x) if wants_weight else None,
            optional(self.backend, "linear_backward_bias")(grad_output) if wants_bias else None,
        )
