"""`minires kernels`."""

from __future__ import annotations

import argparse
import json
from typing import Any

from minires.cli.words import console


def add(commands: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        "kernels",
        help="the hand-written CUDA kernels, rung by rung",
        description="Every kernel that a call can pick by name (with mr.backend('cuda', gemm=..., conv2d=...)), each "
        "with what it adds to the one before.",
        allow_abbrev=False,
    )
    parser.set_defaults(command=_kernels)
    parser.add_argument("--json", action="store_true", help="print the list as JSON")
    return parser


def _kernels(arguments: argparse.Namespace) -> int:
    from dataclasses import asdict

    from minires.backends.kernels.catalogue import RUNGS

    if arguments.json:
        print(json.dumps([asdict(rung) for rung in RUNGS], indent=2))
        return 0
    from rich.table import Table

    table = Table("kernel", "computes", "needs", "what it adds")
    for i, rung in enumerate(RUNGS):
        last = i + 1 == len(RUNGS) or RUNGS[i + 1].kind != rung.kind
        table.add_row(rung.name, rung.kind, f"sm_{rung.needs.replace('.', '')}" if rung.needs else "", rung.adds)
        table.rows[-1].end_section = last and rung.kind in ("gemm", "conv2d")
    console().print(table)
    return 0
