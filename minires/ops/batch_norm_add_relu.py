"""What follows a convolution in a block, as one operation: batch norm in training, the skip-add, ReLU.

`Module.fuse(training=True)` makes the networks use these.  Fetching and writing the activations takes longer than
computing them, so one pass over memory in place of three is faster.  The bits are those of the operations one by one.
"""

from __future__ import annotations

from minires.arrays import Array
from minires.backends import optional
from minires.ops.batch_norm import BatchNorm


class BatchNormReLU(BatchNorm):
    """y = max((x − mean) / √(var + eps) · weight + bias, 0)      mean and variance of the batch, as in `BatchNorm`

    x (N, C, ...), weight and bias (C,) or None  ->  y (N, C, ...);  ∂x, ∂weight, ∂bias of BatchNorm, for g where y > 0
    """

    def forward(self, x: Array, weight: Array | None, bias: Array | None) -> Array:
        y, mean, var, kept = optional(self.backend, "batch_norm_relu_forward")(x, weight, bias, self.eps)
        self.saved = kept, weight, y
        self.move_statistics(mean, var, x.size // x.shape[1])
        return y

    def backward(self, grad_output: Array) -> tuple[Array, Array, Array]:
        kept, weight, y = self.saved
        return optional(self.backend, "batch_norm_relu_backward")(grad_output, y, kept, weight)


class BatchNormAddReLU(BatchNorm):
    """y = max((x − mean) / √(var + eps) · weight + bias + shortcut, 0): the end of a block (equation 1 of the paper)

    x and shortcut (N, C, ...), weight and bias (C,) or None  ->  y (N, C, ...)
    ∂shortcut = g where y > 0, else 0;  ∂x, ∂weight, ∂bias of BatchNorm, for ∂shortcut in place of g
    """

    def forward(self, x: Array, weight: Array | None, bias: Array | None, shortcut: Array) -> Array:  # type: ignore[override]
        y, mean, var, kept = optional(self.backend, "batch_norm_add_relu_forward")(x, weight, bias, shortcut, self.eps)
        self.saved = kept, weight, y
        self.move_statistics(mean, var, x.size // x.shape[1])
        return y

    def backward(self, grad_output: Array) -> tuple[Array, Array, Array, Array]:  # type: ignore[override]
        kept, weight, y = self.saved
        grad = self.backend.relu_backward(grad_output, y)  # of the sum, and so of the shortcut
        return (*self.backend.batch_norm_backward(grad, kept, weight), grad)
