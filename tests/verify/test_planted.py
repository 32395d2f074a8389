"""The checks must catch every bug that is planted, and find nothing wrong where none is."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

import minires as mr
from minires import functional as F
from minires.verify import planted
from minires.verify.cases import CASES
from minires.verify.planted import MUTATIONS, Mutation, catch, caught_by


@pytest.mark.parametrize("operation", CASES)
def test_sound_operations_pass(operation):
    assert caught_by(operation) is None


@pytest.mark.parametrize("mutation", MUTATIONS, ids=str)
def test_planted_bug_is_caught(mutation):
    assert catch(mutation) is not None, f"survives: {mutation}"


def test_at_least_three_in_every_operation():
    planted_in = Counter(mutation.operation for mutation in MUTATIONS)
    assert {operation for operation in CASES if planted_in[operation] < 3} == set()
    assert len(set(map(str, MUTATIONS))) == len(MUTATIONS)


def test_a_bug_is_taken_out_again():
    relu = Mutation("relu", planted.reference.relu_forward, "maximum", "minimum")
    x = mr.tensor(np.array([-1.0, 2.0]))
    with mr.backend("reference"):
        with relu.planted():
            np.testing.assert_array_equal(F.relu(x).data, [-1, 0])
        np.testing.assert_array_equal(F.relu(x).data, [0, 2])


def test_a_bug_is_taken_out_after_an_error_too():
    relu = Mutation("relu", planted.reference.relu_forward, "maximum", "no_such_function")
    with mr.backend("reference"):
        with pytest.raises(AttributeError), relu.planted():
            F.relu(mr.tensor(np.ones(2)))
        np.testing.assert_array_equal(F.relu(mr.tensor(np.array([-1.0, 2.0]))).data, [0, 2])


def test_an_edit_that_fits_nothing_is_an_error():
    with pytest.raises(ValueError, match="stands 0 times"):
        catch(Mutation("relu", planted.reference.relu_forward, "no such text", ""))
