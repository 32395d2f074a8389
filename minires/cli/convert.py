"""`minires convert`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from minires.cli.weights import add_words, existing, words
from minires.cli.words import UsageError, print_json, say


def add(commands: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        "convert",
        help="a weight file or a trained network as safetensors in torchvision's names",
        description="Writes a network's weights as safetensors in torchvision's names, bit by bit as they were, with "
        "metadata that say which network it is, what its pictures go through and what its classes are called.",
        allow_abbrev=False,
    )
    parser.set_defaults(command=_convert)
    parser.add_argument("source", metavar="IN", help="a weight file, or a run folder or checkpoint")
    parser.add_argument("target", metavar="OUT", help="a file to be: NAME.safetensors")
    add_words(parser)
    parser.add_argument(
        "--dtype",
        choices=("float64", "float32", "float16"),
        help="default: as stored, but bfloat16 and float8 as float32, which holds them exactly",
    )
    parser.add_argument("--force", action="store_true", help="replace OUT if it exists")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser


def _convert(arguments: argparse.Namespace) -> int:
    from minires.weights import convert

    source, target = existing(arguments.source), Path(arguments.target)
    _writable(source, target, arguments.force)
    try:
        match = convert(source, target, dtype=arguments.dtype, **words(arguments))
    except ValueError as error:  # of the file's, or numbers that float16 cannot hold
        raise UsageError(str(error)) from None
    if arguments.json:
        told = {"network": match.network, "options": match.options, "convention": match.convention}
        told |= {"undecided": match.undecided, "notes": match.notes, "file": str(target)}
        print_json(told | {"bytes": target.stat().st_size}, indent=None)
        return 0
    prefix = f"; all began with {match.prefix}" if match.prefix else ""
    say(f"{match.network}, {len(match.names)} arrays; their names were: {match.convention}{prefix}")
    for note in match.notes:
        say(f"note: {note}")
    if match.undecided:
        say(f"assumed: {', '.join(match.undecided)}; the metadata say so")
    say(f"{target}  {target.stat().st_size:,} bytes")
    return 0


def _writable(source: Path, target: Path, force: bool) -> None:
    """What cannot be written should not be read first."""
    from minires.training.checkpoint import is_checkpoint

    if target.suffix != ".safetensors":
        raise UsageError(f"OUT must end with .safetensors, got {target}")
    if not target.parent.is_dir():
        raise UsageError(f"OUT: there is no folder {target.parent}")
    if is_checkpoint(target):
        raise UsageError(f"OUT: {target} is the name of a part of a checkpoint: choose another")
    if not target.exists():
        return
    if target.is_dir():
        raise UsageError(f"OUT: {target} is a folder")
    if target.samefile(source):
        raise UsageError(f"IN and OUT are the same file, {target}: write another one")
    if not force:
        raise UsageError(f"{target} exists: --force replaces it")
