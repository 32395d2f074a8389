"""max(x, 0)."""

from __future__ import annotations

from minires.arrays import Array, array_module


def relu_forward(x: Array) -> Array:
    """any shape -> the same shape; NaN stays NaN"""
    return array_module(x).maximum(x, x.dtype.type(0))


def relu_backward(grad_output: Array, y: Array) -> Array:
    """The gradient passes where the output y is positive; the kink at 0 counts as flat."""
    return array_module(y).where(y > 0, grad_output, y.dtype.type(0))
