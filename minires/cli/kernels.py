"""List the hand-written CUDA kernels.  Select one by its name, as in mr.backend('cuda', gemm=..., conv2d=...).

The last column describes what a kernel adds to the kernel before it.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict

from minires.backends.kernels.catalogue import RUNGS
from minires.cli.common import print_json
from minires.cli.parser import Parser, add
from minires.cli.tables import print_table

EXAMPLES = ("kernels", "kernels --json")


def flags(parser: Parser) -> None:
    add(parser, "--json")


def run(arguments: argparse.Namespace) -> int:
    if arguments.json:
        print_json([asdict(rung) for rung in RUNGS])
        return 0
    rows = [(r.name, r.kind, f"sm_{r.needs.replace('.', '')}" if r.needs else "", r.adds) for r in RUNGS]
    kinds = [rung.kind for rung in RUNGS]
    last = [i for i, kind in enumerate(kinds) if kind in ("gemm", "conv2d") and kind not in kinds[i + 1 :]]
    print_table(("kernel", "computes", "needs", "what it adds"), rows, drop=("needs", "computes"), sections=last)
    return 0
