"""Stores `minires bench`: the native backend beside PyTorch, onnxruntime, OpenVINO and the reference backend.

python -m benchmarks.native [--write] [the flags of minires bench]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks import figures
from benchmarks.tables import write_between_markers
from minires.bench import report
from minires.bench.peers import missing
from minires.bench.run import Plan
from minires.cli import bench
from minires.cli.common import UsageError

RESULTS = Path(__file__).parent / "results" / "native.json"


def machine(found: dict[str, Any]) -> dict[str, object]:
    """The contents of the line below each table."""
    limits = found["limits"]
    return found["machine"] | {
        "peak": f"{limits['peak_gflops']:.0f} GFLOP/s",
        "memory": f"{limits['bandwidth_gbs']:.0f} GB/s",
        "rounds": report.rounds(found),
        "other programs": f"{100 * (found['others'] or 0):.0f} %",
    }


def write_tables(found: dict[str, Any]) -> None:
    """The tables of benchmarks/README.md, and the heat map of the convolutions."""
    write_between_markers("native-goals", *report.goal_table(found), machine(found))
    write_between_markers("native-networks", *report.network_table(found), machine(found))
    figures.write(["convolutions"], figures.RESULTS)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write results/ and the tables of benchmarks/README.md")
    bench.add_flags(parser)
    args = parser.parse_args()
    try:
        plan = bench.plan_of(args)
    except UsageError as error:
        parser.error(str(error))
    if args.write:
        if plan != Plan(threads=plan.threads, rounds=plan.rounds, minutes=plan.minutes):
            parser.error("--write stores a whole run; omit --quick and the flags that select a part")
        for reason in missing(plan.peers).values():
            parser.error(f"--write: {reason}")

    found, agree = bench.measured(plan)
    bench.show(found)
    if args.write and agree:
        RESULTS.write_text(json.dumps(found, indent=2) + "\n")
        write_tables(found)
        print(f"written: {RESULTS.relative_to(Path.cwd())}, benchmarks/README.md")
    return 0 if agree else 1


if __name__ == "__main__":
    raise SystemExit(main())
