"""The checks must catch every planted bug and pass the code without bugs."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest

import minires as mr
from minires import functional as F
from minires.backends import reference
from minires.verify import planted
from minires.verify.cases import CASES
from minires.verify.planted import LAYERS, OPERATIONS, Mutation, campaign, catch, caught_by
from minires.verify.properties_of_layers import PROPERTIES_OF_LAYERS

# -- operations and layers


@pytest.mark.parametrize("where", [*CASES, *PROPERTIES_OF_LAYERS])
def test_sound_code_passes(where):
    assert caught_by(where) is None


@pytest.mark.parametrize("mutation", [*OPERATIONS, *LAYERS], ids=str)
def test_planted_bug_is_caught(mutation):
    assert catch(mutation) is not None, f"survives: {mutation}"


def test_at_least_five_in_every_operation_and_layer():
    planted_in = Counter(mutation.where for mutation in (*OPERATIONS, *LAYERS))
    assert {where: planted_in[where] for where in (*CASES, *PROPERTIES_OF_LAYERS) if planted_in[where] < 5} == {}
    assert len(set(map(str, OPERATIONS + LAYERS))) == len(OPERATIONS + LAYERS)


def test_a_bug_is_removed():
    relu = Mutation("relu", reference.relu_forward, "maximum", "minimum")
    x = mr.tensor(np.array([-1.0, 2.0]))
    with mr.backend("reference"):
        with relu.planted():
            np.testing.assert_array_equal(F.relu(x).data, [-1, 0])
        np.testing.assert_array_equal(F.relu(x).data, [0, 2])


def test_a_bug_is_removed_after_an_error():
    relu = Mutation("relu", reference.relu_forward, "maximum", "no_such_function")
    with mr.backend("reference"):
        with pytest.raises(AttributeError), relu.planted():
            F.relu(mr.tensor(np.ones(2)))
        np.testing.assert_array_equal(F.relu(mr.tensor(np.array([-1.0, 2.0]))).data, [0, 2])


def test_an_edit_whose_text_is_missing_is_an_error():
    with pytest.raises(ValueError, match="occurs 0 times"):
        catch(Mutation("relu", reference.relu_forward, "no such text", ""))


# -- the count


def test_a_bug_that_survives_is_reported(monkeypatch):
    """minimum(x, 0) is caught by a check, a name that is not there by an error; maximum(0, x) is no bug at all."""
    harmless = ("maximum(x, x.dtype.type(0))", "maximum(x.dtype.type(0), x)")
    edits = [("maximum", "minimum"), ("maximum", "no_such_function"), harmless]
    monkeypatch.setattr(campaign, "OPERATIONS", tuple(Mutation("relu", reference.relu_forward, *e) for e in edits))
    monkeypatch.setattr(campaign, "LAYERS", LAYERS[:1])
    found = planted.report()
    assert [(row.kind, row.where, row.planted, row.caught) for row in found.rows] == [
        ("operation", "relu", 3, 2),
        ("layer", "BatchNorm2d", 1, 1),
    ]
    assert found.rows[0].by == {"check": 1, "error": 1}
    assert str(found) == "4 planted, 3 caught (1 by an error)"
    assert found.lines() == [
        ("operation", "relu", "3", "2 (1 by an error)"),
        ("layer", "BatchNorm2d", "1", "1"),
    ]
    fields = json.loads(json.dumps(found.as_dict()))
    assert (fields["planted"], fields["caught"], fields["rows"][0]["by"]) == (4, 3, {"check": 1, "error": 1})
    assert fields["rows"][0]["survivors"] == list(found.survivors)
    assert not found.holds
    assert len(found.survivors) == 1
    assert "maximum(x.dtype.type(0), x)" in found.survivors[0]


def test_checks_that_fail_without_a_bug_prove_nothing(monkeypatch):
    monkeypatch.setattr(campaign, "OPERATIONS", (Mutation("relu", reference.relu_backward, "(y > 0", "(y < 0"),))
    monkeypatch.setattr(campaign, "LAYERS", ())
    with Mutation("relu", reference.relu_forward, "maximum", "fmax").planted():
        found = planted.report()
    assert not found.holds
    assert found.unsound == ("operation relu: AssertionError: relu(NaN) must be NaN",)
