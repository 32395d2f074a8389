"""A race: every side computes in a process of its own, and they take turns, one at a time.

Processes of their own, because sides in one process would inherit each other's memory, and because the threads of one
side's pool spin for a while after its work and would take the processors from the next.  So before each turn there is
a short rest, in which they fall asleep.  That they did is measured: a side tells how long it computed after its rest.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import math
import multiprocessing
import os
import resource
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from minires.training.side_by_side import interrupts_ignored

REST = 0.1  # seconds before a turn: OpenBLAS's and onnxruntime's threads spin for some 50 ms, OpenMP's for less
TURN = 0.25  # seconds that a turn should last
COLD = 0.1  # seconds of a call beside which caches that others have filled don't matter
WARM_UP = 2  # rounds that don't count
FEWEST = 3  # rounds that count, even if the time is over


class CannotTakePart(RuntimeError):
    """A side cannot be made on this machine."""


@dataclass(frozen=True)
class Side:
    """Who takes part.

    make          makes the object whose methods are called, in the side's process (a partial that pickle can name)
    environment   variables of that process, beside those of this one
    """

    name: str
    make: Callable[[], Any]
    environment: Mapping[str, str] = field(default_factory=dict)


class Player:
    """A side's process, seen from here."""

    def __init__(self, side: Side) -> None:
        self.name = side.name
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, side.make), daemon=True)
        with _environment(side.environment), interrupts_ignored():
            self.process.start()
        theirs.close()

    def ask(self, method: str, *arguments: Any) -> Any:
        """What the side's method returns."""
        self.pipe.send((method, arguments, 0))
        return self.answer()

    def turn(self, calls: Mapping[str, int]) -> dict[str, float]:
        """After a rest, each method as often as said: the median of its seconds.

        Of several calls the first, which finds cold caches, does not count.
        """
        time.sleep(REST)
        found = {}
        for method, times in calls.items():
            self.pipe.send((method, (), times))
            seconds = self.answer()
            found[method] = statistics.median(seconds[1:] or seconds)
        return found

    def answer(self) -> Any:
        try:
            kind, value = self.pipe.recv()
        except EOFError:
            self.process.join()
            told = f"{self.name}: its process ended with exit code {self.process.exitcode}"
            raise ChildProcessError(told) from None
        if kind == "error":
            value.add_note(f"in the process of {self.name}")
            raise value
        return value

    def usage(self) -> tuple[int, float]:
        """The peak of its memory in bytes since it was ready, and the seconds of processor that it took out of turn."""
        self.pipe.send((None, (), 0))
        peak, idle = self.answer()
        return peak, idle

    def end(self) -> None:
        self.process.join(5)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


@contextlib.contextmanager
def players(sides: Sequence[Side], left_out: dict[str, str] | None = None) -> Iterator[list[Player]]:
    """The processes of these sides, all of them ready.

    left_out   receives name -> reason of each side that raises CannotTakePart; None: the exception is raised
    """
    started: list[Player] = []
    ready: list[Player] = []
    try:
        for side in sides:
            started.append(Player(side))
        for player in started:
            try:
                player.answer()
                ready.append(player)
            except CannotTakePart as reason:
                if left_out is None:
                    raise
                left_out[player.name] = str(reason)
        yield ready
    finally:
        for player in started:
            player.pipe.close()  # on which the process ends
        for player in started:
            player.end()


def race(
    sides: Sequence[Player], methods: Sequence[str], rounds: int, budget: float
) -> dict[str, dict[str, list[float]]]:
    """For each method the seconds of each side, a number a round.

    methods   what a side computes in its turn, one after the other
    rounds    at most so many that count
    budget    seconds after which no further round begins, once FEWEST (or `rounds`) have counted

    All sides make the same number of calls in a turn.
    """
    began = time.monotonic()
    for _ in range(WARM_UP):
        first = [player.turn(dict.fromkeys(methods, 1)) for player in sides]
    calls = {method: _calls([found[method] for found in first], TURN / len(methods)) for method in methods}
    seconds: dict[str, dict[str, list[float]]] = {m: {player.name: [] for player in sides} for m in methods}
    for number in range(rounds):
        if number >= FEWEST and time.monotonic() - began > budget:
            break
        for player in sides if number % 2 == 0 else sides[::-1]:  # nobody is always first
            for method, taken in player.turn(calls).items():
                seconds[method][player.name].append(taken)
    return seconds


def _calls(seconds: Sequence[float], turn: float) -> int:
    """One, where a cold start matters to nobody; else one more than the slowest side needs to fill its turn."""
    return 1 if min(seconds) > COLD else 1 + math.ceil(turn / max(seconds))


def statistics_of(seconds: Sequence[float], operations: int) -> dict[str, Any]:
    """What is told of a side's rounds: the median, its rate, and how far the rounds lie apart."""
    median = statistics.median(seconds)
    return {
        "seconds": median,
        "gflops": operations / median / 1e9,
        "fastest": min(seconds),
        "slowest": max(seconds),
        "rounds": len(seconds),
    }


@contextlib.contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """What a process that is started now inherits."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in variables:
            os.environ.pop(name)
            if name in before:
                os.environ[name] = before[name]


# -- in the side's process


def _serve(pipe: Connection, make: Callable[[], Any]) -> None:
    """Does what it is asked to, one request at a time, until nobody is left who asks."""
    made: list[Any] = []
    idle = 0.0
    with contextlib.suppress(EOFError, OSError):  # of the pipe
        pipe.send(_answer(lambda: made.append(make())))
        gc.collect()
        forget_peak()
        while True:
            pipe.poll(REST)
            stopped = time.process_time()
            method, arguments, calls = pipe.recv()
            idle += time.process_time() - stopped
            if method is None:
                pipe.send(("answer", (peak_bytes(), idle)))
            else:
                call = functools.partial(getattr(made[0], method), *arguments)
                pipe.send(_answer(functools.partial(_seconds, call, calls) if calls else call))


def _answer(work: Callable[[], Any]) -> tuple[str, Any]:
    try:
        return "answer", work()
    except Exception as error:
        error.add_note(traceback.format_exc())  # a traceback does not travel
        return "error", error


def _seconds(call: Callable[[], Any], calls: int) -> list[float]:
    taken = []
    for _ in range(calls):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return taken


def forget_peak() -> None:
    """Has the peak of this process's memory begin anew, where the system can do that."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_bytes() -> int:
    """The most memory that this process has held.

    Where the system tells it, not `ru_maxrss`: a process begins with that of the one that started it.
    """
    status = Path("/proc/self/status")
    if status.exists():
        told = dict(line.split(":", 1) for line in status.read_text().splitlines())
        if "VmHWM" in told:
            return 1024 * int(told["VmHWM"].split()[0])
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
