"""What can be copied and pickled: leaves and modules; not the tape."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import minires as mr
import minires.functional as F

WAYS = {"copy": copy.copy, "deepcopy": copy.deepcopy, "pickle": pickle.dumps}
TOLD = r"<ReLU\(\): \(2, 3\) -> \(2, 3\)> is a node of the tape, .*: copy tensor\.detach\(\) instead"


@pytest.fixture
def x(rng):
    return mr.tensor(rng.standard_normal((2, 3)), requires_grad=True)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("walked", [False, True])
def test_a_node_is_refused(x, way, walked):
    y = F.relu(x)
    if walked:
        y.backward(np.ones((2, 3)))
    with pytest.raises(TypeError, match=TOLD):
        WAYS[way](y.node)


def test_after_a_refused_copy_the_tape_is_whole(x, rng):
    y = F.relu(x)
    with pytest.raises(TypeError):
        copy.copy(y.node)
    assert not y.data.flags.writeable
    g = rng.standard_normal((2, 3))
    y.backward(g)
    assert np.array_equal(x.grad, np.where(x.data > 0, g, 0))
    assert y.data.flags.writeable


@pytest.mark.parametrize("way", ["deepcopy", "pickle"])
def test_a_tensor_with_a_history_is_refused_and_detached_copied(x, way):
    y = F.relu(x)
    with pytest.raises(TypeError, match=TOLD):
        WAYS[way](y)
    again = copy.deepcopy(y.detach())
    assert np.array_equal(again.data, y.data)
    assert again.data is not y.data


def test_a_model_that_keeps_an_activation(x):
    class Keeps(mr.nn.Module):
        def forward(self, x):
            self.__dict__["last"] = F.relu(x)
            return self.last

    model = Keeps()
    copy.deepcopy(model)
    model(x)
    with pytest.raises(TypeError, match=TOLD):
        copy.deepcopy(model)
    model.__dict__["last"] = model.last.detach()
    assert np.array_equal(copy.deepcopy(model).last.data, model.last.data)


def test_leaves_models_and_operations_that_have_not_run_are_copied(x):
    for again in (copy.deepcopy(x), pickle.loads(pickle.dumps(x))):
        assert again.requires_grad
        assert np.array_equal(again.data, x.data)
        assert again.data is not x.data
    mr.manual_seed(0)
    model = mr.models.create("resnet20", width=2)
    images = mr.tensor(np.ones((2, 3, 8, 8), np.float32))
    assert np.array_equal(copy.deepcopy(model)(images).data, model(images).data)
    node = copy.copy(mr.ops.Softmax(0))
    assert node(x).shape == (2, 3)
    assert node.options() == {"axis": 0}
