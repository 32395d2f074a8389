"""A run: its items in order, each written to disk before the next begins."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Row = dict[str, Any]
FIRST = 10.0  # seconds


@dataclass(frozen=True)
class Item:
    """What yields one row.

    table     "ceiling", "gemm", "forward", "data gradient", "weight gradient" or "network"
    name      what is measured, for a person
    seconds   that its repeats take at least, from its operations; compilation comes on top
    measure   computes and checks
    """

    table: str
    name: str
    seconds: float
    measure: Callable[[], Row]


class Journal:
    """A file of JSON lines; a line is on disk when `write` returns."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self._file = path, path.open("x", encoding="utf-8")

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def write(self, row: Row) -> None:
        self._file.write(json.dumps(row, ensure_ascii=False) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())


def run(items: Iterable[Item], journal: Journal, until: float, alive: Callable[[], Any]) -> bool:
    """Measures the items; whether every row is right.

    until   end of the time, by `time.monotonic`: an item does not begin if its estimate does not fit
    alive   raises if the device computes no longer; the run ends then

    The estimate is the item's own, and what an item of its table took at most beyond that: compiling, warming up,
    checking.  FIRST stands for that before the first row of a table.
    """
    beyond: dict[str, float] = {}
    well = True
    for item in items:
        began = time.monotonic()
        estimate = item.seconds + beyond.get(item.table, FIRST)
        if began + estimate > until:
            journal.write({"table": "left out", "name": item.name, "estimate": round(estimate, 1)})
            continue
        try:
            row = {"table": item.table, **item.measure()}
        except Exception as error:  # one row fails, the others are kept
            row = {"table": "error", "name": item.name, "error": f"{type(error).__name__}: {error}"}
            journal.write(row)
            alive()
        else:
            journal.write(row)
        taken = time.monotonic() - began
        beyond[item.table] = max(beyond.get(item.table, 0.0), taken - item.seconds)
        well = well and row.get("right", row["table"] != "error")
        print(shown(row), file=sys.stderr, flush=True)
    return well


def shown(row: Row) -> str:
    """A row for a person who watches."""
    if row["table"] == "error":
        return f"ERROR {row['name']}: {row['error']}"
    name = " ".join(str(row[key]) for key in ("table", "problem", "kernel", "precision") if key in row)
    ratio = f", {row['seconds'] / row['peer_seconds']:.2f} × {row['peer']}" if row.get("peer_seconds") else ""
    wrong = "" if row.get("right", True) else f"  WRONG: off by {row['off']:.2g}, allowed {row['allowed']:.2g}"
    return f"{name}: {1e3 * row['seconds']:.3f} ms{ratio}{' (with gaps)' * row['gaps']}{wrong}"
