"""`minires models`."""

from __future__ import annotations

import argparse
from typing import Any

from minires.cli.words import known_network, print_json, print_table


def add(commands: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        "models",
        help="the networks, with parameters and multiply-adds",
        description="The networks of the paper, counted as the paper counts: one multiply-add is 1; convolutions, "
        "projections and linear layers count.",
        allow_abbrev=False,
    )
    parser.set_defaults(command=_models)
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help="only these (default: all)")
    parser.add_argument("--json", action="store_true", help="print the table as JSON")
    return parser


def _models(arguments: argparse.Namespace) -> int:
    from minires import models
    from minires.inspect import summary
    from minires.nn import init

    for name in arguments.networks:
        known_network(name)
    names = arguments.networks or models.names()
    with init.skipped():  # counting needs no weights
        counted = {name: summary(models.create(name), models.input_shape(name)) for name in names}
    if arguments.json:
        told = [
            {"network": name, "input": list(s.input_shape), "parameters": s.params, "macs": s.macs}
            for name, s in counted.items()
        ]
        print_json(told)
        return 0
    rows = [(name, "×".join(map(str, s.input_shape)), f"{s.params:,}", f"{s.macs:,}") for name, s in counted.items()]
    numbers = ("parameters", "multiply-adds")
    print_table(("network", "input", *numbers), rows, right=numbers, drop=("input", "parameters"))
    return 0
