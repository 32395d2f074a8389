"""Batch normalisation (Ioffe and Szegedy, arXiv:1502.03167; section 3.4 of the paper: right after each convolution)."""

from __future__ import annotations

from typing import Any

from minires.arrays import Array
from minires.autograd import Function
from minires.backends import optional


class BatchNorm(Function):
    """y = x̂ · weight + bias,  x̂ = (x − mean) / √(var + eps), per channel

    ∂x = weight / √(var + eps) · (g − Σ g / M − x̂ · Σ (g·x̂) / M),  sums over the M values of a channel
    ∂weight = Σ g·x̂,  ∂bias = Σ g;  in evaluation ∂x = weight / √(var + eps) · g

    x (N, C, ...), weight and bias (C,) or None  ->  y (N, C, ...)

    In training, mean and (biased) variance are the batch's, and the gradient flows through them; the running statistics
    (C,) are updated in place: running += momentum · (new − running), the variance with the unbiased estimate.
    In evaluation the running statistics are used as constants.
    """

    def __init__(
        self, running_mean: Array | None, running_var: Array | None, training: bool, momentum: float, eps: float
    ) -> None:
        self.running_mean = running_mean
        self.running_var = running_var
        self.training = training
        self.momentum = momentum
        self.eps = eps

    def forward(self, x: Array, weight: Array | None, bias: Array | None) -> Array:
        if not self.training:
            mean, var = unmoved(self, self.running_mean, self.running_var)
            self.saved = x, mean, var, weight
            return self.backend.batch_norm_eval_forward(x, mean, var, weight, bias, self.eps)

        y, mean, var, kept = self.backend.batch_norm_forward(x, weight, bias, self.eps)
        self.saved = kept, weight
        self.move_statistics(mean, var, x.size // x.shape[1])
        return y

    def backward(self, grad_output: Array) -> tuple[Array, Array, Array]:
        if not self.training:
            return self.backend.batch_norm_eval_backward(grad_output, *self.saved, self.eps)
        kept, weight = self.saved
        return self.backend.batch_norm_backward(grad_output, kept, weight)

    def move_statistics(self, mean: Array, var: Array, M: int) -> None:
        """Towards the batch's mean and biased variance (C,) of M values a channel."""
        if self.running_mean is not None and self.running_var is not None:
            move_statistic = optional(self.backend, "move_statistic")
            move_statistic(self.running_mean, mean, self.momentum, 1.0)
            move_statistic(self.running_var, var, self.momentum, M / (M - 1))


def unmoved(node: Function, *statistics: Any) -> tuple[Any, ...]:
    """The running statistics as they are now: copies where backward needs them, as they may move before it runs."""
    copied = optional(node.backend, "copied") if any(node.needs_input_grad) else None
    return statistics if copied is None else tuple(map(copied, statistics))
