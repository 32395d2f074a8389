"""Measured tables: printed, and written between markers in a README."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from minires.bench.report import markdown

README = Path(__file__).parent / "README.md"
FRONT = Path(__file__).parent.parent / "README.md"


def one_line(machine: Mapping[str, object]) -> str:
    return ", ".join(f"{key} {value}" for key, value in machine.items())


def show(head: Sequence[str], rows: Sequence[Sequence[str]], machine: Mapping[str, object]) -> None:
    """Prints the table under a line about the machine."""
    table = Table(*head, title=one_line(machine))
    for row in rows:
        table.add_row(*row)
    Console(width=160).print(table)


def write_between_markers(
    name: str,
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    machine: Mapping[str, object],
    document: Path = README,
) -> None:
    """Replaces the text between `<!-- NAME -->` and `<!-- /NAME -->` with a table and a line about the machine."""
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    text = document.read_text()
    if text.count(begin) != 1 or text.count(end) != 1:
        raise SystemExit(f"{document} must hold the markers {begin} and {end} once each")
    before, _, rest = text.partition(begin)
    after = rest.partition(end)[2]
    document.write_text(f"{before}{begin}\n{markdown((head, rows))}\n\nMeasured: {one_line(machine)}.\n{end}{after}")
