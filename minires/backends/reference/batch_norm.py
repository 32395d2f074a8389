"""Batch normalisation over everything but the channels (Ioffe and Szegedy, arXiv:1502.03167, Algorithm 1).

The pixels of an image row lie behind one another, channels innermost: `rows` views the batch as a matrix whose rows
hold W pixels × C channels.  A per-channel vector repeated W times then meets whole rows (NumPy's inner loop is long
even for 16 channels), and so do the sums over pixels.
"""

from __future__ import annotations

from minires.arrays import Array, array_module
from minires.backends.reference.sums import sum_rows, sum_rows_of_products


def batch_norm_forward(
    x: Array, weight: Array | None, bias: Array | None, eps: float
) -> tuple[Array, Array, Array, tuple[Array, Array]]:
    """x (N, C, ...) -> y (N, C, ...), the batch's mean (C,), its biased variance (C,), and what backward needs."""
    xp = array_module(x)
    C = x.shape[1]
    M = x.size // C
    X = rows(x)  # (N, C, ..., W) -> (R, W·C)
    mean = column_sums(X, C) / M
    centred = X - along(mean, X)
    var = column_sums_of_products(centred, centred, C) / M
    inv_std = 1 / xp.sqrt(var + xp.asarray(eps, var.dtype))
    scale = inv_std if weight is None else inv_std * weight
    Y = centred * along(scale, X)
    if bias is not None:
        Y += along(bias, X)
    return unrows(Y, x.shape), mean, var, (centred, inv_std)


def batch_norm_backward(
    grad_output: Array, saved: tuple[Array, Array], weight: Array | None
) -> tuple[Array, Array, Array]:
    """grad_output (N, C, ...) -> grad_input (N, C, ...), grad_weight (C,), grad_bias (C,)

    The batch's mean and variance depend on x as well, which takes from the gradient its mean and its projection on
    the normalised input:  grad_x = weight · inv_std · (g − mean(g) − x̂ · mean(g · x̂)).
    """
    centred, inv_std = saved
    C = grad_output.shape[1]
    M = grad_output.size // C
    G = rows(grad_output)  # (N, C, ..., W) -> (R, W·C)
    grad_bias = column_sums(G, C)
    grad_weight = column_sums_of_products(G, centred, C) * inv_std
    scale = inv_std if weight is None else inv_std * weight
    grad_X = centred * along(-inv_std * grad_weight / M, G)
    grad_X += G
    grad_X -= along(grad_bias / M, G)
    grad_X *= along(scale, G)
    return unrows(grad_X, grad_output.shape), grad_weight, grad_bias


def batch_norm_eval_forward(
    x: Array, mean: Array, var: Array, weight: Array | None, bias: Array | None, eps: float
) -> Array:
    """x (N, C, ...), running statistics (C,) -> y (N, C, ...): a fixed scale and shift a channel"""
    xp = array_module(x)
    inv_std = 1 / xp.sqrt(var + xp.asarray(eps, var.dtype))
    scale = inv_std if weight is None else inv_std * weight
    X = rows(x)
    Y = X - along(mean.astype(x.dtype, copy=False), X)  # before scaling: exact where x is near the mean
    Y *= along(scale.astype(x.dtype, copy=False), X)
    if bias is not None:
        Y += along(bias, X)
    return unrows(Y, x.shape)


def batch_norm_eval_backward(
    grad_output: Array, x: Array, mean: Array, var: Array, weight: Array | None, eps: float
) -> tuple[Array, Array, Array]:
    """grad_output (N, C, ...) -> grad_input (N, C, ...), grad_weight (C,), grad_bias (C,)"""
    xp = array_module(x)
    C = x.shape[1]
    inv_std = (1 / xp.sqrt(var + xp.asarray(eps, var.dtype))).astype(x.dtype, copy=False)
    scale = inv_std if weight is None else inv_std * weight
    G = rows(grad_output)
    X = rows(x)
    grad_weight = column_sums_of_products(G, X - along(mean.astype(x.dtype, copy=False), X), C) * inv_std
    return unrows(G * along(scale, G), x.shape), grad_weight, column_sums(G, C)


def rows(x: Array) -> Array:
    """(N, C, ..., W) -> (N·..., W·C): a view where the memory is channels-last already"""
    xp = array_module(x)
    W = x.shape[-1] if x.ndim > 2 else 1
    return xp.ascontiguousarray(xp.moveaxis(x, 1, -1)).reshape(-1, W * x.shape[1])


def unrows(X: Array, shape: tuple[int, ...]) -> Array:
    """(N·..., W·C) -> (N, C, ..., W), a view"""
    N, C, *spatial = shape
    return array_module(X).moveaxis(X.reshape(N, *spatial, C), -1, 1)


def along(vector: Array, X: Array) -> Array:
    """(C,) -> (W·C,): the per-channel vector, once for every pixel of a row of X"""
    return array_module(X).tile(vector, X.shape[1] // vector.shape[0])


def column_sums(X: Array, C: int) -> Array:
    """(R, W·C) -> (C,): the sum over all pixels"""
    return sum_rows(sum_rows(X).reshape(-1, C))


def column_sums_of_products(X: Array, Y: Array, C: int) -> Array:
    """(R, W·C), (R, W·C) -> (C,): the sum over all pixels of x · y, without an array for the products"""
    return sum_rows(sum_rows_of_products(X, Y).reshape(-1, C))
