"""Tables on stdout."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console

from minires._table import Cell, FittedTable
from minires.cli.common import columns


class Plain(Console):
    def on_broken_pipe(self) -> None:  # rich's method ends the program with exit code 1
        raise BrokenPipeError


def console(stderr: bool = False) -> Console:
    """Renders text literally: names may look like markup or emoji codes."""
    width = columns(sys.stderr if stderr else sys.stdout)
    # Without a height, rich takes a dumb terminal to be 80 columns wide.
    return Plain(width=width, height=25, highlight=False, markup=False, emoji=False, stderr=stderr)


def print_table(head: Sequence[str], rows: Sequence[Sequence[Cell]], title: str = "", **form: Any) -> None:
    """A `FittedTable` on stdout; `form`: its right, drop and sections."""
    console().print(FittedTable(head, rows, title, **form), crop=False)
