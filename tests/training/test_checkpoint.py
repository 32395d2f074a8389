"""Checkpoints: what is written comes back, what is broken is refused, what fails leaves the old one whole."""

from __future__ import annotations

import errno
import json
import os
import pickle
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import safetensors.numpy

from minires import _atomic
from minires.training import Checkpoint, CheckpointError, Config, Row, find_checkpoint, load_checkpoint
from minires.training import checkpoint as checkpoints
from minires.training.history import Metrics


@pytest.fixture
def sample(rng):
    def make(iteration=7):
        return Checkpoint(
            iteration=iteration,
            config=Config.make(network="resnet20", milestones=(0.25, 0.5), warmup=3, lr=0.3),
            model={"conv1.weight": rng.standard_normal((4, 1, 3, 3)), "bn1.running_mean": rng.random(4, np.float32)},
            velocity={"velocity.0": rng.standard_normal((4, 1, 3, 3))},
            mean=rng.random((8, 8, 1), np.float32),
            classes=("0", "1"),
            input_shape=(1, 8, 8),
            random_state=rng.bit_generator.state,
            schedule={"ends": None, "errors": [90.0], "schedule": {}},
            interval=Metrics(1.25, 3, 17),
            rows=(Row(5, 0.5, 0.1, 2.1, 81.3, None, 10.0, 1.5), Row(6, 0.6, 0.1, 1 / 3, 80.0, 79.5, 11.0, 1.6)),
            seconds=1.75,
        )

    return make


def test_everything_comes_back(sample, tmp_path):
    written = sample()
    path = checkpoints.save(written, tmp_path)
    read = load_checkpoint(path)
    for name in ("iteration", "config", "classes", "input_shape", "random_state", "schedule", "interval", "rows"):
        assert getattr(read, name) == getattr(written, name)
    for name in ("model", "velocity"):
        first, second = getattr(read, name), getattr(written, name)
        assert set(first) == set(second)
        for key in first:
            assert first[key].dtype == second[key].dtype
            np.testing.assert_array_equal(first[key], second[key])
    np.testing.assert_array_equal(read.mean, written.mean)


def test_strided_arrays_come_back_as_they_are(sample, tmp_path):
    written = sample()
    transposed = written.model["conv1.weight"].transpose(3, 2, 1, 0)
    written.model["conv1.weight"] = transposed
    np.testing.assert_array_equal(
        load_checkpoint(checkpoints.save(written, tmp_path)).model["conv1.weight"], transposed
    )


@pytest.mark.parametrize("length", range(8))
def test_tensors_are_aligned_to_8_bytes(sample, tmp_path, length):
    """A safetensors file: 8 bytes with the header's length, the header, the numbers."""
    written = sample()
    written.model["a" * (1 + length)] = np.ones(3)
    checkpoints.save(written, tmp_path)
    (tensors,) = tmp_path.glob("*.safetensors")
    assert int.from_bytes(tensors.read_bytes()[:8], "little") % 8 == 0


def test_iterations_are_ordered_as_numbers(sample, tmp_path):
    for iteration in (99_999_999, 100_000_000):
        checkpoints.save(sample(iteration), tmp_path)
    assert [load_checkpoint(file).iteration for file in tmp_path.glob("*.json")] == [100_000_000]


def test_two_files_and_no_pickle(sample, tmp_path):
    path = checkpoints.save(sample(), tmp_path)
    json_file, tensors = sorted(tmp_path.iterdir(), key=lambda file: file.suffix)
    assert (path, tensors.suffix) == (json_file, ".safetensors")
    json.loads(json_file.read_text())
    with pytest.raises((pickle.UnpicklingError, ValueError, EOFError, IndexError, KeyError)):
        pickle.loads(tensors.read_bytes())


def test_old_ones_go_when_the_next_is_complete(sample, tmp_path):
    for iteration in (1, 2, 3):
        checkpoints.save(sample(iteration), tmp_path, keep=2)
    assert [file.name for file in sorted(tmp_path.glob("*.json"))] == [f"iteration-0000000{i}.json" for i in (2, 3)]
    assert len(list(tmp_path.iterdir())) == 4
    assert find_checkpoint(tmp_path).name == "iteration-00000003.json"
    # Going on from iteration 1 leaves the later course of the run.
    checkpoints.save(sample(1), tmp_path, keep=2)
    assert [load_checkpoint(file).iteration for file in tmp_path.glob("*.json")] == [1]
    assert len(list(tmp_path.iterdir())) == 2


def test_leftovers_of_a_killed_process_are_swept_up(sample, tmp_path):
    (tmp_path / ".iteration-00000001.json.123.tmp").write_text("half")
    (tmp_path / "iteration-00000002-01234567.safetensors").write_text("its JSON was never written")
    (tmp_path / "mine.safetensors").write_text("no checkpoint")
    checkpoints.save(sample(), tmp_path)
    assert sorted(file.suffix for file in tmp_path.iterdir()) == [".json", ".safetensors", ".safetensors"]
    assert (tmp_path / "mine.safetensors").exists()


@pytest.mark.parametrize("same_iteration", [False, True])
@pytest.mark.parametrize(
    ("function", "call"), [*(("replace", call) for call in range(2)), *(("fsync", call) for call in range(4))]
)
def test_a_full_disk_leaves_the_previous_checkpoint(sample, tmp_path, monkeypatch, function, call, same_iteration):
    first = checkpoints.save(sample(7), tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    calls = 0
    real = getattr(os, function)

    def failing(*args):
        nonlocal calls
        calls += 1
        if calls - 1 == call:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*args)

    monkeypatch.setattr(os, function, failing)
    with pytest.raises(OSError, match="No space"):
        checkpoints.save(sample(7 if same_iteration else 8), tmp_path)
    monkeypatch.undo()
    loaded = load_checkpoint(find_checkpoint(tmp_path))  # whole, whichever it is
    assert not list(tmp_path.glob(".*.tmp"))
    if function == "replace" or call < 3:  # before the JSON got its name
        assert loaded.iteration == 7
        for name, content in before.items():
            assert (tmp_path / name).read_bytes() == content
        assert len(list(tmp_path.iterdir())) == 2
    assert first.exists()


def test_atomic_write_replaces_whole_files(tmp_path, monkeypatch):
    file = tmp_path / "a.txt"
    _atomic.write_text(file, "old")
    monkeypatch.setattr(os, "fsync", lambda descriptor: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
    with pytest.raises(OSError, match="full"):
        _atomic.write_text(file, "new")
    assert file.read_text() == "old"
    assert [f.name for f in tmp_path.iterdir()] == ["a.txt"]


def changed(change):
    """A damage that changes the fields of the JSON in place."""

    def damage(description, tensors):
        fields = json.loads(description.read_text())
        change(fields)
        description.write_text(json.dumps(fields))

    return damage


def damage_json(**changes):
    return changed(lambda fields: fields.update(changes))


def redirect(name):
    return changed(lambda fields: fields["tensors"].update(file=name))


def flip_a_bit(description, tensors):
    content = bytearray(tensors.read_bytes())
    content[-1] ^= 1
    tensors.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d, t: d.write_text(d.read_text()[:-20]), "no valid JSON"),
        (lambda d, t: d.write_bytes(b"\x80\x04\x95\xff"), "no valid JSON"),
        (lambda d, t: d.write_text("[" * 100_000), "no valid JSON"),
        (lambda d, t: d.write_text("[]"), "format"),
        (lambda d, t: d.write_text('{"epoch": 3}'), "format"),
        (damage_json(version=99), "version 99"),
        (lambda d, t: t.write_bytes(t.read_bytes()[:-5]), "damaged"),
        (flip_a_bit, "damaged"),
        (lambda d, t: t.unlink(), "missing"),
        (redirect("../../secret.safetensors"), "must be"),
        (redirect("other.safetensors"), "must be"),
        (changed(lambda fields: fields.pop("iteration")), "'iteration' is missing"),
        (damage_json(iteration=-1), "iteration"),
        (damage_json(iteration="7"), "iteration"),
        (damage_json(config={"network": "resnet20", "lr": -1, "epochs": 1}), "lr"),
        (damage_json(config=[]), "configuration"),
        (damage_json(config={"danger": 1}), "danger"),
        (damage_json(random_state={"bit_generator": "MT19937"}), "whole checkpoint"),
        (damage_json(random_state=3), "whole checkpoint"),
        (damage_json(history=[[1, 2]]), "history"),
        (damage_json(interval=[1]), "whole checkpoint"),
        (damage_json(schedule=3), "whole checkpoint"),
        (damage_json(seconds="soon"), "seconds"),
        (damage_json(tensors=[]), "whole checkpoint"),
        (damage_json(tensors={}), "missing"),
        (damage_json(input_shape=[1, 8]), "whole checkpoint"),
    ],
)
def test_broken_ones_are_refused_with_one_error(sample, tmp_path, damage, message):
    description = checkpoints.save(sample(), tmp_path)
    (tensors,) = tmp_path.glob("*.safetensors")
    damage(description, tensors)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_checkpoint(description)
    assert str(description.parent) in str(caught.value)


def test_no_more_than_one_copy_is_made_of_what_is_saved(sample, tmp_path):
    """Beside the weights, gradients and velocities of a large network, more would be the peak of the whole run."""
    large = np.ones((16, 2**16), np.float32)  # 4 MiB
    checkpoint = replace(sample(), velocity={"velocity.0": large})
    tracemalloc.start()
    try:
        checkpoints.save(checkpoint, tmp_path)
        assert large.nbytes < tracemalloc.get_traced_memory()[1] < 1.2 * large.nbytes
    finally:
        tracemalloc.stop()
    (tensors,) = tmp_path.glob("*.safetensors")
    np.testing.assert_array_equal(safetensors.numpy.load_file(tensors)["velocity.0"], large)


def test_valid_checksum_of_an_invalid_tensors_file(sample, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "_safetensors", lambda arrays: b"\xff" * 64)
    path = checkpoints.save(sample(), tmp_path)
    with pytest.raises(CheckpointError, match="no valid safetensors"):
        load_checkpoint(path)


def test_finding(sample, tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no checkpoint"):
        find_checkpoint(tmp_path)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        find_checkpoint(tmp_path / "nowhere")
    path = checkpoints.save(sample(), tmp_path / "checkpoints")
    (tensors,) = (tmp_path / "checkpoints").glob("*.safetensors")
    for place in (tmp_path, tmp_path / "checkpoints", path, tensors):
        assert find_checkpoint(place) == path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"history": [], "interval": [0.0, 0, 0]}, "iteration 7 has neither a row of the history nor sums"),
        ({"seconds": 10**400}, "seconds"),
        ({"interval": [10**400, 1, 1]}, "interval"),
    ],
)
def test_numbers_that_cannot_be(sample, tmp_path, change, message):
    path = checkpoints.save(sample(), tmp_path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(path)
