"""Power failures at every moment of small runs, and what the check of them is worth: planted mistakes are found."""

from __future__ import annotations

import pytest

from training.disk import crashes
from training.power import best_run, check, new_run, resumed_elsewhere, resumed_run


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    made = {}

    def record(scenario):
        if scenario not in made:
            made[scenario] = scenario(tmp_path_factory.mktemp(scenario.__name__) / "run")
        return made[scenario]

    return record


@pytest.mark.parametrize(
    ("scenario", "least"), [(new_run, 70), (best_run, 150), (resumed_run, 70), (resumed_elsewhere, 70)]
)
def test_no_power_failure_takes_a_completed_checkpoint(records, tmp_path, scenario, least):
    count, findings = check(records(scenario), tmp_path)
    assert findings == []
    assert count >= least


def without(chosen):
    return lambda operations: [operation for operation in operations if not chosen(operation)]


def mkdir_not_synced(operations):
    """The folder of checkpoints is made, and its name does not last."""
    made = next(at for at, operation in enumerate(operations) if operation.path == "checkpoints")
    return [*operations[: made + 1], *operations[made + 2 :]]


def json_first(operations):
    """The description is named before its tensors are."""
    result = list(operations)
    for at, operation in enumerate(operations):
        if operation.kind == "rename" and operation.target.endswith(".safetensors"):
            later = next(i for i in range(at, len(result)) if result[i].kind == "saved")
            result.insert(later - 1, result.pop(result.index(operation)))
    return result


def old_ones_first(operations):
    """What is old goes before the new one is complete."""
    result, start = [], 0
    for at, operation in enumerate(operations):
        if operation.kind == "saved":
            save = operations[start:at]
            gone = [o for o in save if o.kind == "unlink"]
            result += [*gone, *(o for o in save if o not in gone), operation]
            start = at + 1
    return [*result, *operations[start:]]


def removals_unordered(operations):
    """Descriptions and tensors go without a word to the disk in between."""
    return [
        operation
        for at, operation in enumerate(operations)
        if not (operation.kind == "sync" and operations[at - 1].kind == "unlink")
    ]


@pytest.mark.parametrize(
    ("scenario", "plant"),
    [
        (new_run, without(lambda o: o.kind == "sync" and o.path.endswith(".tmp"))),
        (new_run, without(lambda o: o.kind == "sync" and ".json." in o.path and "iteration" in o.path)),
        (new_run, without(lambda o: o.kind == "sync" and o.path == "checkpoints")),
        (new_run, without(lambda o: o.kind == "sync" and o.path == ".")),
        (new_run, mkdir_not_synced),
        (new_run, json_first),
        (new_run, old_ones_first),
        (resumed_run, removals_unordered),
    ],
    ids=[
        "files",
        "descriptions",
        "checkpoints",
        "run folder",
        "mkdir",
        "json first",
        "old ones first",
        "removals unordered",
    ],
)
def test_a_planted_mistake_is_found(records, tmp_path, scenario, plant):
    record = records(scenario)
    operations = plant(record.operations)
    assert operations != record.operations
    assert check(record, tmp_path, operations, first_only=True)[1]


def test_what_is_synced_is_certain_and_what_is_not_is_anything(tmp_path):
    from training.disk import Operation, Record

    start = Record(tmp_path).start
    create, write = Operation("create", "a"), Operation("write", "a", content=b"xy")
    last = Operation("rename", "a", "b")
    states = {state for number, state in crashes(start, [create, write, last]) if number == 3}
    contents = {b"xy", b"", b"x", b"\0\0"}
    # The file under its old name, under the new one, or not at all; the last was among the states before it.
    assert states == {(("b", content),) for content in contents}
    synced = [create, write, Operation("sync", "a"), Operation("sync", "."), last, Operation("sync", ".")]
    assert [state for number, state in crashes(start, synced) if number == 4] == []  # both were possible before
    assert [state for number, state in crashes(start, synced) if number == 5] == [(("b", b"xy"),)]
