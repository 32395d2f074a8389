"""Errors of long sums: each is within the bound of sums in blocks, whatever the shape and the memory's order."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import minires as mr
import minires.functional as F
from minires import backends
from minires.backends.reference.sums import BLOCK, sum_axes, sum_rows, sum_rows_of_products
from minires.verify.bounds import in_blocks

U = 2.0**-24  # float32's unit roundoff
BACKENDS = [name for name in ("reference", "native", "emulated") if not backends.available()[name]]
KINDS = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "offset": lambda rng, shape: rng.standard_normal(shape) + 1e4,
    "constant": lambda rng, shape: np.full(shape, 0.1),  # all additions round in the same direction
}


def bound(n, terms):
    """Of a sum of n numbers in blocks: `terms` is Σ |x|; the last U rounds the result."""
    return (in_blocks(n) + 1) * U * terms


def layouts(x):
    """The same numbers in every order of the axes in memory, and with gaps."""
    for order in itertools.permutations(range(x.ndim)):
        yield np.ascontiguousarray(x.transpose(order)).transpose(np.argsort(order))
    room = np.full([2 * n for n in x.shape], np.nan, x.dtype)
    gaps = room[tuple(slice(1, None, 2) for _ in x.shape)]
    gaps[...] = x
    yield gaps
    yield np.flip(np.ascontiguousarray(np.flip(x)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(1,), (31,), (40_001,), (3001, 7), (7, 3001), (2, 3, 5003), (5003, 1, 2), (0, 3)])
def test_over_every_axis_in_every_order_of_memory(rng, kind, shape):
    x = KINDS[kind](rng, shape).astype(np.float32)
    wide = x.astype(np.float64)
    for axes in itertools.chain(*(itertools.combinations(range(x.ndim), k) for k in range(x.ndim + 1))):
        n = int(np.prod([shape[axis] for axis in axes]))
        expected, terms = wide.sum(axes), abs(wide).sum(axes)
        for y in layouts(x):
            for keepdims in (False, True):
                found = sum_axes(y, axes, keepdims)
                assert found.shape == wide.sum(axes, keepdims=keepdims).shape
                assert found.dtype == np.float32
                assert (abs(found.reshape(expected.shape) - expected) <= bound(n, terms)).all()


@pytest.mark.parametrize("rows", [1, BLOCK - 1, BLOCK, BLOCK + 1, BLOCK**2 + 5, 40_001])
def test_of_rows_and_of_products(rng, rows):
    x, y = (rng.uniform(0.5, 1.5, (rows, 3)).astype(np.float32) for _ in range(2))
    wide = x.astype(np.float64)
    assert (abs(sum_rows(x) - wide.sum(0)) <= bound(rows, wide.sum(0))).all()
    products = (wide * y).sum(0)
    assert (abs(sum_rows_of_products(x, y) - products) <= bound(rows, products) + U * products).all()


SHAPES = [(20_011, 3), (4099, 17), (5, 3, 31, 67), (1, 2, 1, 20_011)]


def in_memory(x, order):
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1) if order == "channels last" else x


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("order", ["channels first", "channels last"])
def test_batch_norm(rng, name, kind, shape, order):
    x = in_memory(KINDS[kind](rng, shape).astype(np.float32), order)
    g = in_memory(rng.uniform(0.5, 1.5, shape).astype(np.float32), order)
    axes, M = (0, *range(2, x.ndim)), x.size // shape[1]
    wide, wide_g = x.astype(np.float64), g.astype(np.float64)
    centre, spread = wide.mean(axes, keepdims=True), wide.var(axes)
    with mr.backend(name) as backend:
        _, mean, var, saved = backend.batch_norm_forward(x, None, None, 1e-5)
        _, grad_weight, grad_bias = backend.batch_norm_backward(g, saved, None)
    off = bound(M, abs(wide).mean(axes))
    assert (abs(mean - centre.ravel()) <= off).all()
    # Σ (x − m)² about an inexact m is larger by M · (m − mean)²; each difference is rounded, relative to its size
    deviation = np.sqrt(spread) + off
    near = bound(M, deviation**2) + 4 * U * deviation**2 + off**2
    assert (abs(var - spread) <= near).all()
    sums = wide_g.sum(axes)
    assert (abs(grad_bias - sums) <= bound(M, sums)).all()
    inv_std = 1 / np.sqrt(spread + 1e-5)
    product = (wide_g * (wide - centre)).sum(axes)
    terms = (wide_g * (abs(wide - centre) + off.reshape(centre.shape))).sum(axes)
    # of the sum, of the centre, of inv_std, which the variance's error moves
    near = (bound(M, terms) + off * sums + abs(product) * (near / (spread + 1e-5) + 8 * U)) * inv_std
    assert (abs(grad_weight - product * inv_std) <= 1.1 * near).all()


def ones(*shape):
    return np.ones(shape, np.float32)


@pytest.mark.parametrize("name", BACKENDS)
def test_gradients_of_biases(rng, name):
    with mr.backend(name):
        for make, shape, axes in (
            (lambda b: F.conv2d(ones(3, 1, 67, 71), ones(5, 1, 1, 1), b), (5,), (0, 2, 3)),
            (lambda b: F.linear(ones(20_011, 2), ones(5, 2), b), (5,), (0,)),
            (lambda b: F.linear(ones(7, 3001, 2), ones(5, 2), b), (5,), (0, 1)),
            (lambda b: mr.tensor(ones(20_011, 5)) + b, (5,), (0,)),
            (lambda b: mr.tensor(ones(5, 7, 3001)) * b, (5, 1, 1), (1, 2)),
        ):
            b = mr.tensor(rng.standard_normal(shape).astype(np.float32), requires_grad=True)
            y = make(b)
            g = rng.uniform(0.5, 1.5, y.shape).astype(np.float32)
            y.backward(g)
            expected = g.astype(np.float64).sum(axes)
            n = g.size // expected.size
            assert (abs(b.grad.reshape(expected.shape) - expected) <= bound(n, expected)).all()


@pytest.mark.parametrize("operation", ["sum", "mean"])
@pytest.mark.parametrize("axis", [None, 0, 1])
def test_sum_and_mean(rng, operation, axis):
    x = np.full((20_011, 7), 0.1, np.float32)
    expected = getattr(x.astype(np.float64), operation)(axis)
    found = getattr(mr.tensor(x), operation)(axis).data
    n = x.size // expected.size
    assert (abs(found - expected) <= bound(n, expected) + U * expected).all()
