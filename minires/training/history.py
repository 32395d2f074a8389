"""The history of a run: one row for every logged interval and every evaluation, kept as CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields
from operator import attrgetter
from pathlib import Path
from typing import Any

from minires._atomic import read_bytes, write_text
from minires._checks import integer
from minires._repr import shown

_LARGEST = 32 << 20  # bytes: more rows than a checkpoint holds


@dataclass(frozen=True)
class Row:
    """What was measured up to one iteration.

    iteration           updates done
    epoch               passes through the training set
    lr                  learning rate of the last update
    training_loss       mean over the images since the previous row, with augmentation
    training_error      percent, likewise
    test_error          percent of the whole test set; None where it was not measured
    images_per_second   training throughput since the previous row, without the evaluation
    seconds             since the start of training, interruptions left out
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
        """The newest row in a few words."""
        if not self:
            return "nothing measured yet"
        row = self[-1]
        test = "" if row.test_error is None else f", test error {row.test_error:.2f} %"
        return f"iteration {row.iteration:,}, epoch {row.epoch:.4g}, training loss {row.training_loss:.4g}{test}"


COLUMNS = tuple(field.name for field in fields(Row))


def best(rows: Iterable[Row]) -> Row | None:
    """The row with the lowest test error, the earliest among equals; None where none was measured."""
    measured = [row for row in rows if row.test_error is not None]
    return min(measured, key=attrgetter("test_error"), default=None)


def to_csv(rows: Iterable[Row]) -> str:
    """A header and a line a row; numbers in full precision, an absent one empty."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(["" if value is None else repr(value) for value in astuple(row)] for row in rows)
    return out.getvalue()


def from_csv(text: str) -> list[Row]:
    """The rows that `to_csv` wrote; ValueError names the line that is none."""
    lines = list(csv.reader(io.StringIO(text)))
    if not lines or tuple(lines[0]) != COLUMNS:
        raise ValueError(f"the first line of a history must be {','.join(COLUMNS)}")
    return [row(line, f"line {number}") for number, line in enumerate(lines[1:], start=2)]


def row(values: Iterable[Any], place: str) -> Row:
    """A Row from its values in order, as numbers or as text."""
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
    """The whole file anew, atomically: a reader never sees half a row."""
    write_text(path, to_csv(rows))
