"""Measured tables in benchmarks/README.md: the command that measured one rewrites it, between its pair of markers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from minires.bench.report import markdown

README = Path(__file__).parent / "README.md"


def write_between_markers(
    name: str, head: Sequence[str], rows: Sequence[Sequence[str]], machine: Mapping[str, object]
) -> None:
    """Replaces what stands between `<!-- NAME -->` and `<!-- /NAME -->` by a table and the line about the machine."""
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    text = README.read_text()
    if text.count(begin) != 1 or text.count(end) != 1:
        raise SystemExit(f"benchmarks/README.md must hold the markers {begin} and {end} once each")
    told = ", ".join(f"{key} {value}" for key, value in machine.items())
    before, _, rest = text.partition(begin)
    after = rest.partition(end)[2]
    README.write_text(f"{before}{begin}\n{markdown((head, rows))}\n\nMeasured: {told}.\n{end}{after}")
