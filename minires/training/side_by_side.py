"""Runs several tasks at a time, each in its own process.

The matrix products of small networks are too small for two threads, but a second run uses the second thread.  Ctrl-C
reaches the parent alone, which asks the other processes to save and stop.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

from minires._checks import integer
from minires.backends import get_num_threads, set_num_threads
from minires.training.progress import Silent

T = TypeVar("T")


def side_by_side(tasks: Sequence[Callable[[Silent], T]], reports: Sequence[Silent], jobs: int | None = None) -> list[T]:
    """Calls every task with its report and returns the results in the order of the tasks.

    tasks   functions that pickle can name (partials of module functions); started in this order
    jobs    tasks at a time, each with its share of the threads; None: one for each thread.  With one job the tasks
            run in this process.

    An error of a task stops the other processes (by SIGTERM, on which a training run saves and stops) and is raised.
    KeyboardInterrupt stops them likewise.
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
                receiver, sender = context.Pipe(duplex=False)
                process = context.Process(target=_work, args=(sender, task, max(1, threads // jobs)))
                with interrupts_ignored():  # inherited by the process
                    process.start()
                sender.close()
                running[receiver] = number, process
            for pipe in wait(list(running)):
                assert isinstance(pipe, Connection)
                number, process = running[pipe]
                kind, values = _message(pipe, process)
                if kind == "result":
                    results[number] = values
                    del running[pipe]
                else:
                    getattr(reports[number], kind)(*values)
    finally:  # after an error some processes still run
        _stop(running)
    return [results[number] for number in range(len(tasks))]


def _message(pipe: Connection, process: Any) -> tuple[str, Any]:
    """The next message of a process; its error is raised here."""
    try:
        kind, values = pipe.recv()
    except EOFError:
        process.join()
        raise RuntimeError(f"a process ended without a result, with exit code {process.exitcode}") from None
    if kind in ("error", "result"):
        process.join()
    if kind == "error":
        raise values
    return kind, values


def _stop(running: dict[Connection, tuple[int, Any]]) -> None:
    """Terminates the processes, and reads their last messages, since a full pipe would block a process."""
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
    """Processes started in this context ignore Ctrl-C, which a terminal sends to the whole group."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    outer = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, outer)


def _work(pipe: Connection, task: Callable[[Silent], Any], threads: int) -> None:
    """The main function of a process: sends the task's progress, then its result or its error."""
    set_num_threads(threads)
    try:
        message = "result", task(_sender(pipe))
    except Exception as error:
        error.add_note(traceback.format_exc())  # pickle drops the traceback
        message = "error", error
    with contextlib.suppress(OSError):  # the parent may have ended
        pipe.send(message)


def _sender(pipe: Connection) -> Silent:
    """A report that sends its calls to the parent process, frequent calls five times a second at most."""
    report, last, connected = Silent(), 0.0, True

    def send(kind: str, *values: Any) -> None:
        nonlocal last, connected
        if kind in ("iteration", "evaluating"):
            if time.monotonic() - last < 0.2:
                return
            last = time.monotonic()
        try:
            if connected:
                pipe.send((kind, values))
        except OSError:  # the parent has ended: save and stop
            connected = False
            signal.raise_signal(signal.SIGTERM)

    for kind in (name for name in vars(Silent) if not name.startswith("_")):
        setattr(report, kind, partial(send, kind))
    return report
