"""`minires models`."""

from __future__ import annotations

import argparse
import json
from typing import Any

from minires.cli.words import console


def add(commands: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        "models",
        help="the networks, with parameters and multiply-adds",
        description="The networks of the paper, counted as the paper counts: one multiply-add is 1; convolutions, "
        "projections and linear layers count.",
        allow_abbrev=False,
    )
    parser.set_defaults(command=_models)
    parser.add_argument("--json", action="store_true", help="print the table as JSON")
    return parser


def _models(arguments: argparse.Namespace) -> int:
    from minires import models
    from minires.inspect import summary
    from minires.nn import init

    with init.skipped():  # counting needs no weights
        counted = {name: summary(models.create(name), models.input_shape(name)) for name in models.names()}
    if arguments.json:
        told = [
            {"network": name, "input": list(s.input_shape), "parameters": s.params, "macs": s.macs}
            for name, s in counted.items()
        ]
        print(json.dumps(told, indent=2))
        return 0
    from rich.table import Table

    table = Table("network", "input")
    table.add_column("parameters", justify="right")
    table.add_column("multiply-adds", justify="right")
    for name, s in counted.items():
        table.add_row(name, "×".join(map(str, s.input_shape)), f"{s.params:,}", f"{s.macs:,}")
    console().print(table)
    return 0
