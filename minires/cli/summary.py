"""List the operations of a network, with subtotals of the stages and totals.

Columns: output shape, parameters, multiply-adds and their share, bytes of the output, and bytes kept for backward.  MB
means a million bytes.  The size of the pass counts the outputs of layers with parameters, and their gradients.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict

from minires import models
from minires.cli.common import UsageError, print_csv, print_json, say
from minires.cli.parser import OPTIONS, Parser, Whole, add, given
from minires.cli.tables import console
from minires.inspect import peak_memory, summary
from minires.nn import init

EXAMPLES = ("summary resnet50 --batch-size 16", "summary resnet50 --depth 1 --sort macs")


def flags(parser: Parser) -> None:
    add(parser, "NETWORK --input --shortcut --stride-in --width --num-classes")
    add(
        parser,
        "--batch-size",
        help="images of a training step, to predict its peak memory (default: no prediction)",
    )
    parser.add_argument(
        "--sort",
        choices=("macs", "params", "memory"),
        help="column to sort by, largest first (default: order of execution)",
    )
    parser.add_argument(
        "--depth",
        type=Whole(1),
        metavar="N",
        help="depth of the modules to list; 1 lists the stages (default: every operation)",
    )
    form = parser.add_mutually_exclusive_group()
    add(form, "--json")
    form.add_argument("--csv", action="store_true", help="table as CSV on stdout")


def run(arguments: argparse.Namespace) -> int:
    name, batch = arguments.network, arguments.batch_size
    shape = arguments.input or models.input_shape(name)
    options = given(arguments, OPTIONS)
    try:
        with init.skipped():  # counting needs no weights
            model = models.create(name, in_channels=shape[0], **options)
        counted = summary(model, shape, sort=arguments.sort, depth=arguments.depth)
        peak = None if batch is None else peak_memory(model, shape, batch)
    except (TypeError, ValueError) as error:
        raise UsageError(str(error).replace("num_classes", "--num-classes")) from None
    if arguments.json:
        numbers = ("trainable", "input_bytes", "pass_bytes", "params_bytes", "macs", "backward_macs")
        totals = {key: getattr(counted, key) for key in (*numbers, "activation_bytes", "kept_bytes")}
        what = {"network": name, "input": list(shape), "options": options, "parameters": counted.params, **totals}
        what |= {} if peak is None else {"batch": batch, "peak_bytes": peak}
        print_json({**what, "rows": [asdict(row) for row in counted.rows]})
    elif arguments.csv:
        print_csv(counted.to_csv())
    else:
        console().print(counted, crop=False)
        if peak is not None:
            say(f"training step with {batch:,} images: peak about {peak / 2**20:,.0f} MiB of arrays")
    return 0
