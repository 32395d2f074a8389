"""Several runs at a time, each in a process of its own.

Small networks leave a second thread with nothing to do (their matrix products are too small to share), but a second
run fills it.  Ctrl-C reaches this process alone, which asks the others to save and stop.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

from minires._checks import integer
from minires.backends import get_num_threads, set_num_threads
from minires.training.history import Row
from minires.training.progress import Silent

T = TypeVar("T")


def side_by_side(tasks: Sequence[Callable[[Silent], T]], reports: Sequence[Silent], jobs: int | None = None) -> list[T]:
    """Runs every task with its report and returns what they return, in their order.

    tasks   functions that pickle can name (partials of module functions); they are begun in this order
    jobs    how many run at a time, each with its share of the threads; None: one a thread.  With one job the tasks
            run in this process.

    The first task that fails has the others stopped (they receive SIGTERM, on which a training run saves and stops);
    then its error is raised.  The same happens on KeyboardInterrupt.
    """
    threads = get_num_threads()
    jobs = min(threads if jobs is None else integer(jobs, "jobs", 1), max(1, len(tasks)))
    if jobs == 1:
        return [task(report) for task, report in zip(tasks, reports, strict=True)]
    context = multiprocessing.get_context("spawn")  # a fork would copy BLAS's threads in an unknown state
    waiting = list(enumerate(tasks))[::-1]
    running: dict[Connection, tuple[int, Any]] = {}
    results: dict[int, T] = {}
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                number, task = waiting.pop()
                ours, theirs = context.Pipe(duplex=False)
                process = context.Process(target=_work, args=(theirs, task, max(1, threads // jobs)))
                with interrupts_ignored():  # inherited: at the terminal Ctrl-C goes to every process
                    process.start()
                theirs.close()
                running[ours] = number, process
            for pipe in wait(list(running)):
                assert isinstance(pipe, Connection)
                number, process = running[pipe]
                if _hear(pipe, process, reports[number], number, results):
                    del running[pipe]
    finally:  # nothing runs any longer, unless something went wrong
        _stop(running)
    return [results[number] for number in range(len(tasks))]


def _hear(pipe: Connection, process: Any, report: Silent, number: int, results: dict[int, T]) -> bool:
    """Takes one message of a process; whether it was its last."""
    try:
        kind, values = pipe.recv()
    except EOFError:
        process.join()
        raise RuntimeError(f"a process ended without a result, with exit code {process.exitcode}") from None
    if kind == "error":
        process.join()
        raise values
    if kind == "result":
        process.join()
        results[number] = values
        return True
    getattr(report, kind)(*values)
    return False


def _stop(running: dict[Connection, tuple[int, Any]]) -> None:
    """Asks what still runs to save and stop, and hears it out, so that no process waits for a reader."""
    for _, process in running.values():
        process.terminate()
    try:
        for pipe, (_, process) in running.items():
            with contextlib.suppress(EOFError, OSError):
                while True:
                    pipe.recv()
            process.join()
    except BaseException:  # a second Ctrl-C
        for _, process in running.values():
            process.kill()
        raise


@contextlib.contextmanager
def interrupts_ignored() -> Iterator[None]:
    """A process that is started within it is not reached by Ctrl-C: the one that started it decides."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    outer = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, outer)


def _work(pipe: Connection, task: Callable[[Silent], Any], threads: int) -> None:
    """What a process does: one task, its progress, its result or its error."""
    set_num_threads(threads)
    try:
        message = "result", task(_Sender(pipe))
    except Exception as error:
        error.add_note(traceback.format_exc())  # a traceback does not travel
        message = "error", error
    with contextlib.suppress(OSError):  # nobody listens any longer
        pipe.send(message)


class _Sender(Silent):
    """Sends progress to the process that shows it, a few times a second."""

    def __init__(self, pipe: Connection) -> None:
        self.pipe, self.last = pipe, 0.0

    def start(self, done: int, total: int) -> None:
        self._send("start", done, total)

    def note(self, text: str) -> None:
        self._send("note", text)

    def iteration(self, done: int, loss: float, training_error: float, images_per_second: float) -> None:
        self._now_and_then("iteration", done, loss, training_error, images_per_second)

    def evaluating(self, done: int, total: int) -> None:
        self._now_and_then("evaluating", done, total)

    def row(self, row: Row) -> None:
        self._send("row", row)

    def stop(self) -> None:
        self._send("stop")

    def _now_and_then(self, kind: str, *values: Any) -> None:
        if time.monotonic() - self.last >= 0.2:
            self.last = time.monotonic()
            self._send(kind, *values)

    def _send(self, kind: str, *values: Any) -> None:
        try:
            self.pipe.send((kind, values))
        except OSError:  # the process that began this one is gone: save and stop
            signal.raise_signal(signal.SIGTERM)
            self._send = lambda *_: None  # type: ignore[method-assign]
