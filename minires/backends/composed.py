"""The optional functions of the contract: what a backend without its own computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from minires.arrays import Array, array_module
from minires.backends.reference.sums import sum_axes

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


def linear_backward_bias(backend: Any, grad_output: Array) -> Array:
    """(..., out) -> (out,)"""
    return sum_axes(grad_output, tuple(range(grad_output.ndim - 1)))


def move_statistic(backend: Any, running: Array, batch: Array, momentum: float, correction: float) -> None:
    """running += momentum · (batch · correction − running), (C,) each, in place"""
    running += momentum * (batch * correction - running)


def check_values(backend: Any, check: Callable[[Array], None], values: Array, each: bool) -> None:
    """check(values), at once"""
    check(values)


def copied(backend: Any, x: Array) -> Array:
    """A copy of x, any dtype and shape."""
    return x.copy()


def reshape_forward(backend: Any, x: Array, shape: tuple[int, ...]) -> Array:
    """x in another shape, in the row-major order of its logical shape: a view where there is one."""
    return x.reshape(shape)


def pad_forward(backend: Any, x: Array, pad: tuple[tuple[int, int], ...], value: float) -> Array:
    """x with `pad` = ((before, after), ...) elements of `value` around each axis"""
    shape = tuple(before + n + after for n, (before, after) in zip(x.shape, pad, strict=True))
    y = array_module(x).full_like(x, value, shape=shape)  # keeps the memory order of x
    y[inside(x.shape, pad)] = x
    return y


def inside(shape: tuple[int, ...], pad: tuple[tuple[int, int], ...]) -> tuple[slice, ...]:
    """Where x of this shape lies in the padded array."""
    return tuple(slice(before, before + n) for n, (before, _) in zip(shape, pad, strict=True))


def slice_backward(backend: Any, grad_output: Array, x_shape: tuple[int, ...], index: Any) -> Array:
    """Zeros of x_shape with grad_output at x[index]"""
    grad_input = array_module(grad_output).zeros(x_shape, grad_output.dtype)
    grad_input[index] = grad_output
    return grad_input


def mean_forward(backend: Any, x: Array) -> Array:
    """The mean of all elements -> ()"""
    return x.mean()
