"""The calculation for many GPUs: benchmarks/README.md shows what the command prints, as the formula gives it."""

from __future__ import annotations

from pathlib import Path

import pytest

from minires.bench.report import markdown
from minires.models import create

ROOT = Path(__file__).parents[2]


@pytest.fixture
def parallel(benchmarks):
    return benchmarks("parallel")


def test_readme_shows_it(parallel):
    text = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    assert markdown((parallel.HEAD, parallel.expect())) in text


def test_the_parameters_are_resnet50s(parallel):
    assert sum(p.size for p in create("resnet50").parameters()) == parallel.PARAMETERS


def test_by_hand(parallel):
    """1,024 GPUs at 25 GB/s: 4 · (2 · 1023/1024 · 25.56 MB / 25 GB/s + 2046 · 5 µs) = 49.1 ms, of which a step of 80 ms
    hides all but the last quarter."""
    row = next(row for row in parallel.expect() if row[0] == "1,024" and row[2] == "400")
    assert row[3:7] == ["80.0 ms", "49.1 ms", "12.3 ms", "87 %"]


def test_alone_there_is_nothing_to_wait_for(monkeypatch, parallel):
    monkeypatch.setattr(parallel, "LINKS", ((1, "nothing", 1.0, 1.0),))
    assert [row[6] for row in parallel.expect()] == ["100 %"] * len(parallel.SPEEDS)


def test_what_is_not_hidden_grows_with_the_network_slower_than_backward(monkeypatch, parallel):
    monkeypatch.setattr(parallel, "LINKS", ((64, "slow", 1.25e9, 0.0),))
    (row, _) = parallel.expect()
    sums, exposed = (float(cell.split()[0]) for cell in row[4:6])
    backward = 2 / 3 * 80
    assert exposed == pytest.approx(sums - 3 / 4 * backward, abs=0.1)
