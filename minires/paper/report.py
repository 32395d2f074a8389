"""The result of reproducing an item: a table beside the paper's numbers, files, and a verdict."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Report:
    """One table or figure.

    lines        cells under the `head`
    files        name -> content; pictures as .png or .svg
    notes        remarks or the verdict, a line each
    reproduced   False if a claim failed, or if a number of the paper has no counterpart
    runs         folders of the training runs
    right        names of the columns of numbers
    drop         names of the columns that a narrow terminal leaves out, the least important first
    """

    name: str
    title: str
    head: Sequence[str]
    lines: Sequence[Sequence[str]]
    files: Mapping[str, bytes]
    notes: Sequence[str] = ()
    reproduced: bool = True
    runs: Sequence[Path] = ()
    right: Sequence[str] = ()
    drop: Sequence[str] = ()


def to_csv(head: Sequence[str], lines: Sequence[Sequence[str]]) -> bytes:
    """One line a row; the lines of a cell are joined by semicolons."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerows([head, *([cell.replace("\n", "; ") for cell in line] for line in lines)])
    return out.getvalue().encode()


def markdown(reports: Sequence[Report], missing: Mapping[str, str]) -> str:
    """One page with every table and picture.

    missing   title -> why the item is missing
    """
    parts = [
        "# The paper, reproduced",
        "Columns headed *the paper's* are printed figures; all others were computed here.",
    ]
    for report in reports:
        parts += [f"## {report.title}", _table(report.head, report.lines)]
        parts += ["\n".join(f"- {note}" for note in report.notes)] if report.notes else []
        parts += [f"![{report.title}]({name})" for name in report.files if name.endswith(".png")]
    if missing:
        parts += ["## Not reproduced", "\n".join(f"- {title}: {why}" for title, why in missing.items())]
    return "\n\n".join(parts) + "\n"


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(cell.replace("\n", "<br>") for cell in row) + " |" for row in rows)
