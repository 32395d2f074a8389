"""Every operation on awkward shapes drawn by Hypothesis: naive oracle, finite differences, dtypes, memory layouts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minires as mr
from minires import backends, ops
from minires.verify.cases import CASES, draw
from minires.verify.properties import PROPERTIES

BACKENDS = [
    pytest.param(name, marks=[pytest.mark.skip(reason=reason)] if reason else [])
    for name, reason in backends.available().items()
    if name in ("reference", "native")
]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("operation", CASES)
@settings(max_examples=30, derandomize=True, deadline=None, database=None)
@given(data=st.data())
def test_awkward_shapes(operation, backend, data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**16)))
    with mr.backend(backend):
        draw(operation, lambda options: data.draw(st.sampled_from(list(options))), rng).check()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("operation", "holds"), [pytest.param(op, p, id=f"{op}-{p.__name__}") for op, ps in PROPERTIES.items() for p in ps]
)
def test_properties(operation, holds, backend, rng):
    with mr.backend(backend):
        holds(rng)


def test_no_operation_is_left_out():
    """The nodes that all cases leave on the tape are all the operations there are."""
    met = set()

    class Names(mr.Observer):
        def before_forward(self, node, arrays):
            met.add(node.name)

    with Names():
        for operation in CASES:
            for seed in range(3):
                rng = np.random.default_rng(seed)
                case = draw(operation, lambda options: options[0], rng)
                case.fn(*(mr.tensor(array) for array in case.inputs))
    assert met == {*ops.__all__, "SyncBatchNorm"}
