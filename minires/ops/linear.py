"""The fully connected layer."""

from __future__ import annotations

from minires.arrays import Array
from minires.autograd import Function
from minires.backends.reference.sums import sum_axes


class Linear(Function):
    """y = x · weightᵀ + bias

    x (..., in), weight (out, in), bias (out,) or None  ->  y (..., out)
    """

    def forward(self, x: Array, w: Array, b: Array | None) -> Array:
        self.saved = x, w
        return self.backend.linear_forward(x, w, b)

    def backward(self, grad_output: Array) -> tuple[Array | None, ...]:
        x, w = self.saved
        wants_x, wants_w, wants_b = self.needs_input_grad
        return (
            self.backend.linear_backward_input(grad_output, w) if wants_x else None,
            self.backend.linear_backward_weight(grad_output, x) if wants_w else None,
            sum_axes(grad_output, tuple(range(grad_output.ndim - 1))) if wants_b else None,  # (..., out) -> (out,)
        )
