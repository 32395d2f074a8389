"""The history of a run, as CSV and as curves: one row for every logging interval and every evaluation."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, fields
from operator import attrgetter
from pathlib import Path
from typing import Any

from minires._atomic import read_bytes, write_bytes, write_text
from minires._checks import integer
from minires._plotting import encoded
from minires._repr import shown

_LARGEST = 32 << 20  # bytes: more rows than a checkpoint holds


@dataclass(frozen=True)
class Metrics:
    """Sums over training images, measured before the update.

    loss     of the cross-entropy
    wrong    images whose label is not the highest logit
    images   how many
    """

    loss: float = 0.0
    wrong: int = 0
    images: int = 0

    def __add__(self, other: Metrics) -> Metrics:
        return Metrics(self.loss + other.loss, self.wrong + other.wrong, self.images + other.images)


@dataclass(frozen=True)
class Row:
    """The measurements up to one iteration.

    iteration           updates done
    epoch               passes through the training set
    lr                  learning rate of the last update
    training_loss       mean over the images since the previous row, with augmentation
    training_error      percent, likewise
    test_error          percent of the whole test set; None without an evaluation
    images_per_second   training throughput since the previous row, without the evaluation
    seconds             training time without interruptions
    """

    iteration: int
    epoch: float
    lr: float
    training_loss: float
    training_error: float
    test_error: float | None
    images_per_second: float
    seconds: float


class History(tuple[Row, ...]):
    """The rows of a run in order.  `repr` shows the last one."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<history of {len(self)} row{'s' * (len(self) != 1)}{f'; {self.last()}' if self else ''}>"

    def last(self) -> str:
        """A summary of the newest row."""
        if not self:
            return "nothing measured yet"
        row = self[-1]
        test = "" if row.test_error is None else f", test error {row.test_error:.2f} %"
        return f"iteration {row.iteration:,}, epoch {row.epoch:.4g}, training loss {row.training_loss:.4g}{test}"


COLUMNS = tuple(field.name for field in fields(Row))


def best(rows: Iterable[Row]) -> Row | None:
    """The row with the lowest test error, the earliest of equal rows; None without a test error."""
    measured = [row for row in rows if row.test_error is not None]
    return min(measured, key=attrgetter("test_error"), default=None)


def to_csv(rows: Iterable[Row]) -> str:
    """A header and one line a row, with numbers in full precision and an empty field for None."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(["" if value is None else repr(value) for value in astuple(row)] for row in rows)
    return out.getvalue()


def from_csv(text: str) -> list[Row]:
    """The rows that `to_csv` wrote.  Raises ValueError that names an invalid line."""
    lines = list(csv.reader(io.StringIO(text)))
    if not lines or tuple(lines[0]) != COLUMNS:
        raise ValueError(f"the first line of a history must be {','.join(COLUMNS)}")
    return [row(line, f"line {number}") for number, line in enumerate(lines[1:], start=2)]


def row(values: Iterable[Any], place: str) -> Row:
    """A Row of its values in order, as numbers or as text."""
    values = list(values)
    try:
        if len(values) != len(COLUMNS):
            raise ValueError
        iteration, epoch, lr, loss, training_error, test_error, speed, seconds = values
        test = None if test_error in ("", None) else float(test_error)
        rest = float(epoch), float(lr), float(loss), float(training_error), test, float(speed), float(seconds)
        if not all(value is None or math.isfinite(value) for value in rest):
            raise ValueError
        return Row(integer(int(iteration), "iteration", 0), *rest)
    except (OverflowError, TypeError, ValueError):
        raise ValueError(f"{place} of the history must hold {', '.join(COLUMNS)}; got {shown(values)}") from None


def read(path: Path) -> list[Row]:
    """The rows of a history file."""
    return from_csv(read_bytes(path, _LARGEST).decode())


def write(path: Path, rows: Iterable[Row]) -> None:
    """Replaces the file atomically."""
    write_text(path, to_csv(rows))


def draw(rows: Sequence[Row], path: Path, network: str, data: str) -> None:
    """Writes a PNG of training error (thin, dashed) and test error (bold), as in the paper's Figures 1 and 6."""
    from matplotlib.figure import Figure  # slow to import

    training = [(row.iteration, row.training_error) for row in rows]
    test = [(row.iteration, row.test_error) for row in rows if row.test_error is not None]
    figure = Figure(figsize=(6.4, 4.8), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(*zip(*training, strict=True), "--", color="C0", linewidth=1, label=f"{network}, training")
    x, y = [iteration for iteration, _ in test], [error for _, error in test]
    mark = "o" if len(test) < 2 else ""
    axes.plot(x, y, linestyle="-", marker=mark, color="C0", linewidth=2.5, label=f"{network}, test")
    # The first errors, near chance, would flatten the rest of the curves.
    points = [*training, *test]
    end = max(iteration for iteration, _ in points)
    highest = max(error for iteration, error in points if iteration >= end / 5)
    axes.set(xlabel="iterations", ylabel="error (%)", ylim=(0, min(100.0, max(5.0, 1.25 * highest))))
    axes.set(title=f"{network} on {data}", xlim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend(loc="upper right")
    write_bytes(path, encoded(figure))
