"""Whole networks of `minires bench`: minires plain, fused and captured, beside the fastest peer.

python -m benchmarks.forms [--minutes M] [--rounds K] [--threads N] [--write]
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from benchmarks import figures
from benchmarks.native import machine
from benchmarks.tables import FRONT, write_between_markers
from minires import backends
from minires.bench.peers import CAPTURED, missing
from minires.bench.report import Table, seconds
from minires.bench.run import Plan
from minires.cli import bench

NETWORKS, PEERS = ("resnet20", "resnet56", "resnet18", "resnet50"), ("torch", "onnxruntime", "openvino")


def table(found: dict[str, Any]) -> Table:
    head = ("network", "task", "batch", "plain", "fused", "captured", "fastest peer", "its time", "captured / peer")
    rows = []
    for row in found["networks"]:
        sides = {name: side["seconds"] for name, side in row["sides"].items()}
        peer = figures.fastest_peer(row["sides"])
        times = (sides["native, plain"], sides["native"], sides[CAPTURED])
        ratio = f"{sides[CAPTURED] / sides[peer]:.2f}"
        workload = row["network"], row["task"], str(row["batch"])
        rows.append((*workload, *map(seconds, times), peer, seconds(sides[peer]), ratio))
    return head, rows


def write_tables(found: dict[str, Any]) -> None:
    """The table of benchmarks/README.md, and the five rows of README.md with their chart."""
    write_between_markers("forms", *table(found), machine(found))
    write_between_markers("race", *figures.race_table(found), machine(found), FRONT)
    figures.write(["race"], figures.RESULTS)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=9, metavar="M", help="of the whole run (default: 9)")
    parser.add_argument("--rounds", type=int, default=Plan.rounds, metavar="K", help="at most (default: 9)")
    parser.add_argument("--threads", type=int, metavar="N", help="of every side (default: all)")
    parser.add_argument("--write", action="store_true", help="write results/forms.json and the tables of the READMEs")
    args = parser.parse_args()
    for reason in missing(PEERS).values():
        parser.error(reason)
    found, agree = bench.measured(
        Plan(
            layers=(),
            networks=NETWORKS,
            threads=args.threads or backends.get_num_threads(),
            rounds=args.rounds,
            minutes=args.minutes,
            peers=PEERS,
        )
    )
    bench.show(found)
    if args.write and agree:
        (figures.RESULTS / "forms.json").write_text(json.dumps(found, indent=2) + "\n")
        write_tables(found)
    return 0 if agree else 1


if __name__ == "__main__":
    raise SystemExit(main())
