"""Batch normalisation by the statistics of a batch that several ranks share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from minires import functional as F
from minires.arrays import Array, array_module
from minires.autograd import Function
from minires.backends import optional
from minires.nn import BatchNorm2d, Module
from minires.parallel.communicator import Communicator
from minires.tensor import Tensor


class SyncBatchNorm(Function):
    """y = (x − mean) / √(var + eps) · weight + bias, per channel, with mean and (biased) variance of all ranks' x

    x (N, C, ...), weight and bias (C,) or None  ->  y (N, C, ...); N may differ from rank to rank

    forward    each rank's M values a channel have mean m and Σ(x − m)² = S.  Two sums over the ranks (Chan, Golub and
               LeVeque, 1979; no large squares that cancel):
                   mean = Σ M·m / Σ M          var = Σ (S + M·(m − mean)²) / Σ M
    backward   the batch's mean and variance depend on every rank's x.  With x̂ = (x − mean) · inv_std, one sum over the
               ranks of Σ g and Σ g·x̂:
                   grad_x = weight · inv_std · (g − Σ g / M − x̂ · Σ g·x̂ / M)       sums and M over all ranks
               grad_weight and grad_bias are this rank's part, as every gradient before its all-reduce.

    The running statistics (C,) are updated in place as in `BatchNorm`, equally on every rank.
    """

    def __init__(
        self,
        running_mean: Array | None,
        running_var: Array | None,
        momentum: float,
        eps: float,
        communicator: Communicator,
    ) -> None:
        self.running_mean = running_mean
        self.running_var = running_var
        self.momentum = momentum
        self.eps = eps
        self.communicator = communicator

    def forward(self, x: Array, weight: Array | None, bias: Array | None) -> Array:
        xp, C = array_module(x), x.shape[1]
        # This rank's mean and variance (C,); the normalised output is not used.
        _, m, v, _ = self.backend.batch_norm_forward(x, None, None, self.eps)
        m, v, M = m.astype(xp.float64), v.astype(xp.float64), x.size // C
        total = xp.concatenate((M * m, xp.full(1, M, xp.float64)))  # (C + 1,)
        self.communicator.allreduce(total)
        mean, values = total[:C] / total[C], total[C]
        if M == 1 and values < 2:
            raise ValueError("x must hold more than one value per channel in training over all ranks, got one")
        squares = M * (v + (m - mean) ** 2)  # (C,)
        self.communicator.allreduce(squares)
        var = squares / values
        if self.running_mean is not None and self.running_var is not None:
            move_statistic = optional(self.backend, "move_statistic")
            move_statistic(self.running_mean, mean, self.momentum, 1.0)
            move_statistic(self.running_var, squares / (values - 1), self.momentum, 1.0)
        mean, var = mean.astype(x.dtype), var.astype(x.dtype)
        self.saved = x, mean, var, values, weight
        return self.backend.batch_norm_eval_forward(x, mean, var, weight, bias, self.eps)

    def backward(self, grad_output: Array) -> tuple[Array, Array, Array]:
        x, mean, var, values, weight = self.saved
        xp, C = array_module(x), x.shape[1]
        # grad_x for constant mean and variance, Σ g·x̂ and Σ g.
        grad_x, grad_weight, grad_bias = self.backend.batch_norm_eval_backward(
            grad_output, x, mean, var, weight, self.eps
        )
        sums = xp.concatenate((grad_weight, grad_bias)).astype(xp.float64)  # (2·C,)
        self.communicator.allreduce(sums)
        scale = 1 / xp.sqrt(var.astype(xp.float64) + self.eps)
        scale = scale if weight is None else scale * weight  # weight · inv_std
        slope, shift = ((scale * part / values).astype(x.dtype) for part in (sums[:C], sums[C:]))
        # slope · x̂ + shift: batch norm with these as weight and bias
        through = self.backend.batch_norm_eval_forward(x, mean, var, slope, shift, self.eps)
        return grad_x - through, grad_weight, grad_bias


def sync_batch_norm(
    ranks: Communicator,
    x: Tensor,
    running_mean: Array | None,
    running_var: Array | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """`functional.batch_norm` over the x of all ranks as one batch; in evaluation, `functional.batch_norm` itself."""
    statistics = running_mean, running_var
    if not training or ranks.size == 1:
        return F.batch_norm(x, *statistics, weight, bias, training, momentum, eps)
    x, weight, bias, _, momentum, eps = F.batch_norm_operands(x, *statistics, weight, bias, training, momentum, eps)
    return SyncBatchNorm(*statistics, momentum, eps, ranks)(x, weight, bias)


def synchronise(model: Module, ranks: Communicator | None) -> None:
    """Makes the model's batch norms take their statistics over all ranks' batches; None: over their own."""
    for module in model.modules():
        if isinstance(module, BatchNorm2d):
            module.function = F.batch_norm if ranks is None else partial(sync_batch_norm, ranks)


@contextmanager
def unsynchronised(model: Module) -> Iterator[None]:
    """A context in which every batch norm takes its statistics over its own rank's batch."""
    norms = [(m, m.function) for m in model.modules() if isinstance(m, BatchNorm2d)]
    synchronise(model, None)
    try:
        yield
    finally:
        for norm, function in norms:
            norm.function = function
