"""A run that goes on to another length: what its schedule then is, bit by bit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from usage import error_line

from minires.cli import main
from minires.training import Config, ConfigError, find_checkpoint, load_checkpoint, resume_config, train
from training.rows import timeless

# Three iterations an epoch: 6 in two epochs, 12 in four.
CONFIG = Config.make(width=1, batch_size=500, epochs=2, workers=0, eval_every=3, checkpoint_every=6, dtype="float64")


def same(one, other):
    assert one.rows[-1].iteration == other.rows[-1].iteration == 12
    first, second = load_checkpoint(one.checkpoint), load_checkpoint(other.checkpoint)
    for name in ("model", "velocity"):
        for key, array in getattr(first, name).items():
            np.testing.assert_array_equal(array, getattr(second, name)[key], err_msg=key)
    assert timeless(one.rows) == timeless(other.rows)


@pytest.mark.parametrize("settings", [{"schedule": "constant"}, {"milestones": (4, 9), "warmup": 2}])
def test_milestones_in_iterations_stay_and_two_and_two_epochs_are_four(tmp_path, settings):
    config = replace(CONFIG, **settings)
    whole = train(replace(config, epochs=4), tmp_path / "whole")
    train(config, tmp_path / "run")
    assert (
        main(["train", "--resume", str(tmp_path / "run"), "--epochs", "4", "--quiet", "--out", str(tmp_path / "on")])
        == 0
    )
    longer = train(replace(resume_config(tmp_path / "run"), epochs=4), resume=tmp_path / "run")
    same(whole, longer)
    same(whole, replace(longer, checkpoint=find_checkpoint(tmp_path / "on")))


def test_fractions_are_of_the_new_length(tmp_path, capsys):
    """0.5 and 0.75: the rate, lowered at 3 and 4 of 6 iterations, is at 6 what it is there of 12."""
    run = tmp_path / "run"
    train(CONFIG, run)
    stopped = find_checkpoint(run)
    expected = train(replace(resume_config(run), epochs=4, milestones=(6, 9)), tmp_path / "absolute", resume=stopped)
    assert main(["train", "--resume", str(run), "--epochs", "4"]) == 0
    message = capsys.readouterr().err
    assert "iterations 12 instead of 6; learning rate by iteration: 0.01 from 6, 0.001 from 9\n" in message
    checkpoint = load_checkpoint(find_checkpoint(run))
    same(expected, replace(expected, checkpoint=find_checkpoint(run), rows=checkpoint.rows))
    rates = {row.iteration: row.lr for row in checkpoint.rows}
    assert [rates[iteration] for iteration in (3, 6, 9, 12)] == pytest.approx([0.1, 0.001, 0.01, 0.001])
    assert resume_config(run).epochs == 4  # from now on it is the run's
    assert main(["train", "--resume", str(run), "--iterations", "9", "--quiet"]) == 2
    message = capsys.readouterr().err
    assert error_line(message) == "error: iterations: the checkpoint is of iteration 12, a run of this length ends at 9"


def test_a_run_that_stopped_early_may_become_shorter(tmp_path):
    train(replace(CONFIG, epochs=None, iterations=6, keep=2, checkpoint_every=3), tmp_path / "run")
    start = tmp_path / "run" / "checkpoints" / "iteration-00000003.json"
    config = replace(resume_config(start), iterations=4)
    assert train(config, tmp_path / "on", resume=start).rows[-1].iteration == 4
    with pytest.raises(ConfigError, match="is of iteration 3, a run of this length ends at 2"):
        train(replace(config, iterations=2), tmp_path / "no", resume=start)
