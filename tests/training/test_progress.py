"""Progress as plain lines: what they hold, how seldom they come."""

from __future__ import annotations

import io
import re
import sys
from types import SimpleNamespace

import pytest

from minires.training import Row, progress
from minires.training.progress import Lines


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is moved."""
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


def test_the_time_left_is_that_of_this_process(clock):
    """A run that goes on at 100 of 200 iterations: ten of them took 20 s, so that 90 take 180 s."""
    out = io.StringIO()
    lines = Lines(out, label="resnet20")
    lines.start(100, 200)
    clock.now += 20
    lines.iteration(110, 0.5, 12.5, 1234.5)
    assert out.getvalue() == (
        "resnet20: iteration 110/200  loss 0.5000  training error 12.50 %  1,234 images/s  3:00 left\n"
    )


def test_a_line_comes_every_few_seconds_and_at_the_end(clock):
    out = io.StringIO()
    lines = Lines(out, every=5.0)
    lines.start(0, 10)
    row = Row(9, 0.9, 0.1, 1.0, 30.0, 40.0, 100.0, 4.9)
    for seconds, expected in ((4.9, 0), (0.1, 1), (4.0, 1)):
        clock.now += seconds
        lines.iteration(1, 1.0, 50.0, 100.0)
        assert out.getvalue().count("\n") == expected
    lines.row(row)
    assert out.getvalue().count("\n") == 1  # 4 s after the last one
    lines.iteration(10, 1.0, 50.0, 100.0)
    lines.row(Row(10, 1.0, 0.1, 1.0, 30.0, 41.0, 100.0, 5.0))
    assert "iteration 10/10  epoch 1.0  loss 1.0000  training error 30.00 %  test error 41.00 %" in out.getvalue()
    assert out.getvalue().endswith("0:00 left\n")


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("width", [40, 80, 120])
def test_a_bar_cuts_no_number(monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stderr", Terminal())
    with progress.on_stderr() as (bar,):
        bar.start(0, 64_000)
        bar.iteration(64_000, 0.967, 33.59, 2053.0)
        bar.row(Row(64_000, 1.0, 0.1, 1.0, 33.59, 26.37, 2053.0, 3.0))
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", sys.stderr.getvalue())
    assert "…" not in text
    last = text[text.rindex("64000/64000") :]
    for expected in ("2,053 images/s", "0.967", "33.59", "26.37", "0:00:0"):
        assert all(word in last for word in expected.split()), (expected, text)


@pytest.mark.parametrize(
    ("seconds", "expected"), [(0.4, "0:00"), (59.6, "1:00"), (61, "1:01"), (3599.4, "59:59"), (3661, "1:01:01")]
)
def test_clock(seconds, expected):
    assert progress._clock(seconds) == expected
