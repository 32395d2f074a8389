"""The fused functions of the contract, composed of a backend's single ones: what a backend without them computes."""

from __future__ import annotations

from typing import Any

from minires.arrays import Array

Norm = tuple[Array, Array, Array | None, Array | None, float]  # running mean and variance, gamma, beta, eps


def batch_norm_relu_forward(
    backend: Any, x: Array, weight: Array | None, bias: Array | None, eps: float
) -> tuple[Array, Array, Array, Any]:
    """relu(batch norm(x)), the batch's mean (C,), its biased variance (C,), and what backward needs."""
    y, mean, var, kept = backend.batch_norm_forward(x, weight, bias, eps)
    return backend.relu_forward(y), mean, var, kept


def batch_norm_relu_backward(
    backend: Any, grad_output: Array, y: Array, kept: Any, weight: Array | None
) -> tuple[Array, Array, Array]:
    """grad_output (N, C, ...) -> grad_input (N, C, ...), grad_weight (C,), grad_bias (C,)"""
    gradients: tuple[Array, Array, Array] = backend.batch_norm_backward(
        backend.relu_backward(grad_output, y), kept, weight
    )
    return gradients


def batch_norm_add_relu_forward(
    backend: Any, x: Array, weight: Array | None, bias: Array | None, shortcut: Array, eps: float
) -> tuple[Array, Array, Array, Any]:
    """relu(batch norm(x) + shortcut), the batch's mean (C,), its biased variance (C,), and what backward needs."""
    y, mean, var, kept = backend.batch_norm_forward(x, weight, bias, eps)
    return backend.relu_forward(backend.add_forward(y, shortcut)), mean, var, kept


def fused_conv2d_forward(
    backend: Any, x: Array, w: Array, b: Array | None, norm: Norm | None, shortcut: Array | None, relu: bool,
    *geometry: Any,
) -> Array:  # fmt: skip
    """relu?(batch norm?(x ⋆ w + b) + shortcut)"""
    y: Array = backend.conv2d_forward(x, w, b, *geometry)
    if norm is not None:
        y = backend.batch_norm_eval_forward(y, *norm)
    if shortcut is not None:
        y = backend.add_forward(y, shortcut)
    return backend.relu_forward(y) if relu else y
