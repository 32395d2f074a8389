"""The JSON lines of a run as tables and a chart.  Nothing is shown that was not measured.

    python -m benchmarks.gpu tables FILE.jsonl [--write]

Prints the tables.  With --write, puts them into benchmarks/README.md, five rows into README.md, and their chart beside
the file.  Rows that were wrong or failed are listed; they count in no mean and in no chart.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import figures
from benchmarks.gpu.precision import peer_precision
from benchmarks.tables import FRONT, README, show, write_between_markers
from minires.bench.report import Table

Row = dict[str, Any]
CHART = "gpu.svg"
DIRECTIONS = ("forward", "data gradient", "weight gradient")


def read(path: Path) -> list[Row]:
    """The rows; a last line that a kill cut off is left out."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        if line.endswith("\n"):
            rows.append(json.loads(line))
    if not rows or rows[0].get("table") != "machine":
        raise SystemExit(f"{path}: no run of benchmarks.gpu: the first line must describe the machine")
    return rows


def machine_of(rows: Sequence[Row]) -> Row:
    first = rows[0]
    return {key: value for key, value in first.items() if key not in ("table", "fp32 peak")}


def _of(rows: Sequence[Row], *tables: str) -> list[Row]:
    return [row for row in rows if row["table"] in tables]


def rate(row: Row) -> str:
    if "bytes" in row:
        return f"{row['bytes'] / row['seconds'] / 1e9:,.0f} GB/s"
    if "images" in row:
        return f"{row['images'] / row['seconds']:,.0f} images/s"
    return f"{row['operations'] / row['seconds'] / 1e12:.1f} TFLOP/s"


def ceiling(rows: Sequence[Row], precision: str) -> float:
    """The best rate of cuBLAS in this precision, in operations a second; 0 if none was measured."""
    of = [row for row in _of(rows, "ceiling") if row.get("precision") == precision and row["right"]]
    return max((row["operations"] / row["seconds"] for row in of), default=0.0)


def share(rows: Sequence[Row], row: Row) -> str:
    top = ceiling(rows, peer_precision(row["precision"])) if "operations" in row else 0.0
    return f"{100 * row['operations'] / row['seconds'] / top:.0f} %" if top else ""


HEAD = ("problem", "kernel", "precision", "time", "rate", "of the ceiling", "peer", "its time", "ratio", "off by")


def table(rows: Sequence[Row], *tables: str) -> Table:
    cells = []
    for row in _of(rows, *tables):
        peer = ["", "", ""]
        if "peer" in row:
            ratio = f"{row['seconds'] / row['peer_seconds']:.2f}"
            peer = [row["peer"], _ms(row["peer_seconds"], row["peer_gaps"]), ratio]
        cells.append(
            [
                row["problem"], row["kernel"], row.get("precision", ""), _ms(row["seconds"], row["gaps"]), rate(row),
                share(rows, row), *peer,
                f"{row['off']:.0e}" + ("" if row["right"] else ", WRONG"),
            ]
        )  # fmt: skip
    return HEAD, cells


def _ms(seconds: float, gaps: bool) -> str:
    return f"{1e3 * seconds:.3f} ms" + " †" * gaps


# -- five rows


Five = tuple[str, str, float, bool, str, float, bool]


def five(rows: Sequence[Row]) -> list[Five]:
    """(workload, kernel, its seconds, its gaps, peer, its seconds, its gaps) of the five workloads that were measured.

    Each is the fastest right row.  Convolutions are geometric means over their shapes, with gaps if any row has them.
    """
    found = []
    for precision in ("fp32", "tf32", "bf16"):
        right = [row for row in _of(rows, "gemm") if row["precision"] == precision and row["right"]]
        if largest := max((row["operations"] for row in right), default=0):
            best = min((row for row in right if row["operations"] == largest), key=lambda row: row["seconds"])
            found.append((f"product {best['problem']}, {precision}", best))
    lines = [_line(name, row["kernel"], row) for name, row in found]
    shapes: dict[str, Row] = {}
    for row in _of(rows, "forward"):
        if row["precision"] == "fp32" and row["right"]:
            known = shapes.get(row["problem"])
            shapes[row["problem"]] = row if known is None or row["seconds"] < known["seconds"] else known
    if shapes:
        fastest = shapes.values()
        together: Row = {key: mean(row[key] for row in fastest) for key in ("seconds", "peer_seconds")}
        together |= {key: any(row[key] for row in fastest) for key in ("gaps", "peer_gaps")} | {"peer": "cuDNN"}
        lines.append(_line(f"{len(shapes)} convolutions, fp32, mean", "the best rung of each", together))
    steps = [row for row in _of(rows, "network") if row["right"] and row["problem"].endswith("training")]
    steps = [row for row in steps if row["problem"] == steps[0]["problem"]]
    if steps:
        best = min(steps, key=lambda row: row["seconds"])
        lines.append(_line(best["problem"], best["kernel"], best))
    return lines


def _line(workload: str, kernel: str, row: Row) -> Five:
    return workload, kernel, row["seconds"], row["gaps"], row["peer"], row["peer_seconds"], row["peer_gaps"]


def mean(values: Any) -> float:
    """The geometric mean."""
    logarithms = [math.log(value) for value in values]
    return math.exp(sum(logarithms) / len(logarithms))


def five_table(rows: Sequence[Row]) -> Table:
    head = ("workload", "minires", "its time", "peer", "its time", "ratio")
    return head, [
        [name, kernel, _ms(ours, gaps), peer, _ms(theirs, peer_gaps), f"{ours / theirs:.2f}"]
        for name, kernel, ours, gaps, peer, theirs, peer_gaps in five(rows)
    ]


def chart(rows: Sequence[Row]) -> str:
    """Bars of our time divided by the peer's, as of the CPU's race."""
    machine = machine_of(rows)
    title = f"time of minires divided by that of its peer on {machine['device']} (below 1: minires is faster)"
    bars = [(name, ours, peer, theirs) for name, _, ours, _, peer, theirs, _ in five(rows)]
    return figures.bars(bars, title, "minires beside its peers on a GPU", 300)


# -- the command


def write(rows: Sequence[Row], path: Path) -> None:
    machine = machine_of(rows)
    names = {"gpu": ("ceiling", "gemm"), "gpu-convolutions": DIRECTIONS, "gpu-networks": ("network",)}
    for name, tables in names.items():
        head, cells = table(rows, *tables)
        if cells:
            write_between_markers(name, head, cells, machine, README)
    if five(rows):
        (path.parent / CHART).write_text(chart(rows), encoding="utf-8")
        text = FRONT.read_text(encoding="utf-8")
        if "<!-- gpu -->" not in text:
            block = f"<!-- /race -->\n\n![The same on a GPU](benchmarks/results/{CHART})\n\n<!-- gpu -->\n<!-- /gpu -->"
            FRONT.write_text(text.replace("<!-- /race -->", block, 1), encoding="utf-8")
        write_between_markers("gpu", *five_table(rows), machine, FRONT)


def main(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="benchmarks.gpu tables", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path, metavar="FILE.jsonl", help="what benchmarks.gpu wrote")
    parser.add_argument("--write", action="store_true", help=f"write the tables of the READMEs and {CHART}")
    args = parser.parse_args(words)
    rows = read(args.file)
    for head, cells in (five_table(rows), table(rows, "ceiling", "gemm", *DIRECTIONS, "network")):
        if cells:
            show(head, cells, machine_of(rows))
    for row in _of(rows, "error"):
        print(f"failed: {row['name']}: {row['error']}")
    if left := _of(rows, "left out"):
        print(f"left out for lack of time: {len(left)} rows")
    if not _of(rows, "end"):
        print("the run was cut off")
    if args.write:
        write(rows, args.file)
    return 0
