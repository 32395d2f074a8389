"""`python -m benchmarks.capture`: each side in a process of its own, a table, and a file with machine and date."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from minires import backends

pytestmark = pytest.mark.skipif(bool(backends.available()["native"]), reason="the native backend records")
ROOT = Path(__file__).parents[2]


@pytest.fixture
def call(benchmarks, monkeypatch, tmp_path):
    benchmark = benchmarks("capture")
    monkeypatch.setattr(benchmark, "RESULTS", tmp_path / "capture.json")
    threads = backends.get_num_threads()

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["capture", *map(str, words)])
        return benchmark.main()

    yield call
    backends.set_num_threads(threads)


def test_peaks_and_growth(call, capsys, tmp_path):
    assert call("--network", "resnet20", "--batch", 4, "--steps", 5, "--replays", 40, "--write") == 0
    out = capsys.readouterr().out
    stored = json.loads((tmp_path / "capture.json").read_text())
    assert (stored["network"], stored["batch"]) == ("resnet20", 4)
    assert {"date", "processor", "threads"} <= stored["machine"].keys()
    eager, captured = stored["sides"]["eager"], stored["sides"]["captured"]
    assert (eager["steps"], captured["steps"]) == (5, 40)
    for side in (eager, captured):
        assert 2**24 < side["peak_of_steps"] <= side["peak"] < 2**30
        assert f"{side['peak'] / 2**20:,.1f} MiB" in out
    assert captured["growth"] < 2**20


def test_fewer_steps_than_the_warm_up_are_wrong_usage(call, capsys, tmp_path):
    with pytest.raises(SystemExit, match="2"):
        call("--replays", 3)
    assert "--steps and --replays must be above 3" in capsys.readouterr().err
    assert not (tmp_path / "capture.json").exists()
