"""Cards: the names of the kept arrays, and the multiply-adds of backward."""

from __future__ import annotations

import numpy as np
import pytest

import minires as mr
import minires.functional as F
from minires.inspect.card import backward_card, saved_by_name
from minires.inspect.cost import multiply_adds


def leaf(rng, *shape):
    return mr.tensor(rng.standard_normal(shape), requires_grad=True)


def names(node):
    return [name for name, _ in saved_by_name(node)]


def test_saved_arrays_have_the_names_of_the_source(rng):
    x, weight, bias = leaf(rng, 2, 4, 6, 5), leaf(rng, 8, 2, 3, 3), leaf(rng, 8)
    node = F.conv2d(x, weight, bias, groups=2).node
    assert [(name, array.shape) for name, array in saved_by_name(node)] == [("x", x.shape), ("weight", weight.shape)]
    assert names(F.linear(leaf(rng, 3, 4), leaf(rng, 5, 4)).node) == ["x", "weight"]
    assert names(F.relu(x).node) == ["y"]
    assert names((x * x).node) == ["x", "other"]
    assert names(F.max_pool2d(x, 2).node) == ["argmax"]
    assert names(F.dropout(x).node) == ["scale"]
    assert names(F.cross_entropy(leaf(rng, 3, 4), np.array([0, 1, 2])).node) == ["log_p"]
    assert names((x + x).node) == []  # shapes alone
    statistics = rng.standard_normal(4), rng.random(4)
    with mr.backend("reference"):
        assert names(F.batch_norm(x, *statistics, leaf(rng, 4)).node) == ["x", "mean", "var", "weight"]
        kept = ["kept[0]", "kept[1]", "weight"]
        assert names(F.batch_norm(x, None, None, leaf(rng, 4), training=True).node) == kept


class TwoWays(mr.Function):
    """Two assignments of equal length: from the source it is unclear which one ran."""

    def forward(self, x):
        if x.size > 2:
            self.saved = x, x + 1
        else:
            swapped = x - 1
            self.saved = swapped, x
        return x

    def backward(self, grad_output):
        return grad_output


class Expressions(mr.Function):
    def forward(self, x):
        self.saved = x.copy()
        return x

    def backward(self, grad_output):
        return grad_output


def test_where_the_source_does_not_name_them_they_are_counted(rng):
    assert names(TwoWays()(leaf(rng, 3)).node) == ["saved[0]", "saved[1]"]
    assert names(Expressions()(leaf(rng, 3)).node) == ["saved"]
    space = {"mr": mr}
    exec("class Typed(mr.Function):\n def forward(self, x):\n  self.saved = x, x\n  return x\n", space)
    assert names(space["Typed"]()(leaf(rng, 3)).node) == ["saved[0]", "saved[1]"]


def test_the_data_are_no_parameters(rng):
    x, weight, bias = leaf(rng, 3, 4), leaf(rng, 5, 4), leaf(rng, 5)
    for y in (F.relu(x), x * x, F.linear(x, weight.detach())):
        assert "parameters" not in str(mr.inspect.card(y.node))
    for data in (x, x.detach(), x * 2.0):
        assert "  parameters 25\n" in str(mr.inspect.card(F.linear(data, weight, bias).node))


@pytest.mark.parametrize("wanted", [(True, True), (False, True), (True, False)])
def test_backward_counts_its_own_multiply_adds(rng, wanted):
    x = mr.tensor(rng.standard_normal((2, 4, 6, 5)), requires_grad=wanted[0])
    weight = mr.tensor(rng.standard_normal((8, 2, 3, 3)), requires_grad=wanted[1])
    node = F.conv2d(x, weight, groups=2).node
    forward = 2 * 8 * 4 * 3 * 2 * 9  # outputs (2, 8, 4, 3), each a sum over a filter (2, 3, 3)
    assert multiply_adds(node) == forward
    assert multiply_adds(node, "backward") == sum(wanted) * forward
    shown = str(backward_card(node, rng.standard_normal((2, 8, 4, 3))))
    assert f"multiply-adds {sum(wanted) * forward:,}" in shown
    assert f"multiply-adds {forward:,}" in str(mr.inspect.card(node))
