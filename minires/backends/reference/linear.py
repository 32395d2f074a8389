"""y = x weightᵀ + bias."""

from __future__ import annotations

from minires.arrays import Array


def linear_forward(x: Array, weight: Array, bias: Array | None) -> Array:
    """x (..., in), weight (out, in), bias (out,) or None -> y (..., out)"""
    y = x @ weight.T
    if bias is not None:
        y += bias
    return y


def linear_backward_input(grad_output: Array, weight: Array) -> Array:
    """grad_output (..., out), weight (out, in) -> grad_input (..., in)"""
    return grad_output @ weight


def linear_backward_weight(grad_output: Array, x: Array) -> Array:
    """grad_output (..., out), x (..., in) -> grad_weight (out, in)"""
    return grad_output.reshape(-1, grad_output.shape[-1]).T @ x.reshape(-1, x.shape[-1])
