"""Runs in processes of their own: results in order, progress, errors, and Ctrl-C that saves every run."""

from __future__ import annotations

import functools
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from minires.training import Interrupted, load_checkpoint
from minires.training.progress import Silent
from minires.training.side_by_side import side_by_side

SETTINGS = {"network": "resnet20", "data": "digits", "width": 4, "workers": 0, "batch_size": 64, "log_every": 5}


def square(number, report):
    report.start(0, 1)
    report.iteration(1, float(number), 0.0, 1.0)
    return number * number, os.getpid()


def fail(report):
    raise ValueError("no such luck")


def die(report):
    os._exit(7)


def patient(path, report):
    """Waits for SIGTERM and leaves a file."""
    signal.signal(signal.SIGTERM, lambda *_: path.write_text("stopped"))
    report.start(0, 1)
    while not path.exists():
        time.sleep(0.01)


def recording():
    """A report, and the messages that it receives."""
    report, messages = Silent(), []
    report.start = lambda *values: messages.append(("start", *values))
    report.iteration = lambda done, loss, *_: messages.append(("iteration", done, loss))
    return report, messages


@pytest.mark.parametrize("jobs", [1, 2])
def test_results_come_in_the_order_of_the_tasks(jobs):
    reports, messages = zip(*(recording() for _ in range(3)), strict=True)
    tasks = [functools.partial(square, number) for number in (3, 1, 2)]
    results = side_by_side(tasks, reports, jobs)
    assert [result for result, _ in results] == [9, 1, 4]
    assert [pid == os.getpid() for _, pid in results] == [jobs == 1] * 3
    assert list(messages) == [[("start", 0, 1), ("iteration", 1, float(number))] for number in (3, 1, 2)]


def test_the_first_error_stops_the_others(tmp_path):
    waiting = functools.partial(patient, tmp_path / "stopped")

    with pytest.raises(ValueError, match="no such luck") as caught:
        side_by_side([waiting, fail_after_start], [Silent()] * 2, 2)
    assert "fail_after_start" in "".join(caught.value.__notes__)
    assert (tmp_path / "stopped").read_text() == "stopped"


def fail_after_start(report):
    time.sleep(1.5)  # by then the other process waits
    fail(report)


def test_a_process_that_dies_is_an_error():
    with pytest.raises(RuntimeError, match="exit code 7"):
        side_by_side([die, die], [Silent()] * 2, 2)


def test_jobs_are_checked():
    with pytest.raises(ValueError, match="jobs must be at least 1, got 0"):
        side_by_side([fail], [Silent()], 0)


def test_interrupted_travels():
    stop = pickle.loads(pickle.dumps(Interrupted(7, None, Path("run"))))
    assert (stop.iteration, stop.checkpoint, stop.folder) == (7, None, Path("run"))


LONG = """
import functools, sys
from pathlib import Path
from minires.training import Config, train
from minires.training.progress import Silent
from minires.training.side_by_side import side_by_side

class Lines(Silent):
    def iteration(self, done, *rest):
        print("training", flush=True)

def run(folder, report):
    train(Config(**{settings!r}, iterations=100_000), folder, report=report)

if __name__ == "__main__":
    folders = [Path(sys.argv[1]) / name for name in "ab"]
    side_by_side([functools.partial(run, folder) for folder in folders], [Lines(), Lines()], 2)
"""


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="needs POSIX signals")
def test_ctrl_c_saves_every_run(tmp_path):
    """The whole foreground group gets SIGINT, as at a terminal."""
    script = tmp_path / "long.py"
    script.write_text(LONG.replace("{settings!r}", repr(SETTINGS)))
    process = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    deadline = time.monotonic() + 120
    while not all((tmp_path / name / "history.csv").exists() for name in "ab"):
        assert process.stdout.readline() == "training\n"
        assert time.monotonic() < deadline
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert errors.count("Traceback") == 1, errors  # of the one process that was asked
    assert "KeyboardInterrupt" in errors
    for name in "ab":
        assert load_checkpoint(next((tmp_path / name / "checkpoints").glob("*.json"))).iteration > 0
