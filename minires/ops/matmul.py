"""Products of matrices."""

from __future__ import annotations

from minires.arrays import Array
from minires.autograd import Function
from minires.ops.add import sum_to


class MatMul(Function):
    """y[..., m, n] = Σ_k a[..., m, k] · b[..., k, n]

    a (..., M, K), b (..., K, N)  ->  y (..., M, N); leading axes broadcast.  An a of shape (K,) is one row, a b of
    shape (K,) one column, and y lacks that axis.
    """

    def forward(self, a: Array, b: Array) -> Array:
        self.saved = a, b
        return a @ b

    def backward(self, grad_output: Array) -> tuple[Array | None, ...]:
        a, b = self.saved
        wants_a, wants_b = self.needs_input_grad
        rows = a if a.ndim > 1 else a[None, :]  # (..., M, K)
        columns = b if b.ndim > 1 else b[:, None]  # (..., K, N)
        grad = grad_output if b.ndim > 1 else grad_output[..., None]
        grad = grad if a.ndim > 1 else grad[..., None, :]  # (..., M, N)
        return (
            sum_to(grad @ columns.swapaxes(-1, -2), rows.shape).reshape(a.shape) if wants_a else None,
            sum_to(rows.swapaxes(-1, -2) @ grad, columns.shape).reshape(b.shape) if wants_b else None,
        )
