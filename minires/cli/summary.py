"""`minires summary`."""

from __future__ import annotations

import argparse
import re
from typing import Any

from minires.cli.words import UsageError, console, known_network, print_csv, print_json, say


def add(commands: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        "summary",
        help="a network, layer by layer",
        description="Output shape, parameters, multiply-adds and their share, bytes of the output and bytes that "
        "backward keeps alive, of every operation; subtotals of the stages; totals (MB: a million bytes; the pass: "
        "outputs of layers with parameters, and their gradients).",
        allow_abbrev=False,
    )
    parser.set_defaults(command=_summary)
    parser.add_argument("network", metavar="NETWORK", help="see `minires models`")
    parser.add_argument("--input", type=_image_shape, metavar="CxHxW", help="e.g. 3x224x224 (default: the paper's)")
    parser.add_argument("--shortcut", metavar="A|B|C", help="default: the network's")
    parser.add_argument("--stride-in", metavar="1x1|3x3", help="which convolution of a bottleneck has the stride")
    parser.add_argument("--width", type=int, metavar="N", help="filters of the first stage")
    parser.add_argument("--classes", type=int, metavar="N", help="outputs of the last layer")
    parser.add_argument("--batch", type=int, metavar="N", help="predict the peak memory of training with N images")
    parser.add_argument("--sort", metavar="KEY", help="macs, params or memory, largest first (default: as they run)")
    parser.add_argument("--depth", type=int, metavar="N", help="one row for each module of N names; 1: the stages")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print the table as JSON")
    form.add_argument("--csv", action="store_true", help="print the table as CSV")
    return parser


def _summary(arguments: argparse.Namespace) -> int:
    from dataclasses import asdict

    from minires import models
    from minires.inspect import peak_memory, summary
    from minires.nn import init

    name = arguments.network
    known_network(name)
    shape = models.input_shape(name) if arguments.input is None else arguments.input
    chosen = {"shortcut": arguments.shortcut, "width": arguments.width, "num_classes": arguments.classes}
    chosen |= {"stride_in": arguments.stride_in}
    options = {option: value for option, value in chosen.items() if value is not None}
    peak = None
    try:
        with init.skipped():  # counting needs no weights
            model = models.create(name, in_channels=shape[0], **options)
        counted = summary(model, shape, sort=arguments.sort, depth=arguments.depth)
        if arguments.batch is not None:
            peak = peak_memory(model, shape, arguments.batch)
    except (TypeError, ValueError) as error:
        raise UsageError(str(error).replace("num_classes", "--classes").replace("batch must", "--batch must")) from None
    if arguments.json:
        told = {"network": name, "input": list(shape), "options": options, "parameters": counted.params}
        told |= {"trainable": counted.trainable, "input_bytes": counted.input_bytes}
        told |= {"pass_bytes": counted.pass_bytes, "params_bytes": counted.params_bytes}
        told |= {"macs": counted.macs, "backward_macs": counted.backward_macs}
        told |= {"activation_bytes": counted.activation_bytes, "kept_bytes": counted.kept_bytes}
        told |= {} if peak is None else {"batch": arguments.batch, "peak_bytes": peak}
        print_json({**told, "rows": [asdict(row) for row in counted.rows]})
    elif arguments.csv:
        print_csv(counted.to_csv())
    else:
        console().print(counted, crop=False)
        if peak is not None:
            say(f"training step with {arguments.batch:,} images: peak about {peak / 2**20:,.0f} MiB of arrays")
    return 0


def _image_shape(text: str) -> tuple[int, int, int]:
    match = re.fullmatch(r"([1-9]\d*)[x×]([1-9]\d*)[x×]([1-9]\d*)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"must be channels, height and width such as 3x224x224, got {text!r}")
    return int(match[1]), int(match[2]), int(match[3])
