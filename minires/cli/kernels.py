"""`minires kernels`."""

from __future__ import annotations

import argparse
from typing import Any

from minires.cli.words import print_json, print_table


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
        print_json([asdict(rung) for rung in RUNGS])
        return 0
    rows = [
        (rung.name, rung.kind, f"sm_{rung.needs.replace('.', '')}" if rung.needs else "", rung.adds) for rung in RUNGS
    ]
    kinds = [rung.kind for rung in RUNGS]
    last = [i for i, kind in enumerate(kinds) if kind in ("gemm", "conv2d") and kind not in kinds[i + 1 :]]
    print_table(("kernel", "computes", "needs", "what it adds"), rows, drop=("needs", "computes"), sections=last)
    return 0
