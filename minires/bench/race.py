"""A race: every contender computes in a process of its own, and the contenders take turns.

In one process, contenders would inherit each other's memory.  The threads of a contender's pool spin for a while after
its work and would take the processors from the next contender.  So each turn begins with a short rest, in which these
threads fall asleep.  The race measures that they did: `Worker.usage` is the processor time used after the rest.
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

REST = 0.1  # seconds before a turn: threads of OpenBLAS and onnxruntime spin for some 50 ms, of OpenMP for less
TURN = 0.25  # seconds that a turn should last
COLD = 0.1  # seconds of a call; for longer calls it does not matter that other contenders have filled the caches
WARM_UP = 2  # rounds that are not counted
FEWEST = 3  # rounds that are counted even if the time is over


class CannotTakePart(RuntimeError):
    """A contender cannot be made on this machine."""


@dataclass(frozen=True)
class Contender:
    """One party of a race.

    make          makes the object whose methods are called, in the contender's process; pickle must be able to send it
    environment   variables of that process, in addition to this one's
    """

    name: str
    make: Callable[[], Any]
    environment: Mapping[str, str] = field(default_factory=dict)


class Worker:
    """A handle on a contender's process."""

    def __init__(self, contender: Contender) -> None:
        self.name = contender.name
        context = multiprocessing.get_context("spawn")
        self.pipe, far_end = context.Pipe()
        self.process = context.Process(target=_serve, args=(far_end, contender.make), daemon=True)
        with _environment(contender.environment), interrupts_ignored():
            self.process.start()
        far_end.close()

    def ask(self, method: str, *arguments: Any) -> Any:
        """Calls a method of the contender's object and returns its result."""
        self.pipe.send((method, arguments, 0))
        return self.answer()

    def turn(self, calls: Mapping[str, int]) -> dict[str, float]:
        """After a rest, calls each method the given number of times; the median of its seconds.

        The first of several calls finds cold caches and is not counted.
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
            ended = f"{self.name}: its process ended with exit code {self.process.exitcode}"
            raise ChildProcessError(ended) from None
        if kind == "error":
            value.add_note(f"in the process of {self.name}")
            raise value
        return value

    def usage(self) -> tuple[int, float]:
        """(peak memory in bytes since the contender was ready, processor seconds used outside its turns)"""
        self.pipe.send((None, (), 0))
        peak, idle = self.answer()
        return peak, idle

    def end(self) -> None:
        self.process.join(5)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


@contextlib.contextmanager
def workers(contenders: Sequence[Contender], left_out: dict[str, str] | None = None) -> Iterator[list[Worker]]:
    """The processes of these contenders, all of them ready.

    left_out   receives name -> reason of each contender that raises CannotTakePart; None: the exception is raised
    """
    started: list[Worker] = []
    ready: list[Worker] = []
    try:
        for contender in contenders:
            started.append(Worker(contender))
        for worker in started:
            try:
                worker.answer()
                ready.append(worker)
            except CannotTakePart as reason:
                if left_out is None:
                    raise
                left_out[worker.name] = str(reason)
        yield ready
    finally:
        for worker in started:
            worker.pipe.close()  # ends the process
        for worker in started:
            worker.end()


def race(
    ready: Sequence[Worker], methods: Sequence[str], rounds: int, budget: float
) -> dict[str, dict[str, list[float]]]:
    """For each method the seconds of each contender, one number a round.

    methods   called in each turn, one after the other
    rounds    at most this many are counted
    budget    seconds after which no further round begins, once FEWEST (or `rounds`) have been counted

    All contenders make the same number of calls in a turn.
    """
    began = time.monotonic()
    for _ in range(WARM_UP):
        first = [worker.turn(dict.fromkeys(methods, 1)) for worker in ready]
    calls = {method: _calls([found[method] for found in first], TURN / len(methods)) for method in methods}
    seconds: dict[str, dict[str, list[float]]] = {m: {worker.name: [] for worker in ready} for m in methods}
    for number in range(rounds):
        if number >= FEWEST and time.monotonic() - began > budget:
            break
        for worker in ready if number % 2 == 0 else ready[::-1]:  # the first place alternates
            for method, taken in worker.turn(calls).items():
                seconds[method][worker.name].append(taken)
    return seconds


def _calls(seconds: Sequence[float], turn: float) -> int:
    """Calls per turn: 1 for long calls, otherwise enough to fill a turn, plus one warm-up."""
    return 1 if min(seconds) > COLD else 1 + math.ceil(turn / max(seconds))


def statistics_of(seconds: Sequence[float], operations: int) -> dict[str, Any]:
    """Median, rate and spread of a contender's rounds."""
    median = statistics.median(seconds)
    spread = {"fastest": min(seconds), "slowest": max(seconds), "rounds": len(seconds)}
    return {"seconds": median, "gflops": operations / median / 1e9, **spread}


@contextlib.contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Sets variables for the processes that are started inside the context."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in variables:
            os.environ.pop(name)
            if name in before:
                os.environ[name] = before[name]


# -- in the contender's process


def _serve(pipe: Connection, make: Callable[[], Any]) -> None:
    """Makes the contender's object, then answers requests until the pipe is closed."""
    made: list[Any] = []
    idle = 0.0
    with contextlib.suppress(EOFError, OSError):  # raised by the closed pipe
        pipe.send(_answer(lambda: made.append(make())))
        gc.collect()
        reset_peak()
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
        error.add_note(traceback.format_exc())  # pickle drops the traceback
        return "error", error


def _seconds(call: Callable[[], Any], calls: int) -> list[float]:
    taken = []
    for _ in range(calls):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return taken


def reset_peak() -> None:
    """Restarts the measurement of this process's peak memory, where the system supports that."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_bytes() -> int:
    """The peak resident memory of this process.

    Read from /proc where possible: `ru_maxrss` of a process begins with that of its parent.
    """
    status = Path("/proc/self/status")
    if status.exists():
        fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
        if "VmHWM" in fields:
            return 1024 * int(fields["VmHWM"].split()[0])
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
