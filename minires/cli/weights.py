"""Show what weight files hold: the format, the naming convention, the tensors, and the network that fits.

Reads files of PyTorch, safetensors and ONNX, and executes no code in them.  The exit code is 0 if every file fits a
network, 1 if a file does not fit, and 4 if a file cannot be read.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minires.cli.common import print_json, say
from minires.cli.parser import Parser, add, given
from minires.cli.runs import weight_file
from minires.cli.tables import print_table
from minires.weights import Match, WeightFile, WeightsError, WeightsMismatch, impossible, read_any, recognise

LISTED = 20  # names listed per kind without --all
HINTS = ("network", "stride_in", "zero_channels")
EXAMPLES = ("weights resnet50.pth", "weights runs/resnet20-digits-1 model.safetensors --all")


def flags(parser: Parser) -> None:
    parser.add_argument("files", nargs="+", metavar="FILE", help="weight file, run or checkpoint")
    add_hints(parser)
    parser.add_argument(
        "--all", action="store_true", help="a row for every tensor (default: a row for every part of the network)"
    )
    add(parser, "--json")


def add_hints(parser: Parser) -> None:
    """Adds the flags for what names and shapes do not determine."""
    group = parser.add_argument_group("Hints for what names and shapes do not determine")
    add(group, "--network", help="network in the file (default: recognised; resnet20 where plain20 fits too)")
    add(group, "--stride-in --zero-channels")


def run(arguments: argparse.Namespace) -> int:
    hints = given(arguments, HINTS)
    code, files = 0, []
    for path in [weight_file(name, "FILE") for name in arguments.files]:
        try:
            one, fits = _one(path, hints, arguments)
        except WeightsError as error:
            say(f"error: {error}", error=True)
            one, code = {"file": str(path), "error": str(error)}, 4
        else:
            code = max(code, 0 if fits else 1)
        files.append(one)
    if arguments.json:
        print_json({"files": files})
    return code


def _one(path: Path, hints: dict[str, str], arguments: argparse.Namespace) -> tuple[dict[str, Any], bool]:
    """The JSON of a file, or its lines on stdout, and whether it fits."""
    file = read_any(path)
    match, mismatch = None, ""
    try:
        match = recognise(file, **hints)
    except WeightsMismatch as error:
        mismatch = str(error)
    wrong = impossible(file.arrays)
    fits = match is not None and match.complete and not wrong
    if arguments.json:
        return _as_json(file, match, mismatch, wrong, fits), fits
    lines = _every_tensor(file, match) if arguments.all else _parts(file, match)
    second = "in the network" if arguments.all else "tensors"
    head = ("in the file", second, "shape", "numbers", "stored as")
    drop = ("stored as", "numbers", second)
    print_table(head, lines, str(path), drop=drop)
    for label, text in _lines(file, match, mismatch, wrong, arguments.all):
        say(f"{label:<14}{text}", indent=14)
    return {}, fits


def _parts(file: WeightFile, match: Match | None) -> list[tuple[str, ...]]:
    """A line for each part of the network: a layer of the stem or the head, a stage."""
    ours = {} if match is None else {theirs: name for name, theirs in match.names.items()}
    order = {name: place for place, name in enumerate(ours)}
    parts: dict[str, list[str]] = {}
    # In the network's order, from the first layer to the last; safetensors files have another order.
    for name in sorted(file.arrays, key=lambda name: order.get(name, len(order))):
        # num_batches_tracked belongs to the layer of running_mean
        own = ours.get(name.replace("num_batches_tracked", "running_mean"), "")
        parts.setdefault(own.split(".")[0] if own else f"?{name.split('.')[0]}", []).append(name)
    lines: list[tuple[str, ...]] = []
    for names in parts.values():
        shapes = [file.arrays[name].shape for name in names]
        numbers = sum(file.arrays[name].size for name in names)
        kinds = ", ".join(sorted({file.stored[name] for name in names if not name.endswith("num_batches_tracked")}))
        shape = "×".join(map(str, shapes[0])) + (", …" if len(names) > 1 else "")
        lines.append((_common(names), str(len(names)), shape, f"{numbers:,}", kinds))
    return lines


def _common(names: Sequence[str]) -> str:
    """The name, or the beginning that several names share: module.layer1.*"""
    if len(names) == 1:
        return names[0]
    parts = [name.split(".") for name in names]
    same = []
    for column in zip(*parts, strict=False):
        if len(set(column)) > 1:
            break
        same.append(column[0])
    return ".".join([*same, "*"])


def _every_tensor(file: WeightFile, match: Match | None) -> list[tuple[str, ...]]:
    ours = {} if match is None else {theirs: name for name, theirs in match.names.items()}
    return [
        (name, ours.get(name, "–"), "×".join(map(str, array.shape)), f"{array.size:,}", file.stored[name])
        for name, array in file.arrays.items()
    ]


def _lines(
    file: WeightFile, match: Match | None, mismatch: str, wrong: Sequence[str], everything: bool
) -> list[tuple[str, str]]:
    """The lines below the table: a label and a text each."""
    lines = [("format", file.format + (f', under "{file.inside}"' if file.inside else ""))]
    if match is None:
        return [*lines, ("network", mismatch), *(("broken", line) for line in wrong)]
    prefix = f"; all begin with {match.prefix}" if match.prefix else ""
    lines.append(("names", match.convention + prefix))
    shown = {k: v for k, v in match.options.items() if k not in ("num_classes", "in_channels")}
    lines.append(("network", ", ".join([match.network, *(f"{name} {_word(value)}" for name, value in shown.items())])))
    named = "" if match.classes is None else f" ({', '.join(match.classes[:4])}{', …' * (len(match.classes) > 4)})"
    lines.append(("classes", str(match.options.get("num_classes", "unknown")) + named))
    lines.append(("channels", str(match.options.get("in_channels", "unknown"))))
    lines.append(("parameters", f"{_parameters(file, match):,}"))
    if match.preprocessing:
        steps = ", ".join(f"{name} {_word(value)}" for name, value in match.preprocessing.items())
        lines.append(("pictures", steps))
    for label, names in (("missing", match.missing), ("left over", match.left_over), ("different", match.different)):
        limit = len(names) if everything else LISTED
        lines += [(label, name) for name in names[:limit]]
        lines += [(label, f"and {len(names) - limit:,} more (--all lists them)")] if len(names) > limit else []
    lines += [("hint", match.hint)] if match.hint else []
    lines += [("broken", line) for line in wrong]
    lines += [("undecided", ", ".join(match.undecided))] if match.undecided else []
    lines += [("note", note) for note in match.notes]
    verdict = "the file holds this network, whole" if match.complete else "the file does not fit"
    return [*lines, ("fits", "no: impossible numbers" if match.complete and wrong else verdict)]


def _parameters(file: WeightFile, match: Match) -> int:
    return sum(file.arrays[theirs].size for ours, theirs in match.names.items() if ".running_" not in ours)


def _word(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"image {'×'.join(map(str, value.shape))}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return " ".join(f"{n:.4g}" for n in value) if isinstance(value, tuple | list) else str(value)


def _as_json(file: WeightFile, match: Match | None, mismatch: str, wrong: Sequence[str], fits: bool) -> dict[str, Any]:
    tensors = [
        {"name": name, "shape": list(array.shape), "stored": file.stored[name]} for name, array in file.arrays.items()
    ]
    content: dict[str, Any] = {"file": str(file.path), "format": file.format, "inside": file.inside, "fits": fits}
    content |= {"metadata": file.metadata, "broken": list(wrong), "tensors": tensors}
    if match is None:
        return {**content, "network": None, "error": mismatch}
    names = ("network", "options", "convention", "prefix", "missing", "left_over", "different", "hint", "undecided")
    content |= {name: getattr(match, name) for name in (*names, "notes", "classes", "names")}
    preprocessing = {name: _plain(value) for name, value in match.preprocessing.items()}
    return content | {"parameters": _parameters(file, match), "preprocessing": preprocessing}


def _plain(value: Any) -> Any:
    """A mean image as the mean of each channel."""
    return value.mean(axis=(0, 1)).tolist() if isinstance(value, np.ndarray) else value
