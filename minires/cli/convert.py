"""Convert a weight file or a run to a safetensors file with torchvision's names.

The weights stay bit-identical unless --dtype converts them.  The metadata hold the network, the preprocessing of its
pictures and the names of its classes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from minires.cli.common import UsageError, print_json, say
from minires.cli.parser import Parser, add, given
from minires.cli.runs import weight_file
from minires.cli.weights import HINTS, add_hints
from minires.training.checkpoint import is_checkpoint
from minires.weights import convert

EXAMPLES = ("convert runs/resnet20-digits-1 digits.safetensors", "convert resnet20.th resnet20.safetensors --force")


def flags(parser: Parser) -> None:
    parser.add_argument("source", metavar="IN", help="weight file, run or checkpoint")
    parser.add_argument("target", metavar="OUT", help="file to write: NAME.safetensors")
    add_hints(parser)
    parser.add_argument(
        "--dtype",
        choices=("float64", "float32", "float16"),
        help="type of the numbers (default: as in the file; bfloat16 and float8 become float32, without loss)",
    )
    add(parser, "--force --json")


def run(arguments: argparse.Namespace) -> int:
    source, target = weight_file(arguments.source, "IN"), Path(arguments.target)
    _check_target(source, target, arguments.force)
    try:
        match = convert(source, target, dtype=arguments.dtype, **given(arguments, HINTS))
    except ValueError as error:
        raise UsageError(str(error)) from None
    size = target.stat().st_size
    if arguments.json:
        names = ("network", "options", "convention", "undecided", "notes")
        values = {name: getattr(match, name) for name in names}
        print_json({**values, "file": str(target), "bytes": size}, indent=None)
        return 0
    prefix = f"; all began with {match.prefix}" if match.prefix else ""
    say(f"{match.network}, {len(match.names)} arrays; their names were: {match.convention}{prefix}")
    for note in match.notes:
        say(f"note: {note}")
    if match.undecided:
        say(f"assumed: {', '.join(match.undecided)}; marked in the metadata")
    say(f"{target}  {size:,} bytes")
    return 0


def _check_target(source: Path, target: Path, force: bool) -> None:
    """Raises UsageError for an invalid target, before the source is read."""
    if target.suffix != ".safetensors":
        raise UsageError(f"OUT must end with .safetensors, got {target}")
    if not target.parent.is_dir():
        raise UsageError(f"OUT: there is no folder {target.parent}")
    if is_checkpoint(target):
        raise UsageError(f"OUT: {target} is the name of a part of a checkpoint: choose another name")
    if not target.exists():
        return
    if target.is_dir():
        raise UsageError(f"OUT: {target} is a folder")
    if target.samefile(source):
        raise UsageError(f"IN and OUT are the same file, {target}: choose another OUT")
    if not force:
        raise UsageError(f"{target} exists: --force replaces it")
