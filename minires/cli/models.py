"""List the networks of the paper with their parameters and multiply-adds.

A multiply-add counts as 1, as in the paper.  Convolutions, projections and linear layers are counted.
"""

from __future__ import annotations

import argparse

from minires import models
from minires.cli.common import print_json
from minires.cli.parser import Parser, add
from minires.cli.tables import print_table
from minires.inspect import summary
from minires.nn import init

EXAMPLES = ("models", "models resnet20 resnet50 --json")


def flags(parser: Parser) -> None:
    add(parser, "NETWORK", nargs="*", help="networks to list (default: all)")
    add(parser, "--json")


def run(arguments: argparse.Namespace) -> int:
    names = arguments.network or models.names()
    with init.skipped():  # counting needs no weights
        counted = {name: summary(models.create(name), models.input_shape(name)) for name in names}
    if arguments.json:
        rows = [(name, list(s.input_shape), s.params, s.macs) for name, s in counted.items()]
        print_json([dict(zip(("network", "input", "parameters", "macs"), row, strict=True)) for row in rows])
        return 0
    lines = [(name, "×".join(map(str, s.input_shape)), f"{s.params:,}", f"{s.macs:,}") for name, s in counted.items()]
    numbers = ("parameters", "multiply-adds")
    print_table(("network", "input", *numbers), lines, right=numbers, drop=("input", "parameters"))
    return 0
