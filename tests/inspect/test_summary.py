"""The layer table."""

from __future__ import annotations

import numpy as np
import pytest

import minires as mr


def test_rows_in_the_order_of_the_forward_pass():
    model = mr.models.create("resnet20", width=4)
    summary = mr.summary(model, (3, 8, 6))
    first = summary.rows[0]
    assert (first.module, first.operation, first.output_shape) == ("conv1", "Conv2d", (4, 8, 6))
    assert (first.params, first.macs, first.activation_bytes) == (108, 108 * 48, 4 * 48 * 4)
    assert summary.params == sum(row.params for row in summary.rows) == sum(p.size for p in model.parameters())
    assert summary.activation_bytes == sum(row.activation_bytes for row in summary.rows)
    assert f"{summary.macs:,}" in str(summary)


def test_groups_count_only_their_own_channels():
    model = mr.nn.Sequential(mr.nn.Conv2d(4, 6, (3, 2), groups=2, bias=False))
    assert mr.summary(model, (4, 5, 5)).macs == 6 * 3 * 4 * (2 * 3 * 2)


def test_the_model_is_left_as_it_was():
    model = mr.models.create("resnet20", width=4)
    model.layer1.eval()
    modes = [m.training for m in model.modules()]
    state = {name: array.copy() for name, array in model.state_dict().items()}
    mr.summary(model, (3, 8, 8))
    assert [m.training for m in model.modules()] == modes
    for name, array in model.state_dict().items():
        assert np.array_equal(array, state[name]), name


@pytest.mark.parametrize("shape", [(3, 8), (1, 3, 8, 8), 8, (3, 0, 8), (3, 8.5, 8)])
def test_wrong_input_shape(shape):
    with pytest.raises((ValueError, TypeError), match="input_shape must be"):
        mr.summary(mr.models.create("resnet20", width=4), shape)


def test_wrong_model():
    with pytest.raises(TypeError, match="model must be a Module, got str"):
        mr.summary("resnet20", (3, 8, 8))
