"""Closed and full streams: training survives a lost message; a result that cannot be printed is an error."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from minires.training import find_checkpoint, load_checkpoint

pytestmark = pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")

TRAIN = "train --iterations 2 --width 1 --workers 0 --log-every 1 --out run"


def run(words, redirection, folder):
    command = f'exec "{sys.executable}" -m minires {words} {redirection}'
    return subprocess.run(["sh", "-c", command], capture_output=True, text=True, cwd=folder)


@pytest.mark.parametrize("redirection", ["2>/dev/full", "2>&-"])
def test_training_continues_without_stderr(tmp_path, redirection):
    ended = run(TRAIN, redirection, tmp_path)
    assert ended.returncode == 0
    assert ended.stdout.splitlines()[0].split() == ["history", "run/history.csv"]  # stdout holds no progress
    assert load_checkpoint(find_checkpoint(tmp_path / "run")).iteration == 2


def test_the_exit_code_of_an_error_survives_a_full_stderr(tmp_path):
    assert run("train --iterations 0", "2>/dev/full", tmp_path).returncode == 2


def test_training_without_stdout_completes_and_exits_with_1(tmp_path):
    ended = run(TRAIN, ">&-", tmp_path)
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1] == "error: stdout is closed: the result cannot be printed"
    assert load_checkpoint(find_checkpoint(tmp_path / "run")).iteration == 2


@pytest.mark.parametrize(
    ("redirection", "expected"),
    [
        (">&-", "error: stdout is closed: the result cannot be printed\n"),
        (">/dev/full", "error: [Errno 28] No space left on device\n"),
    ],
)
def test_a_result_that_cannot_be_printed_is_exit_1(tmp_path, redirection, expected):
    for words in ("kernels", "models resnet20 --json"):
        ended = run(words, redirection, tmp_path)
        assert (ended.returncode, ended.stderr) == (1, expected), words
