"""What the losses take beside a batch of labels: one label, weights, labels to ignore, probabilities."""

from __future__ import annotations

import math

import numpy as np
import pytest

import minires as mr
import minires.functional as F
from minires.verify.gradcheck import gradcheck


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("options", [{}, {"weight": np.array([0.5, 1.0, 2.0])}, {"ignore_index": 0}])
@pytest.mark.parametrize("label", [2, [2], np.uint8(2)])
def test_one_label_is_a_batch_of_one(rng, label, options, reduction):
    z = rng.standard_normal(3)
    if isinstance(label, list):
        with pytest.raises(ValueError, match=r"labels must have shape \(\) for logits \(3,\), got \(1,\)"):
            F.cross_entropy(z, label, reduction=reduction, **options)
        return
    for loss in (F.cross_entropy, F.nll_loss):
        x, row = mr.tensor(z, requires_grad=True), mr.tensor(z[None], requires_grad=True)
        one, batch = loss(x, label, reduction=reduction, **options), loss(row, [label], reduction=reduction, **options)
        assert one.shape == ()
        assert one.item() == batch.item()
        one.backward(np.array(1.7))
        batch.backward(np.full(batch.shape, 1.7))
        np.testing.assert_array_equal(x.grad, row.grad[0])
    gradcheck(lambda x: F.cross_entropy(x, label, 0.1, reduction, **options), [z])


def test_one_label_of_probabilities(rng):
    z, p = rng.standard_normal(3), rng.dirichlet(np.ones(3))
    total = math.log(math.fsum(map(math.exp, z)))
    expected = -math.fsum(t * (v - total) for t, v in zip(p, z, strict=True))
    for reduction in ("mean", "sum", "none"):
        assert F.cross_entropy(z, p, reduction=reduction).item() == pytest.approx(expected, rel=1e-12)
    gradcheck(lambda z, p: F.cross_entropy(z, p, 0.2), [z, p])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_list_takes_the_type_of_the_logits(rng, dtype):
    z = rng.standard_normal((2, 3)).astype(dtype)
    probabilities = [[0.5, 0.25, 0.25], [0.0, 1.0, 0.0]]
    found = F.cross_entropy(z, probabilities, reduction="none").data
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, F.cross_entropy(z, np.array(probabilities, dtype), reduction="none").data)
    assert found[1] == pytest.approx(F.cross_entropy(z, [0, 1], reduction="none").data[1], rel=1e-5)


def test_what_is_ignored_has_no_part_in_anything(rng):
    """Be its scores what they may, as long as they are numbers."""
    z, labels = rng.standard_normal((4, 3)), np.array([1, -1, 2, -1])
    z[1] = [-np.inf, 1e30, -1e30]
    for loss in (F.cross_entropy, F.nll_loss):
        x = mr.tensor(z, requires_grad=True)
        total = loss(x, labels, ignore_index=-1)
        assert total.item() == loss(z[::2], labels[::2]).item()
        total.backward()
        assert not x.grad[1::2].any()
        assert np.array_equal(loss(z, labels, reduction="none", ignore_index=-1).data == 0, [0, 1, 0, 1])


def test_ignoring_all_is_a_loss_of_nothing_but_no_mean(rng):
    z, labels = mr.tensor(rng.standard_normal((2, 3)), requires_grad=True), np.array([5, 5])
    total = F.cross_entropy(z, labels, 0.1, "sum", ignore_index=5)
    total.backward()
    assert total.item() == 0
    assert not z.grad.any()
    with pytest.raises(ValueError, match="labels must hold one that is not ignored"):
        F.cross_entropy(z, labels, ignore_index=5)


def test_neither_labels_nor_weights_are_changed_or_followed(rng):
    z = mr.tensor(rng.standard_normal((2, 3)), requires_grad=True)
    labels, weight = np.array([0, 7]), rng.uniform(1, 2, 3)
    loss = F.cross_entropy(z, labels, 0.1, weight=weight, ignore_index=7)
    expected = mr.tensor(z.data, requires_grad=True)
    F.cross_entropy(expected, labels, 0.1, weight=weight.copy(), ignore_index=7).backward()
    assert np.array_equal(labels, [0, 7])
    labels[:] = 1
    loss.backward()
    np.testing.assert_array_equal(z.grad, expected.grad)
