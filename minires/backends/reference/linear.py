"""y = x wᵀ + b."""

from __future__ import annotations

from minires.arrays import Array


def linear_forward(x: Array, w: Array, b: Array | None) -> Array:
    """x (..., in), w (out, in), b (out,) or None -> y (..., out)"""
    y = x @ w.T
    if b is not None:
        y += b
    return y


def linear_backward_input(grad_output: Array, w: Array) -> Array:
    """grad_output (..., out), w (out, in) -> grad_input (..., in)"""
    return grad_output @ w


def linear_backward_weight(grad_output: Array, x: Array) -> Array:
    """grad_output (..., out), x (..., in) -> grad_weight (out, in)"""
    return grad_output.reshape(-1, grad_output.shape[-1]).T @ x.reshape(-1, x.shape[-1])
