"""HTML tables for notebooks."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from html import escape
from typing import Any


def table_html(
    head: Sequence[Any], rows: Iterable[Sequence[Any]], title: str = "", right: Collection[str] = (), totals: int = 0
) -> str:
    """An HTML table of texts.

    right    heads of right-aligned columns
    totals   number of rows at the end that form the foot
    """
    styles = ["text-align:right" if name in right else "text-align:left" for name in head]

    def line(cells: Sequence[Any], tag: str) -> str:
        parts = (
            f'<{tag} style="{style}">{escape(str(cell))}</{tag}>' for style, cell in zip(styles, cells, strict=True)
        )
        return f"<tr>{''.join(parts)}</tr>"

    rows = list(rows)
    body = "".join(line(cells, "td") for cells in rows[: len(rows) - totals])
    foot = "".join(line(cells, "th") for cells in rows[len(rows) - totals :])
    caption = f'<caption style="text-align:left">{escape(title)}</caption>' if title else ""
    parts = f"<thead>{line(head, 'th')}</thead><tbody>{body}</tbody>{f'<tfoot>{foot}</tfoot>' if foot else ''}"
    return f"<table>{caption}{parts}</table>"
