"""A table that fits a terminal of any width: names and numbers are never cut or broken."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from minires._repr import printable, wrapped

Cell = str | Text


@dataclass(frozen=True)
class FittedTable:
    """A rich renderable that takes the first form that fits.

    The forms are: with all rules; without vertical rules; without the columns of `drop`, one more at a time; and a
    block of `name  value` lines for each row.

    head, rows   printed literally, control characters as ?; a Text keeps its style
    title        above the table
    right        names of right-aligned columns (numbers with their units), whose cells are never wrapped
    drop         names of columns that a narrow terminal leaves out, the least important first
    sections     indices of the rows that a rule follows
    """

    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    title: str = ""
    right: Sequence[str] = ()
    drop: Sequence[str] = ()
    sections: Sequence[int] = ()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = options.max_width
        if self.title:
            yield from _lines(printable(self.title), width, style="italic")
        for dropped in range(-1, len(self.drop) + 1):  # -1: the ruled form
            names = self.drop[: max(dropped, 0)]
            kept = [i for i, name in enumerate(self.head) if name not in names]
            around = 3 * len(kept) + 1 if dropped < 0 else 2 * (len(kept) - 1)
            widths = self._widths(kept, width - around)
            if widths:
                yield self._table(kept, widths, ruled=dropped < 0)
                if names:
                    listed = ("; " if any("," in name for name in names) else ", ").join(names)
                    yield from _lines(f"left out at {width} columns: {listed}", width, style="dim")
                return
        for row in self.rows:
            for name, cell in zip(map(printable, self.head), row, strict=True):
                for line in _text(cell).plain.splitlines():  # empty cells have no lines
                    yield from _lines(f"{name}  {line}".strip(), width, indent=2)
            yield Text()

    def fits(self, width: int) -> bool:
        """Whether the form without vertical rules has all columns."""
        kept = range(len(self.head))
        return bool(self._widths(kept, width - 2 * (len(kept) - 1)))

    def _widths(self, kept: Sequence[int], available: int) -> list[int]:
        """Widths of these columns; the widest columns shrink first.  Empty if a word does not fit."""
        limits = [self._limits(i) for i in kept]
        if sum(low for low, _ in limits) > available:
            return []
        level = max(high for _, high in limits)
        while sum(widths := [max(low, min(high, level)) for low, high in limits]) > available:
            level -= 1
        return widths

    def _limits(self, column: int) -> tuple[int, int]:
        """Widths of a column's longest word (longest line, if never wrapped) and longest line."""
        lines = [line for row in self.rows for line in _text(row[column]).plain.splitlines()]
        head = printable(self.head[column])
        whole = self.head[column] in self.right
        words = [*head.split(), *(part for line in lines for part in ([line] if whole else line.split()))]
        return max(map(cell_len, words), default=0), max(map(cell_len, [head, *lines]))

    def _table(self, kept: Sequence[int], widths: Sequence[int], ruled: bool) -> Table:
        form = {} if ruled else {"box": box.SIMPLE_HEAD, "show_edge": False, "pad_edge": False, "padding": (0, 1, 0, 0)}
        several = any("\n" in _text(cell).plain for row in self.rows for cell in row)
        table = Table(show_lines=several, **form)  # type: ignore[arg-type]
        for i, width in zip(kept, widths, strict=True):
            right = self.head[i] in self.right
            table.add_column(_text(self.head[i]), justify="right" if right else "left", width=width, overflow="fold")
        for number, row in enumerate(self.rows):
            table.add_row(*(_text(row[i]) for i in kept), end_section=number in self.sections)
        return table


def _text(cell: Cell) -> Text:
    return cell if isinstance(cell, Text) else Text("\n".join(map(printable, cell.split("\n"))))


def _lines(text: str, width: int, indent: int = 0, style: str = "") -> Iterator[Text]:
    for line in wrapped(text, width, indent):
        yield Text(line, style, no_wrap=True, overflow="ignore")
