"""Gradients are summed while backward goes on, each once, when it is complete."""

from __future__ import annotations

import numpy as np
import pytest
from parallel.threads import on_ranks

import minires as mr
import minires.functional as F
from minires.parallel import Alone, Buckets, Shard
from minires.parallel import buckets as module
from minires.tensor import Tensor


class Ready(Buckets):
    """Buckets that keep what was complete when."""

    def __init__(self, params):
        super().__init__(params, Alone())
        self.seen = []

    def _ready(self, leaf):
        self.seen.append((leaf, None if leaf.grad is None else leaf.grad.copy()))
        super()._ready(leaf)


def leaves_in_order(params, output, cotangent=None):
    buckets = Ready(params)
    with buckets.of(output):
        output.backward(cotangent)
    return buckets.seen


# -- which leaf is complete when


def test_a_leaf_is_complete_after_its_last_use(rng):
    a, b, w = (Tensor(rng.standard_normal((2, 2)), requires_grad=True) for _ in range(3))
    y = F.linear(F.linear(a, w), b) + F.linear(a, w)  # w and a twice
    seen = leaves_in_order([a, b, w], y, rng.standard_normal(y.shape))
    assert next(leaf for leaf, _ in seen) is b
    assert {id(leaf) for leaf, _ in seen} == {id(a), id(b), id(w)}
    assert len(seen) == 3
    for leaf, grad in seen:
        np.testing.assert_array_equal(grad, leaf.grad)  # nothing was added afterwards


def test_a_leaf_that_is_the_output(rng):
    x = Tensor(rng.standard_normal(3), requires_grad=True)
    assert [leaf for leaf, _ in leaves_in_order([x], x, np.ones(3))] == [x]


def test_a_leaf_that_gets_no_gradient_comes_last(rng):
    class Blocks(mr.Function):
        def forward(self, x):
            return x.copy()

        def backward(self, grad_output):
            return None

    x, w = (Tensor(rng.standard_normal((2, 2)), requires_grad=True) for _ in range(2))
    seen = leaves_in_order([w, x], (Blocks()(F.relu(w)) + x).sum())
    assert [leaf for leaf, _ in seen] == [x, w]
    assert w.grad is None


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("backend", ["reference", "native"])
@pytest.mark.parametrize("network", ["resnet20", "plain20"])
def test_from_the_last_layer_to_the_first_with_the_same_gradients(rng, backend, network, fused):
    if reason := mr.backends.available()[backend]:
        pytest.skip(reason)
    x = Tensor(rng.standard_normal((4, 3, 8, 8)).astype(np.float32))
    labels = np.arange(4)
    with mr.backend(backend):
        grads = []
        for watched in (False, True):
            mr.manual_seed(0)
            model = mr.models.create(network, width=2).fuse(fused, training=fused)
            loss = F.cross_entropy(model(x), labels)
            if watched:
                seen = leaves_in_order(list(model.parameters()), loss)
            else:
                loss.backward()
            grads.append([p.grad for p in model.parameters()])
    for one, other in zip(*grads, strict=True):
        np.testing.assert_array_equal(one, other)
    names = {id(p): name for name, p in model.named_parameters()}
    order = [names[id(leaf)].rpartition(".")[0] for leaf, _ in seen]
    assert sorted(names[id(leaf)] for leaf, _ in seen) == sorted(names.values())
    layers = list(dict.fromkeys(name.rpartition(".")[0] for name in names.values()))
    assert list(dict.fromkeys(order)) == layers[::-1]


# -- buckets


def network(seed=0):
    mr.manual_seed(seed)
    return mr.models.create("resnet20", width=4)


def loss_of(model, shard, dtype=np.float64):
    rng = np.random.default_rng(7)
    x = rng.standard_normal((shard.total, 3, 8, 8)).astype(dtype)[shard.start : shard.stop]
    labels = rng.integers(0, 10, shard.total)[shard.start : shard.stop]
    return F.cross_entropy(model.astype(dtype).eval()(Tensor(x)), labels)


@pytest.mark.parametrize("largest", [None, 1, 2000, 10**9])
def test_sums_of_every_gradient(largest):
    """In evaluation mode, where the gradient of a mean is the mean of gradients."""
    model = network()
    loss_of(model, Shard(0, 6, 6)).backward()
    expected = [p.grad for p in model.parameters()]

    def work(rank):
        model, shard = network(), Shard.of(6, rank.rank, rank.size)
        buckets = Buckets(list(model.parameters()), rank, largest)
        for _ in range(2):  # the memory is used again
            model.zero_grad()
            loss = loss_of(model, shard)
            with buckets.of(loss):
                loss.backward(np.asarray(shard.size / 6))
        return [p.grad for p in model.parameters()], rank.log

    for grads, _ in (found := on_ranks(2, work)):
        for first, second in zip(grads, expected, strict=True):
            np.testing.assert_allclose(first, second, rtol=1e-11, atol=1e-13)
    assert found[0][1] == found[1][1]
    sent = sum(size for what, size in found[0][1] if what == "begun")
    assert sent == 2 * sum(g.nbytes for g in expected)


def test_the_first_sum_begins_long_before_backward_ends():
    """Planted: a bucket that is begun at the end only."""
    model = network()
    parameters = list(model.parameters())
    order = []

    class Listening(Alone):
        def iallreduce(self, array):
            order.append("begun")
            return super().iallreduce(array)

    class Hears(mr.Observer):
        def before_backward(self, node, grad_output):
            order.append("node")

    buckets = Buckets(parameters, Listening())
    loss = loss_of(model, Shard(0, 2, 2))
    with Hears(), buckets.of(loss):
        loss.backward()
        order.append("end")
    assert order.count("begun") == len(buckets.buckets) >= 4
    assert "begun" in order[: order.count("node") // 3]
    assert order[order.index("end") :].count("begun") <= 1  # the last gradient is complete after the last node


def test_sums_are_waited_for_before_anything_uses_them(rng):
    """The request of these ranks sums when it is waited for, and not before."""
    cotangents = rng.standard_normal((3, 3))

    def work(rank):
        p = Tensor(np.ones(3), requires_grad=True)
        buckets = Buckets([p], rank)
        y = p * 2.0
        with buckets.of(y):
            y.backward(cotangents[rank.rank])
        return p.grad

    for grad in on_ranks(3, work):
        np.testing.assert_allclose(grad, 2 * cotangents.sum(0), rtol=0, atol=1e-15 * 24)  # three terms of a few each


def test_the_size_of_buckets():
    def leaf(size, dtype=np.float32):
        return Tensor(np.zeros(size, dtype), requires_grad=True)

    def sizes(params, largest=None):
        buckets = Buckets(params, Alone(), largest)
        buckets.of(params[0])
        return [[p.size for p in bucket.params] for bucket in buckets.buckets]

    assert sizes([leaf(100) for _ in range(8)]) == [[100, 100]] * 4
    assert sizes([leaf(1), leaf(2), leaf(3)], 12) == [[3], [2, 1]]
    assert sizes([leaf(1), leaf(1000), leaf(1)], 8) == [[1], [1000], [1]]
    assert sizes([leaf(1), leaf(1, np.float64), leaf(1)], 100) == [[1], [1], [1]]
    many = [leaf(module.LARGEST // 8) for _ in range(12)]  # 12 × 12.5 MB
    assert [len(bucket) for bucket in sizes(many)] == [2] * 6


def test_a_parameter_without_a_gradient_stays_without():
    def work(rank):
        used, unused = (Tensor(np.ones(2), requires_grad=True) for _ in range(2))
        buckets = Buckets([unused, used], rank, 1)
        y = used.sum()
        with buckets.of(y):
            y.backward()
        return used.grad, unused.grad

    for used, unused in on_ranks(2, work):
        np.testing.assert_array_equal(used, [2, 2])
        assert unused is None


def test_a_network_that_was_converted_has_new_buckets(rng):
    p = Tensor(rng.standard_normal(3).astype(np.float32), requires_grad=True)
    buckets = Buckets([p], Alone())
    for dtype in (np.float32, np.float64):
        p.data, p.grad = p.data.astype(dtype), None
        y = p * 2.0
        with buckets.of(y):
            y.backward(np.ones(3, dtype))
        assert p.grad.dtype == dtype
