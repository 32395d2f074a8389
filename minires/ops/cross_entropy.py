"""The losses of classification."""

from __future__ import annotations

from typing import Any

from minires.arrays import Array, array_module
from minires.autograd import Function
from minires.backends import optional


class CrossEntropy(Function):
    """y = −Σ_k t_k · log softmax(logits)_k,  t = (1 − s)·onehot(label) + s/C   (s = label_smoothing)

    ∂logits = (softmax(logits) − t) · g,  for reduction "mean" divided by the number of labels

    logits (N, C, ...), labels (N, ...) integers  ->  () for reduction "mean" and "sum", (N, ...) for "none"
    """

    def __init__(self, labels: Array, label_smoothing: float, reduction: str) -> None:
        self.labels = labels
        self.label_smoothing = label_smoothing
        self.reduction = reduction

    def forward(self, logits: Array) -> Array:
        rows = class_rows(logits)  # (N, C, ...) -> (M, C)
        losses, log_p = self.backend.cross_entropy_forward(rows, self.labels.reshape(-1), self.label_smoothing)
        self.saved = log_p, logits.shape
        return reduced(self.backend, losses, self.labels.shape, self.reduction)

    def backward(self, grad_output: Array) -> Array:
        log_p, shape = self.saved
        grad_losses = grad_of_each(grad_output, self.labels.size, self.reduction)  # (M,)
        grad = self.backend.cross_entropy_backward(grad_losses, log_p, self.labels.reshape(-1), self.label_smoothing)
        return unrows(grad, shape)


class NLLLoss(Function):
    """y = −log_probs[n, label_n];  ∂log_probs[n, label_n] = −g, elsewhere 0; for "mean" divided by the number of labels

    log_probs (N, C, ...), labels (N, ...) integers  ->  () for reduction "mean" and "sum", (N, ...) for "none"
    """

    def __init__(self, labels: Array, reduction: str) -> None:
        self.labels = labels
        self.reduction = reduction

    def forward(self, log_probs: Array) -> Array:
        self.saved = log_probs.shape
        rows = class_rows(log_probs)  # (N, C, ...) -> (M, C)
        losses = -rows[array_module(rows).arange(rows.shape[0]), self.labels.reshape(-1)]
        return reduced(self.backend, losses, self.labels.shape, self.reduction)

    def backward(self, grad_output: Array) -> Array:
        xp = array_module(grad_output)
        M, C = self.labels.size, self.saved[1]
        grad = xp.zeros((M, C), grad_output.dtype)
        grad[xp.arange(M), self.labels.reshape(-1)] = -grad_of_each(grad_output, M, self.reduction)
        return unrows(grad, self.saved)


def class_rows(x: Array) -> Array:
    """(N, C, ...) -> (M, C): a row of scores for every label"""
    return array_module(x).moveaxis(x, 1, -1).reshape(-1, x.shape[1])


def unrows(rows: Array, shape: tuple[int, ...]) -> Array:
    """(M, C) -> (N, C, ...)"""
    N, C, *positions = shape
    return array_module(rows).moveaxis(rows.reshape(N, *positions, C), -1, 1)


def reduced(backend: Any, losses: Array, shape: tuple[int, ...], reduction: str) -> Array:
    """(M,) -> () or the shape of the labels"""
    if reduction == "none":
        return losses.reshape(shape)
    return losses.sum() if reduction == "sum" else optional(backend, "mean_forward")(losses)


def grad_of_each(grad_output: Array, M: int, reduction: str) -> Array:
    """The gradient of the reduced loss with respect to each of the M losses: -> (M,)"""
    grad_losses = array_module(grad_output).broadcast_to(grad_output.reshape(-1), (M,))
    return grad_losses / M if reduction == "mean" else grad_losses
