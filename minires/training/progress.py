"""Progress on stderr: a bar on a terminal, a plain line every few seconds elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from minires.training.history import Row

if TYPE_CHECKING:
    from rich.progress import Progress


class Silent:
    """Hears what happens and says nothing; the others say it their way."""

    def start(self, done: int, total: int) -> None:
        """The run stands at `done` of `total` iterations."""

    def note(self, text: str) -> None:
        """Something that the user must see before the run goes on."""

    def iteration(self, done: int, loss: float, training_error: float, images_per_second: float) -> None:
        """One more iteration; loss and error (percent) are means since the last row."""

    def evaluating(self, done: int, total: int) -> None:
        """So many of the test images are done."""

    def row(self, row: Row) -> None:
        """The history has a new row."""

    def stop(self) -> None:
        """The run has ended, whichever way."""


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
        if time.monotonic() - self.last >= self.every:
            self._say(f"loss {loss:.4f}  training error {training_error:.2f} %  {images_per_second:,.0f} images/s")

    def evaluating(self, done: int, total: int) -> None:
        if done < total and time.monotonic() - self.last >= self.every:
            self._say(f"evaluating {done:,} of {total:,} test images")

    def row(self, row: Row) -> None:
        if row.test_error is not None and (time.monotonic() - self.last >= self.every or row.iteration == self.total):
            self._say(
                f"epoch {row.epoch:.1f}  loss {row.training_loss:.4f}  training error {row.training_error:.2f} %  "
                f"test error {row.test_error:.2f} %  {row.images_per_second:,.0f} images/s"
            )

    def _say(self, text: str) -> None:
        self.last = time.monotonic()
        left = (self.last - self.began) / max(1, self.done - self.first) * (self.total - self.done)
        where = f"{self.label}iteration {self.done:,}/{self.total:,}"
        print(f"{where}  {text}  {_clock(left)} left", file=self.out, flush=True)


class Bar(Silent):
    """A bar with throughput, loss, errors and the time left."""

    def __init__(self, progress: Progress, label: str = "") -> None:
        self.progress = progress
        self.task = progress.add_task(label, told="", start=False, total=None, visible=False)
        self.test_error = self.training = ""

    def start(self, done: int, total: int) -> None:
        self.progress.update(self.task, total=total, completed=done, visible=True)
        self.progress.start_task(self.task)

    def note(self, text: str) -> None:
        self.progress.console.print(text, highlight=False)

    def iteration(self, done: int, loss: float, training_error: float, images_per_second: float) -> None:
        self.training = f"{images_per_second:,.0f} images/s  loss {loss:.3f}  error {training_error:.2f} % training"
        self.progress.update(self.task, completed=done, told=self.training + self.test_error)

    def evaluating(self, done: int, total: int) -> None:
        self.progress.update(self.task, told=f"{self.training}  testing {100 * done / total:.0f} %")

    def row(self, row: Row) -> None:
        if row.test_error is not None:
            self.test_error = f", {row.test_error:.2f} % test"
        self.progress.update(self.task, told=self.training + self.test_error)


@contextmanager
def on_stderr(labels: Sequence[str] = ("",)) -> Iterator[list[Silent]]:
    """A report for each label: bars below one another where stderr is a terminal, lines elsewhere."""
    if not sys.stderr.isatty():
        yield [Lines(sys.stderr, label=label) for label in labels]
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.table import Column

    whole = Column(no_wrap=True)  # where the terminal is narrow, the text alone takes more lines
    columns = (
        *([TextColumn("{task.description}")] if any(labels) else []),
        BarColumn(bar_width=24),
        MofNCompleteColumn(table_column=whole),
        TextColumn("{task.fields[told]}", table_column=Column()),
        TimeRemainingColumn(elapsed_when_finished=True, table_column=whole),
    )
    with Progress(*columns, console=Console(file=sys.stderr), refresh_per_second=4) as progress:
        yield [Bar(progress, label) for label in labels]


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
