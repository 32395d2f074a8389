"""Batch norm over ranks against batch norm of the whole batch."""

from __future__ import annotations

import numpy as np
import pytest
from parallel.threads import on_ranks

import minires.functional as F
from minires import backends, nn
from minires.parallel import Alone, sync_batch_norm, synchronise, unsynchronised
from minires.tensor import Tensor

# (N, C, ...) and where the ranks' parts begin; the second has ranks of one value a channel, the last is no image
CASES = [((7, 3, 4, 5), [0, 4, 7]), ((3, 2, 1, 1), [0, 1, 2, 3]), ((9, 5, 3, 2), [0, 2, 3, 9]), ((6, 4), [0, 3, 6])]


def whole(x, weight, bias, cotangent, mean, var):
    tensors = [None if a is None else Tensor(a.copy(), requires_grad=True) for a in (x, weight, bias)]
    y = F.batch_norm(tensors[0], mean, var, *tensors[1:], training=True, momentum=0.3, eps=1e-3)
    y.backward(cotangent)
    return y.data, [None if t is None else t.grad for t in tensors]


@pytest.mark.parametrize("affine", [True, False], ids=["affine", "plain"])
@pytest.mark.parametrize(("shape", "edges"), CASES, ids=[str(shape) for shape, _ in CASES])
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-12), (np.float32, 2e-5)])
def test_it_is_batch_norm_of_the_whole_batch(rng, shape, edges, affine, dtype, tolerance):
    """A random cotangent: a uniform one has no gradient through the mean."""
    C = shape[1]
    x = (3 * rng.standard_normal(shape) + 20 * rng.standard_normal(C).reshape(1, C, *[1] * (len(shape) - 2))).astype(
        dtype
    )
    weight, bias = (rng.standard_normal(C).astype(dtype) if affine else None for _ in range(2))
    cotangent = rng.standard_normal(shape).astype(dtype)
    mean, var = np.zeros(C, dtype), np.ones(C, dtype)
    y, (grad_x, grad_weight, grad_bias) = whole(x, weight, bias, cotangent, mean, var)

    def work(rank):
        mine = slice(edges[rank.rank], edges[rank.rank + 1])
        own_mean, own_var = np.zeros(C, dtype), np.ones(C, dtype)
        tensors = [None if a is None else Tensor(a.copy(), requires_grad=True) for a in (x[mine], weight, bias)]
        statistics = tensors[0], own_mean, own_var
        result = sync_batch_norm(rank, *statistics, *tensors[1:], training=True, momentum=0.3, eps=1e-3)
        result.backward(cotangent[mine])
        return result.data, [None if t is None else t.grad for t in tensors], own_mean, own_var

    found = on_ranks(len(edges) - 1, work)

    def close(first, second):
        assert first.dtype == dtype
        np.testing.assert_allclose(first, second, rtol=tolerance, atol=tolerance * np.abs(second).max(initial=1))

    close(np.concatenate([part[0] for part in found]), y)
    close(np.concatenate([part[1][0] for part in found]), grad_x)
    if affine:
        close(sum(part[1][1] for part in found), grad_weight)
        close(sum(part[1][2] for part in found), grad_bias)
    for _, _, own_mean, own_var in found:
        close(own_mean, mean)
        close(own_var, var)
        np.testing.assert_array_equal(own_mean, found[0][2])  # every rank's, to the bit
        np.testing.assert_array_equal(own_var, found[0][3])


@pytest.mark.parametrize("backend", ["reference", "native", "emulated"])
def test_every_backend(rng, backend):
    if reason := backends.available()[backend]:
        pytest.skip(reason)
    x, cotangent = rng.standard_normal((2, 5, 3, 4, 4))
    weight, bias = rng.standard_normal((2, 3))
    with backends.backend("reference"):
        y, (grad_x, *_) = whole(x, weight, bias, cotangent, None, None)

    def work(rank):
        mine = slice(3) if rank.rank == 0 else slice(3, 5)
        with backends.backend(backend):
            tensors = [Tensor(a.copy(), requires_grad=True) for a in (x[mine], weight, bias)]
            result = sync_batch_norm(rank, tensors[0], None, None, *tensors[1:], training=True, eps=1e-3)
            result.backward(cotangent[mine])
            return result.data, tensors[0].grad

    found = on_ranks(2, work)
    np.testing.assert_allclose(np.concatenate([part[0] for part in found]), y, rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(np.concatenate([part[1] for part in found]), grad_x, rtol=1e-11, atol=1e-11)


def test_large_means_do_not_cancel(rng):
    """E(x²) − E(x)² would have no digit left: the mean is 10⁴ deviations away from 0."""
    x = (1e4 + rng.standard_normal((8, 2, 6, 6))).astype(np.float32)

    def work(rank):
        mine = x[4 * rank.rank : 4 * rank.rank + 4]
        return sync_batch_norm(rank, Tensor(mine), None, None, training=True).data

    y = np.concatenate(on_ranks(2, work))
    exact = x.astype(np.float64)
    exact = (exact - exact.mean((0, 2, 3), keepdims=True)) / np.sqrt(exact.var((0, 2, 3), keepdims=True) + 1e-5)
    np.testing.assert_allclose(y, exact, atol=2e-3)  # x itself is known to 5e-4 of its deviation


def test_one_value_in_all():
    def work(rank):
        x = Tensor(np.ones((1, 2)))
        if rank.rank == 0:
            return sync_batch_norm(rank, x, None, None, training=True)
        rank.allreduce(np.zeros(3))  # a rank without any value
        return None

    with pytest.raises(ValueError, match="more than one value per channel"):
        on_ranks(2, work)


def test_alone_it_is_batch_norm(rng):
    x = rng.standard_normal((4, 3, 2, 2))
    result = sync_batch_norm(Alone(), Tensor(x, requires_grad=True), None, None, training=True)
    assert result.node.name == "BatchNorm"


def test_a_network_is_synchronised_and_evaluates_alone(rng):
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.ReLU())

    class Deaf:
        size, iallreduce = 2, None

    synchronise(model, Deaf())
    x = Tensor(rng.standard_normal((2, 1, 2, 2)).astype(np.float32))
    with pytest.raises(AttributeError, match="allreduce"):
        model(x)
    with unsynchronised(model):
        model(x)
    model.eval()(x)
    synchronise(model, None)
    model.train()(x)
