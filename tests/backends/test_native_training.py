"""Training on the native backend begins as on the reference backend."""

from __future__ import annotations

import numpy as np
import pytest

import minires as mr
import minires.functional as F
from minires import backends

if backends.available()["native"]:
    pytest.skip(backends.available()["native"], allow_module_level=True)


def losses(backend, dtype, steps, network):
    with mr.backend(backend):
        mr.manual_seed(0)
        rng = np.random.default_rng(0)
        model = mr.models.create(network, num_classes=10, width=8).astype(dtype)
        sgd = mr.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)
        found = []
        for _ in range(steps):
            x, labels = rng.standard_normal((16, 3, 16, 16)).astype(dtype), rng.integers(0, 10, 16)
            sgd.zero_grad()
            loss = F.cross_entropy(model(mr.tensor(x)), labels)
            loss.backward()
            sgd.step()
            found.append(loss.item())
    return np.array(found)


# The losses begin some roundings apart, 1e-7 or 1e-16.  Through the gradients of twenty layers of batch statistics a
# difference grows more than tenfold a step, and once it lets one ReLU pass what the other stops, by leaps: in float32
# that comes with the third step.
@pytest.mark.parametrize(("dtype", "steps", "tolerance"), [("float64", 12, 1e-10), ("float32", 2, 1e-5)])
@pytest.mark.parametrize("network", ["resnet20", "plain20"])
def test_the_first_steps_are_the_same(network, dtype, steps, tolerance):
    expected, found = (losses(backend, dtype, steps, network) for backend in ("reference", "native"))
    assert len(set(expected)) == steps
    difference = np.abs(found - expected) / expected
    assert (difference <= tolerance).all(), difference
