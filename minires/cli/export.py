"""`minires export`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minires.cli.summary import _image_shape
from minires.cli.words import (
    WORDS,
    UsageError,
    checkpoint,
    folder_for_output,
    is_run,
    known_network,
    print_json,
    say,
    weight_file,
    write,
)

if TYPE_CHECKING:
    from minires.nn import Module

OPTIONS = {name: name for name in ("shortcut", "stride_in", "zero_channels", "width")} | {"classes": "num_classes"}


def add(commands: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        "export",
        help="a network as an ONNX file",
        description="Writes a network, in evaluation mode, as an ONNX file with input `images` (batch, C, H, W) and "
        "output `logits`. Its weights keep their names; what network it is stands in its metadata.",
        allow_abbrev=False,
    )
    parser.set_defaults(command=_export)
    parser.add_argument(
        "network", metavar="NETWORK", help="see `minires models`; or a run: its network with its weights"
    )
    parser.add_argument("--onnx", metavar="FILE", required=True, help="the file to write")
    parser.add_argument("--weights", metavar="FILE", help="a run, or a weight file (default: initialised)")
    parser.add_argument("--seed", type=int, metavar="N", help="of the initialisation (default: 0)")
    parser.add_argument("--input", type=_image_shape, metavar="CxHxW", help="e.g. 3x224x224 (default: the network's)")
    parser.add_argument("--batch", metavar="N|dynamic", default="dynamic", help="images at a time (default: dynamic)")
    parser.add_argument("--fuse", action="store_true", help="fold each batch norm into the convolution before it")
    parser.add_argument("--shortcut", metavar="A|B|C", help="default: the network's")
    parser.add_argument("--stride-in", metavar="1x1|3x3", help="which convolution of a bottleneck has the stride")
    parser.add_argument("--zero-channels", metavar="end|both", help="where option A's zeros are (default: end)")
    parser.add_argument("--width", type=int, metavar="N", help="filters of the first stage")
    parser.add_argument("--classes", type=int, metavar="N", help="outputs of the last layer")
    parser.add_argument("--force", action="store_true", help="replace the file of --onnx if it exists")
    parser.add_argument("--json", action="store_true", help="print what was written as JSON")
    return parser


def _export(arguments: argparse.Namespace) -> int:
    from minires.inspect import summary
    from minires.weights import exported

    _take_run(arguments)
    known_network(arguments.network)
    batch = _batch(arguments.batch)
    out = Path(arguments.onnx)
    if out.is_dir():
        raise UsageError(f"--onnx must be a file, got the folder {out}")
    if not out.parent.is_dir():
        raise UsageError(f"--onnx: there is no folder {out.parent}")
    if out.exists() and not arguments.force:
        raise UsageError(f"--onnx: {out} exists: --force replaces it")
    folder_for_output(out.parent, "--onnx")
    model, shape, told, notes = _restored(arguments) if arguments.weights is not None else _initialised(arguments)
    try:
        summary(model, shape)
    except (TypeError, ValueError) as error:
        raise UsageError(f"--input: images of {'×'.join(map(str, shape))} do not fit the network: {error}") from None
    if arguments.fuse:
        model.fuse()
    metadata = {"network": arguments.network, "input": "x".join(map(str, shape)), **told}
    metadata["fused"] = str(arguments.fuse).lower()
    content = exported(model, shape, batch, name=arguments.network, metadata=metadata)
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
    from minires import models
    from minires.training import load_checkpoint

    run = arguments.network
    if run in models.names() or not is_run(run):
        return
    if arguments.weights is not None:
        raise UsageError(f"--weights cannot be given with the run {run}: the run has its own")
    arguments.network, arguments.weights = load_checkpoint(checkpoint(run, "NETWORK")).config.network, run


def _batch(word: str) -> int | None:
    if word == "dynamic":
        return None
    if not (word.isascii() and word.isdecimal()) or not 1 <= int(word) < 2**31:
        raise UsageError(f"--batch must be a number from 1 on, or dynamic, got {word!r}")
    return int(word)


# model, (C, H, W), what the file says of it, and what the user should know
Found = tuple["Module", tuple[int, int, int], dict[str, str], tuple[str, ...]]


def _initialised(arguments: argparse.Namespace) -> Found:
    import minires as mr

    shape = mr.models.input_shape(arguments.network) if arguments.input is None else arguments.input
    given = {option: getattr(arguments, flag) for flag, option in OPTIONS.items()}
    options = {option: value for option, value in given.items() if value is not None} | {"in_channels": shape[0]}
    try:
        mr.manual_seed(0 if arguments.seed is None else arguments.seed)
    except ValueError as error:
        raise UsageError(f"--{error}") from None
    try:
        model = mr.models.create(arguments.network, **options)
    except (TypeError, ValueError) as error:
        raise UsageError(str(error).replace("num_classes", "--classes")) from None
    return model, shape, {"options": json.dumps(mr.models.options(arguments.network) | options)}, ()


def _restored(arguments: argparse.Namespace) -> Found:
    """The network of --weights: a run's, which knows the size of its images, or that of another program's file."""
    from minires import models, weights
    from minires.training import load_checkpoint

    run = is_run(arguments.weights)
    for flag in (*(name for name in OPTIONS if run or name not in WORDS), "seed", *(("input",) if run else ())):
        if getattr(arguments, flag) is not None:
            raise UsageError(
                f"--{flag.replace('_', '-')} cannot be given with --weights: the {'run' if run else 'file'} has its own"
            )
    path = checkpoint(arguments.weights, "--weights") if run else weight_file(arguments.weights)
    found = load_checkpoint(path) if run else None
    if found is not None and found.config.network != arguments.network:
        raise UsageError(f"--weights: {arguments.weights} holds a {found.config.network}, not a {arguments.network}")
    try:
        model, match = weights.load(
            path, network=arguments.network, **{word: getattr(arguments, word) for word in WORDS}
        )
    except ValueError as error:  # of a word that is none
        raise UsageError(str(error)) from None
    options = models.options(match.network) | match.options
    told = {"options": json.dumps(options)} | ({"classes": json.dumps(match.classes)} if match.classes else {})
    told |= {"assumed": json.dumps(match.undecided)} if match.undecided else {}
    shape = arguments.input if found is None else found.input_shape
    if shape is None:
        shape = (options["in_channels"], *models.input_shape(match.network)[1:])
    if shape[0] != options["in_channels"]:
        raise UsageError(f"--input must have the network's {options['in_channels']} channels, got {shape[0]}")
    return model, shape, told, match.notes
