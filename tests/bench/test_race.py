"""Contenders in processes of their own: turns, errors, memory, and computation out of turn."""

from __future__ import annotations

import itertools
import os
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from minires.bench import machine, race
from minires.bench.race import Contender, workers


class Sleeper:
    """Sleeps, and logs the times."""

    def __init__(self, log, seconds, busy=0.0):
        self.log, self.seconds, self.busy = log, seconds, busy

    def run(self):
        began = time.monotonic()
        time.sleep(self.seconds)
        with open(self.log, "a") as file:
            file.write(f"{os.getpid()} {began} {time.monotonic()}\n")
        if self.busy:
            threading.Thread(target=self.spin, daemon=True).start()

    def spin(self):
        until = time.monotonic() + self.busy
        while time.monotonic() < until:
            pass

    def variable(self, name):
        return os.getpid(), os.environ.get(name)

    def hold(self, mebibytes):
        np.ones(mebibytes << 20, np.uint8)


def broken():
    raise ValueError("no such luck")


def absent(reason):
    raise race.CannotTakePart(reason)


def die():
    os._exit(7)


@pytest.fixture
def one(tmp_path):
    return Contender("one", partial(Sleeper, tmp_path / "log", 0.001))


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(race, "TURN", 0.02)
    monkeypatch.setattr(race, "REST", 0.01)


def test_turns_alternate_and_never_overlap(quick, tmp_path):
    log = tmp_path / "log"
    with workers([Contender(name, partial(Sleeper, log, s)) for name, s in (("slow", 0.02), ("fast", 0.005))]) as sides:
        names = {str(side.ask("variable", "")[0]): side.name for side in sides}
        log.unlink(missing_ok=True)
        seconds = race.race(sides, ("run",), rounds=4, budget=60)["run"]
    assert {name: len(taken) for name, taken in seconds.items()} == {"slow": 4, "fast": 4}
    assert 0.005 <= min(seconds["fast"]) < 0.02 <= min(seconds["slow"])
    calls = [line.split() for line in log.read_text().splitlines()]
    for (_, _, ended), (_, began, _) in itertools.pairwise(calls):
        assert float(ended) <= float(began)
    turns = [names[pid] for pid, _, _ in calls]
    assert turns.count("slow") == turns.count("fast")
    warm_up, counted = turns[: 2 * race.WARM_UP], turns[2 * race.WARM_UP :]
    assert warm_up == ["slow", "fast"] * race.WARM_UP
    firsts = [name for name, before in zip(counted, [None, *counted], strict=False) if name != before]
    assert firsts == ["slow", "fast", "slow", "fast", "slow"]  # in every other round the order is reversed


def test_a_budget_ends_the_race_but_not_before_three_rounds(quick, one):
    with workers([one]) as sides:
        assert len(race.race(sides, ("run",), rounds=50, budget=0)["run"]["one"]) == race.FEWEST
        assert len(race.race(sides, ("run",), rounds=1, budget=0)["run"]["one"]) == 1


@pytest.mark.parametrize(
    ("seconds", "calls"), [([2.0, 3.0], 1), ([0.2, 0.001], 3), ([0.5, 0.09], 2), ([0.001, 0.002], 126)]
)
def test_how_often_a_turn_calls(seconds, calls):
    assert race._calls(seconds, 0.25) == calls


def test_of_several_calls_the_first_does_not_count(quick, one, monkeypatch):
    with workers([one]) as (side,):
        monkeypatch.setattr(side, "answer", lambda: [9.0, 1.0, 2.0, 4.0])
        assert side.turn({"run": 4}) == {"run": 2.0}


def test_a_process_has_its_own_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("MINIRES_TEST", "outer")
    log = tmp_path / "log"
    sides = [
        Contender("changed", partial(Sleeper, log, 0), {"MINIRES_TEST": "inner", "MINIRES_OTHER": "1"}),
        Contender("same", partial(Sleeper, log, 0)),
    ]
    with workers(sides) as (changed, same):
        assert changed.ask("variable", "MINIRES_TEST")[1] == "inner"
        assert same.ask("variable", "MINIRES_TEST")[1] == "outer"
        assert same.ask("variable", "MINIRES_OTHER")[1] is None
        pids = {changed.ask("variable", "")[0], same.ask("variable", "")[0], os.getpid()}
    assert len(pids) == 3
    assert os.environ["MINIRES_TEST"] == "outer"
    assert "MINIRES_OTHER" not in os.environ


def test_an_error_names_its_side():
    with pytest.raises(ValueError, match="no such luck") as caught, workers([Contender("unlucky", broken)]):
        pass
    assert "in the process of unlucky" in caught.value.__notes__
    ended = "dying: its process ended with exit code 7"
    with pytest.raises(ChildProcessError, match=ended), workers([Contender("dying", die)]):
        pass


def test_a_side_that_cannot_take_part_is_left_out_with_its_reason(quick, one):
    given = [one, Contender("absent", partial(absent, "no compiler"))]
    left_out = {}
    with workers(given, left_out) as ready:
        assert [worker.name for worker in ready] == ["one"]
        assert len(race.race(ready, ("run",), rounds=1, budget=0)["run"]["one"]) == 1
    assert left_out == {"absent": "no compiler"}
    with pytest.raises(race.CannotTakePart, match="no compiler"), workers(given):
        pass


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="writes /proc")
def test_peak_memory_is_of_that_process_alone(tmp_path):
    np.ones(400 << 20, np.uint8)  # of ours, before
    with workers([Contender(name, partial(Sleeper, tmp_path / "log", 0)) for name in ("small", "large")]) as (
        small,
        large,
    ):
        small.ask("hold", 1)
        large.ask("hold", 200)
        difference = large.usage()[0] - small.usage()[0]
    assert 190 << 20 < difference < 210 << 20


def test_computation_out_of_turn_is_measured(monkeypatch, tmp_path):
    """The rest absorbs threads that spin for a while after a turn, not longer spinning."""
    log = tmp_path / "log"
    sides = [Contender(name, partial(Sleeper, log, 0.02, busy)) for name, busy in (("polite", 0.03), ("rude", 30.0))]
    with workers(sides) as (polite, rude):
        race.race([polite, rude], ("run",), rounds=2, budget=0)
        assert polite.usage()[1] < 0.03
        assert rude.usage()[1] > 0.1


def test_the_share_of_others_is_what_is_not_ours(monkeypatch):
    busy, own, now = [100.0], [10.0], [50.0]
    monkeypatch.setattr(machine, "_busy_seconds", lambda: busy[0])
    monkeypatch.setattr(machine.os, "times", lambda: (own[0], 0.0, 0.0, 0.0, 0.0))
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda pid: {0, 1}, raising=False)
    monkeypatch.setattr(machine.time, "monotonic", lambda: now[0])
    others = machine.Others()
    busy[0], own[0], now[0] = 112.0, 18.0, 60.0  # of 2 · 10 seconds 12 were busy, 8 of them ours
    assert others.share() == pytest.approx(0.2)
    own[0] = 24.0  # the clocks differ by a tick
    assert others.share() == 0
    busy[0] = None
    assert others.share() is None
