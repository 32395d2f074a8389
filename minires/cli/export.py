"""Write a network in evaluation mode as an ONNX file, with input `images` (batch, C, H, W) and output `logits`.

The weights keep their names.  The metadata hold the network and its options.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import minires as mr
from minires import models, weights
from minires.cli.common import UsageError, folder_for_output, print_json, say, write
from minires.cli.parser import OPTIONS, Parser, add, given, network, not_with
from minires.cli.runs import checkpoint, is_run, weight_file
from minires.inspect import summary
from minires.nn import Module
from minires.training import load_checkpoint

EXAMPLES = ("export resnet50 --out resnet50.onnx", "export runs/resnet20-digits-1 --fuse --out digits.onnx")


def flags(parser: Parser) -> None:
    add(parser, "NETWORK", type=str, help="network name, or a run with its network and weights")
    add(parser, "--out", metavar="FILE", required=True, help="ONNX file to write")
    add(parser, "--weights --seed --input")
    add(parser, "--batch-size", type=_batch, metavar="N|dynamic", help="images at a time (default: dynamic)")
    parser.add_argument("--fuse", action="store_true", help="batch norm folded into the convolution before it")
    add(parser, "--shortcut --stride-in --zero-channels --width --num-classes --force --json")


def run(arguments: argparse.Namespace) -> int:
    _take_run(arguments)
    batch, out = arguments.batch_size or None, Path(arguments.out)
    if out.is_dir():
        raise UsageError(f"--out must be a file, got the folder {out}")
    if not out.parent.is_dir():
        raise UsageError(f"--out: there is no folder {out.parent}")
    if out.exists() and not arguments.force:
        raise UsageError(f"--out: {out} exists: --force replaces it")
    folder_for_output(out.parent)
    model, shape, model_metadata, notes = (_initialised if arguments.weights is None else _restored)(arguments)
    try:
        summary(model, shape)
    except (TypeError, ValueError) as error:
        raise UsageError(f"--input: images of {'×'.join(map(str, shape))} do not fit the network: {error}") from None
    if arguments.fuse:
        model.fuse()
    metadata = {"network": arguments.network, "input": "x".join(map(str, shape)), **model_metadata}
    metadata["fused"] = str(arguments.fuse).lower()
    content = weights.exported(model, shape, batch, name=arguments.network, metadata=metadata)
    write(out, content)
    if arguments.json:
        print_json({"file": str(out), "bytes": len(content), "batch": batch, **metadata, "notes": notes}, indent=None)
        return 0
    sizes = "×".join(map(str, ("batch" if batch is None else batch, *shape)))
    say(f"{arguments.network}: images {sizes} -> logits, {len(content) / 2**20:,.1f} MiB")
    for note in notes:
        say(f"note: {note}")
    say(out, indent=None)
    return 0


def _take_run(arguments: argparse.Namespace) -> None:
    """`minires export RUN` is `minires export NETWORK --weights RUN`, with the network of the run."""
    run = arguments.network
    if run not in models.names() and is_run(run):
        if arguments.weights is not None:
            raise UsageError(f"--weights cannot be given with the run {run}: the run has its own")
        arguments.network, arguments.weights = load_checkpoint(checkpoint(run, "NETWORK")).config.network, run
    try:
        network(arguments.network)
    except argparse.ArgumentTypeError as error:
        raise UsageError(str(error)) from None


def _batch(word: str) -> int:
    """The batch size; 0 for `dynamic`, a size chosen when the file is used."""
    if word == "dynamic":
        return 0
    if not (word.isascii() and word.isdecimal()) or not 1 <= int(word) < 2**31:
        raise argparse.ArgumentTypeError(f"must be a number from 1 on, or dynamic, got {word!r}")
    return int(word)


# model, (C, H, W), metadata, and notes for the user
Found = tuple[Module, tuple[int, int, int], dict[str, str], tuple[str, ...]]


def _initialised(arguments: argparse.Namespace) -> Found:
    shape = models.input_shape(arguments.network) if arguments.input is None else arguments.input
    options = given(arguments, OPTIONS) | {"in_channels": shape[0]}
    mr.manual_seed(arguments.seed or 0)
    try:
        model = models.create(arguments.network, **options)
    except (TypeError, ValueError) as error:
        raise UsageError(str(error).replace("num_classes", "--num-classes")) from None
    return model, shape, {"options": json.dumps(models.options(arguments.network) | options)}, ()


def _restored(arguments: argparse.Namespace) -> Found:
    """The network of --weights.  A run also specifies the size of its images; a weight file does not."""
    run = is_run(arguments.weights)
    own = (*OPTIONS, "seed", "input") if run else ("shortcut", "width", "num_classes", "seed")
    not_with(arguments, own, f"cannot be given with --weights: the {'run' if run else 'file'} has its own")
    path = checkpoint(arguments.weights, "--weights") if run else weight_file(arguments.weights)
    found = load_checkpoint(path) if run else None
    if found is not None and found.config.network != arguments.network:
        raise UsageError(f"--weights: {arguments.weights} holds a {found.config.network}, not a {arguments.network}")
    try:
        model, match = weights.load(path, network=arguments.network, **given(arguments, ("stride_in", "zero_channels")))
    except ValueError as error:
        raise UsageError(str(error)) from None
    options = models.options(match.network) | match.options
    metadata = {"options": json.dumps(options)} | ({"classes": json.dumps(match.classes)} if match.classes else {})
    metadata |= {"assumed": json.dumps(match.undecided)} if match.undecided else {}
    shape = arguments.input if found is None else found.input_shape
    if shape is None:
        shape = (options["in_channels"], *models.input_shape(match.network)[1:])
    if shape[0] != options["in_channels"]:
        raise UsageError(f"--input must have the network's {options['in_channels']} channels, got {shape[0]}")
    return model, shape, metadata, match.notes
