"""Results that wait, beside backends that know nothing of them, and operations that want the same result."""

from __future__ import annotations

import numpy as np
import pytest

import minires as mr
import minires.functional as F
from minires import backends

if backends.available()["native"]:
    pytest.skip(backends.available()["native"], allow_module_level=True)

from minires import nn
from minires.backends.native import fused


@pytest.fixture(autouse=True)
def natively():
    with mr.backend("native"):
        yield


class Net(nn.Module):
    """A module around a function."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def image(rng, requires_grad=True):
    return mr.tensor(rng.standard_normal((2, 8, 6, 5), np.float32), requires_grad=requires_grad)


@pytest.mark.parametrize("backend", ["native", "reference"])
def test_a_gradient_that_waits_reaches_a_batch_norm_that_was_computed_outside(rng, backend):
    x, gradients = image(rng), []
    cotangent = rng.standard_normal(x.shape, np.float32)
    for watched in (False, True):
        x.zero_grad()
        with mr.backend(backend):
            y = F.batch_norm(x, None, None, training=True)
        loss = nn.ReLU()(y)
        if watched:
            with mr.Observer():
                loss.backward(cotangent)
        else:
            loss.backward(cotangent)
        gradients.append(x.grad)
    np.testing.assert_array_equal(*gradients)


def test_another_backend_inside_of_a_module_gets_arrays(rng):
    def function(x):
        y = F.batch_norm(x, None, None, training=True)
        with mr.backend("reference"):
            return F.relu(y)

    x = image(rng, requires_grad=False)
    with mr.Observer():
        expected = Net(function)(x).data
    np.testing.assert_array_equal(Net(function)(x).data, expected)


def test_what_a_sum_is_computed_from_cannot_be_changed_under_it(rng):
    def function(x):
        n = F.batch_norm(x, None, None, training=True)
        s = n + x
        n.data[...] = 100
        return F.relu(s)

    x = image(rng, requires_grad=False)
    with mr.Observer():
        expected = Net(function)(x).data
    np.testing.assert_array_equal(Net(function)(x).data, expected)


def test_a_convolution_that_many_want_is_computed_twice_at_most(rng, monkeypatch):
    calls = []
    convolve = fused.FusedBackend._convolve
    monkeypatch.setattr(fused.FusedBackend, "_convolve", lambda self, *a: calls.append(1) or convolve(self, *a))
    w = rng.standard_normal((8, 8, 3, 3), np.float32)
    mean, var = np.zeros(8, np.float32), np.ones(8, np.float32)

    def function(x):
        h = F.conv2d(x, mr.tensor(w), padding=1)
        heads = [F.relu(F.batch_norm(h, mean, var)) for _ in range(4)]
        return heads[0] + heads[1] + heads[2] + heads[3] + h

    x = image(rng, requires_grad=False)
    with mr.no_grad():
        found = Net(function)(x).data
        assert len(calls) == 2
        with mr.Observer():
            np.testing.assert_array_equal(found, Net(function)(x).data)


def test_groups_are_arrangements_of_their_own(rng):
    """48 filters in one group and 24 in each of two become as many numbers."""
    w = mr.tensor(rng.standard_normal((48, 4, 1, 1), np.float32))
    one, two = (mr.tensor(rng.standard_normal((1, c, 5, 5), np.float32)) for c in (4, 8))
    with mr.no_grad():
        for x, groups in ((one, 1), (two, 2), (one, 1)):
            found = Net(lambda x, groups=groups: F.conv2d(x, w, groups=groups))(x).data
            with mr.backend("reference"):
                np.testing.assert_allclose(found, F.conv2d(x, w, groups=groups).data, rtol=1e-5, atol=1e-5)


def test_a_module_that_fails_leaves_its_arrays_writable(rng):
    w = rng.standard_normal((8, 8, 1, 1), np.float32)

    def function(x):
        y = F.conv2d(x, mr.tensor(w))
        raise ArithmeticError(y)

    x = image(rng, requires_grad=False)
    with mr.no_grad(), pytest.raises(ArithmeticError) as kept:
        Net(function)(x)
    w[...] = 0
    x.data[...] = 0
    assert kept.value.args[0].data.shape == x.shape


def test_sgd_takes_gradients_of_another_dtype_and_velocities_of_another_order(rng):
    p = mr.tensor(rng.standard_normal((4, 3), np.float32), requires_grad=True)
    sgd = mr.optim.SGD([p], lr=0.5, momentum=0.5)
    before = p.data.copy()
    p.grad = rng.standard_normal((4, 3))
    sgd.step()
    np.testing.assert_allclose(p.data, before - 0.5 * p.grad, rtol=1e-6)
    sgd.load_state_dict({"velocity.0": np.asfortranarray(sgd.state_dict()["velocity.0"].astype(np.float32))})
    p.grad = rng.standard_normal((4, 3)).astype(np.float32)
    sgd.step()


def test_other_dtypes_are_added_by_numpy():
    x = mr.tensor(np.array([1, 2], np.float16))
    assert (x + x).dtype == np.float16


def test_evaluation_lets_an_infinite_input_through_to_its_own_gradient_only(rng):
    x = image(rng)
    x.data[0, 0, 0, 0] = np.inf
    g = rng.standard_normal(x.shape, np.float32)
    F.batch_norm(x, np.zeros(8, np.float32), np.ones(8, np.float32)).backward(g)
    np.testing.assert_allclose(x.grad, g / np.sqrt(np.float32(1 + 1e-5)), rtol=1e-6)
