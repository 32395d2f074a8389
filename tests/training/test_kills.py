"""Killed runs end bit-identical to an undisturbed run, and the comparison detects differences."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from minires.training import Config, find_checkpoint, history, load_checkpoint, train
from minires.training import checkpoint as checkpoints
from training.kills import differences, kills, table


def test_three_kills(tmp_path):
    found = list(kills(3, tmp_path, seed=1, iterations=10))
    assert [kill.differences for kill in found] == [(), (), ()]
    assert "3 of 3 identical" in table(found)
    assert [kill.within for kill in found] == [True, False, True]


@pytest.mark.slow
def test_fifty_kills(tmp_path):
    found = list(kills(50, tmp_path))
    assert "50 of 50 identical" in table(found)
    assert sum(kill.saving for kill in found) >= 10


def test_a_difference_is_noticed(tmp_path):
    config = Config.make(width=2, iterations=4, eval_every=2, workers=0, batch_size=32, keep_best=True)
    one, other = tmp_path / "one", tmp_path / "other"
    train(config, one)
    train(config, other)
    assert list(differences(one, other)) == []

    rows = history.read(other / "history.csv")
    history.write(other / "history.csv", rows[:-1])
    assert list(differences(one, other)) == ["history.csv"]
    history.write(other / "history.csv", rows)

    (other / ".lock").touch()
    assert list(differences(one, other)) == ["names of files"]
    (other / ".lock").unlink()

    (other / "curves.png").write_bytes((one / "curves.png").read_bytes() + b" ")
    assert list(differences(one, other)) == ["curves.png"]
    shutil.copy(one / "curves.png", other / "curves.png")

    found = load_checkpoint(find_checkpoint(other))
    array = found.model["layer1.0.bn1.running_var"]
    array.view(np.uint32)[0] ^= 1  # the last bit
    checkpoints.save(found, other / "checkpoints", keep=2)
    assert f"model iteration-{found.iteration:08d}" in list(differences(one, other))
