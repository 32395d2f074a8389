"""Softmax, its logarithm, and the cross-entropy built on it."""

from __future__ import annotations

from minires.arrays import Array, array_module


def softmax_forward(x: Array, axis: int) -> Array:
    """exp(x) / Σ exp(x) along `axis`; the maximum is taken off first, so that exp cannot overflow."""
    xp = array_module(x)
    y = xp.exp(x - x.max(axis, keepdims=True))
    y /= y.sum(axis, keepdims=True)
    return y


def softmax_backward(grad_output: Array, y: Array, axis: int) -> Array:
    """y · (g − Σ g·y)"""
    return y * (grad_output - (grad_output * y).sum(axis, keepdims=True))


def log_softmax_forward(x: Array, axis: int) -> Array:
    """x − log Σ exp(x) along `axis`"""
    xp = array_module(x)
    shifted = x - x.max(axis, keepdims=True)
    return shifted - xp.log(xp.exp(shifted).sum(axis, keepdims=True))


def log_softmax_backward(grad_output: Array, y: Array, axis: int) -> Array:
    """g − softmax(x) · Σ g"""
    return grad_output - array_module(y).exp(y) * grad_output.sum(axis, keepdims=True)


def cross_entropy_forward(logits: Array, labels: Array, label_smoothing: float) -> tuple[Array, Array]:
    """logits (M, C), labels (M,) -> loss of each row (M,), log-probabilities (M, C)

    The target gives 1 − s + s/C to the label and s/C to every other class (s = label_smoothing).
    """
    xp = array_module(logits)
    log_p = log_softmax_forward(logits, 1)  # (M, C)
    picked = log_p[xp.arange(labels.shape[0]), labels]  # (M, C) -> (M,)
    if label_smoothing == 0:
        return -picked, log_p
    return -(1 - label_smoothing) * picked - label_smoothing * log_p.mean(1), log_p


def cross_entropy_backward(grad_loss: Array, log_p: Array, labels: Array, label_smoothing: float) -> Array:
    """grad_loss (M,) -> grad_logits (M, C) = (softmax − target) · grad_loss"""
    xp = array_module(log_p)
    grad = xp.exp(log_p)  # (M, C)
    if label_smoothing != 0:
        grad -= label_smoothing / log_p.shape[1]
    grad[xp.arange(labels.shape[0]), labels] -= 1 - label_smoothing
    grad *= grad_loss[:, None]
    return grad
