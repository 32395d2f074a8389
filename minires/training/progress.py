"""Progress on stderr: a bar on a terminal, a plain line every few seconds elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Column

from minires.training.history import Row


class Silent:
    """Receives the progress of a run and shows nothing; subclasses show it."""

    def start(self, done: int, total: int) -> None:
        """The run starts with `done` of `total` iterations done."""

    def note(self, text: str) -> None:
        """A message for the user at the start of the run."""

    def iteration(self, done: int, loss: float, training_error: float, images_per_second: float) -> None:
        """One more iteration is done; loss and error (percent) are means since the last row."""

    def evaluating(self, done: int, total: int) -> None:
        """`done` of `total` test images are done."""

    def row(self, row: Row) -> None:
        """The history has a new row."""

    def stop(self) -> None:
        """The run has ended, with or without an error."""


class Lines(Silent):
    """A plain line every few seconds, and one for each evaluation."""

    def __init__(self, out: TextIO, every: float = 5.0, label: str = "") -> None:
        self.out, self.every, self.label = out, every, f"{label}: " if label else ""

    def start(self, done: int, total: int) -> None:
        self.first, self.done, self.total = done, done, total
        self.began = self.last = time.monotonic()

    def note(self, text: str) -> None:
        print(f"{self.label}{text}", file=self.out, flush=True)

    def iteration(self, done: int, loss: float, training_error: float, images_per_second: float) -> None:
        self.done = done
        if self._due():
            self._print(f"loss {loss:.4f}  training error {training_error:.2f} %  {images_per_second:,.0f} images/s")

    def evaluating(self, done: int, total: int) -> None:
        if done < total and self._due():
            self._print(f"evaluating {done:,} of {total:,} test images")

    def row(self, row: Row) -> None:
        if row.test_error is not None and (self._due() or row.iteration == self.total):
            self._print(
                f"epoch {row.epoch:.1f}  loss {row.training_loss:.4f}  training error {row.training_error:.2f} %  "
                f"test error {row.test_error:.2f} %  {row.images_per_second:,.0f} images/s"
            )

    def _due(self) -> bool:
        return time.monotonic() - self.last >= self.every

    def _print(self, text: str) -> None:
        self.last = time.monotonic()
        left = (self.last - self.began) / max(1, self.done - self.first) * (self.total - self.done)
        place = f"iteration {self.done:,}/{self.total:,}"
        print(f"{self.label}{place}  {text}  {_clock(left)} left", file=self.out, flush=True)


class Bar(Silent):
    """A bar with throughput, loss, errors and the time left."""

    def __init__(self, progress: Progress, label: str = "") -> None:
        self.progress = progress
        self.task = progress.add_task(label, text="", start=False, total=None, visible=False)
        self.test_error = self.training = ""

    def start(self, done: int, total: int) -> None:
        self.progress.update(self.task, total=total, completed=done, visible=True)
        self.progress.start_task(self.task)

    def note(self, text: str) -> None:
        self.progress.console.print(text, highlight=False)

    def iteration(self, done: int, loss: float, training_error: float, images_per_second: float) -> None:
        self.training = f"{images_per_second:,.0f} images/s  loss {loss:.3f}  error {training_error:.2f} % training"
        self.progress.update(self.task, completed=done, text=self.training + self.test_error)

    def evaluating(self, done: int, total: int) -> None:
        self.progress.update(self.task, text=f"{self.training}  testing {100 * done / total:.0f} %")

    def row(self, row: Row) -> None:
        if row.test_error is not None:
            self.test_error = f", {row.test_error:.2f} % test"
        self.progress.update(self.task, text=self.training + self.test_error)


@contextmanager
def on_stderr(labels: Sequence[str] = ("",)) -> Iterator[list[Silent]]:
    """A report for each label: bars below one another on a terminal, lines elsewhere."""
    if sys.stderr.isatty():
        with _bars(TextColumn("{task.fields[text]}", table_column=Column()), described=any(labels)) as progress:
            yield [Bar(progress, label) for label in labels]
    else:
        yield [Lines(sys.stderr, label=label) for label in labels]


@contextmanager
def counting(unit: str, total: int, every: float = 5.0) -> Iterator[Callable[[], None]]:
    """A function to call after each of `total` items of a loop outside training; `unit` names the items.

    every   seconds between lines, where stderr is no terminal
    """
    if sys.stderr.isatty():
        with _bars(TextColumn(unit)) as progress:
            task = progress.add_task("", total=total)
            yield lambda: progress.advance(task)
        return
    done, last = 0, time.monotonic()

    def count() -> None:
        nonlocal done, last
        done += 1
        if done < total and time.monotonic() - last >= every:
            last = time.monotonic()
            print(f"{done:,} of {total:,} {unit}", file=sys.stderr, flush=True)

    yield count


def _bars(text: ProgressColumn, described: bool = False) -> Progress:
    """Bars on stderr; on a narrow terminal the text alone wraps.  stdout is not redirected: it may hold results."""
    whole = Column(no_wrap=True)
    columns = (
        *([TextColumn("{task.description}")] if described else []),
        BarColumn(bar_width=24),
        MofNCompleteColumn(table_column=whole),
        text,
        TimeRemainingColumn(elapsed_when_finished=True, table_column=whole),
    )
    return Progress(*columns, console=Console(file=sys.stderr), refresh_per_second=4, redirect_stdout=False)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
