"""Products of matrices."""

from __future__ import annotations

from minires.arrays import Array
from minires.autograd import Function
from minires.ops.add import sum_to


class MatMul(Function):
    """y[..., m, n] = Σ_k x[..., m, k] · other[..., k, n];  ∂x = g · otherᵀ,  ∂other = xᵀ · g, summed as in Add

    x (..., M, K), other (..., K, N)  ->  y (..., M, N); leading axes broadcast.  An x of shape (K,) is one row, an
    other of shape (K,) one column, and y lacks that axis.
    """

    def forward(self, x: Array, other: Array) -> Array:
        self.saved = x, other
        return x @ other

    def backward(self, grad_output: Array) -> tuple[Array | None, ...]:
        x, other = self.saved
        wants_x, wants_other = self.needs_input_grad
        rows = x if x.ndim > 1 else x[None, :]  # (..., M, K)
        columns = other if other.ndim > 1 else other[:, None]  # (..., K, N)
        grad = grad_output if other.ndim > 1 else grad_output[..., None]
        grad = grad if x.ndim > 1 else grad[..., None, :]  # (..., M, N)
        return (
            sum_to(grad @ columns.swapaxes(-1, -2), rows.shape).reshape(x.shape) if wants_x else None,
            sum_to(rows.swapaxes(-1, -2) @ grad, columns.shape).reshape(other.shape) if wants_other else None,
        )
