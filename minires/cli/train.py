"""Train a network, by default resnet20 on digits, in a run folder.

The folder holds history, learning curves, configuration and checkpoint.  Settings that you leave out follow the paper's
recipe for the data set.

Ctrl-C or SIGTERM saves a checkpoint and ends the run.  Under nohup, which may ignore Ctrl-C, send SIGTERM.  --resume
continues with bit-identical weights, even after a crash or a power failure.

`mpirun -n K minires train ...` trains on K processes (ranks), which share every batch.
"""

from __future__ import annotations

import argparse
import contextlib
import typing
from collections.abc import Callable
from dataclasses import Field, fields, replace
from pathlib import Path
from typing import Any

from minires.cli.common import UsageError, computing_on, own_backend, print_json, say
from minires.cli.parser import Parser, add, backend, data_set
from minires.cli.runs import checkpoint
from minires.parallel import Communicator, together, world
from minires.training import Config, Interrupted, Result, resume_config, train
from minires.training.progress import Silent, on_stderr

EXAMPLES = ("train", "train resnet56 --data fashion-mnist --download --out runs/first")


def flags(parser: Parser) -> None:
    run = parser.add_argument_group("The run")
    add(run, "--out", metavar="DIR", help="run folder, new or empty (default: runs/NETWORK-DATA-NUMBER)")
    run.add_argument(
        "--resume",
        metavar="RUN",
        help="run folder, RUN/best or checkpoint file to continue, with the same images.  A run folder continues at "
        "its newest checkpoint.  --epochs or --iterations set a new length: milestones in iterations stay, fractions "
        "refer to the new length.",
    )
    add(run, "--json --quiet")
    groups: dict[str, Any] = {"The run": run}
    types = typing.get_type_hints(Config)
    for setting in fields(Config):
        heading = setting.metadata["group"]
        if heading not in groups:
            groups[heading] = parser.add_argument_group(heading)
            if heading == "The length":  # epochs or iterations
                groups[heading] = groups[heading].add_mutually_exclusive_group()
        _add_setting(groups[heading], setting, types[setting.name])
    add(groups["The data"], "--download")


def _add_setting(group: Any, setting: Field[Any], annotation: Any) -> None:
    """Adds the flag of a field of `Config`; its value is None if the user does not give it."""
    name, default, choices = setting.name, setting.default, setting.metadata["choices"]
    kind = next(kind for kind in (bool, int, float, str) if kind in (annotation, *typing.get_args(annotation)))
    text = setting.metadata["help"]
    if default is not None and "(default" not in text:
        text += f" (default: {default if kind is not bool else 'yes' if default else 'no'})"
    text = text.replace("%", "%%")
    if name == "network":
        group.add_argument(name, nargs="?", metavar="NETWORK", help=text)
        return
    form: dict[str, Any] = {"type": TYPES.get(name, kind)}
    form["metavar"] = setting.metadata["metavar"] or {int: "N", float: "X", str: "NAME"}.get(kind)
    form = {"choices": choices} if choices else {"action": argparse.BooleanOptionalAction} if kind is bool else form
    group.add_argument("--" + name.replace("_", "-"), default=None, help=text, **form)


def run(arguments: argparse.Namespace) -> int:
    ranks = world()
    own = arguments.backend if own_backend(arguments.backend) else None
    with computing_on(own):
        return _train(ranks, arguments)


def _train(ranks: Communicator, arguments: argparse.Namespace) -> int:
    config = together(ranks, lambda: _config(arguments))
    speaks = ranks.rank == 0
    shown = on_stderr() if speaks and not arguments.quiet else contextlib.nullcontext([Silent()])
    if speaks and not arguments.quiet:
        length = f"epochs {config.epochs:g}" if config.epochs is not None else f"iterations {config.iterations:,}"
        among = f", {ranks.size} ranks" if ranks.size > 1 else ""
        say(f"{config.network} on {config.data}: {length}, seed {config.seed}{among}", error=True)
    try:
        with shown as (report,):
            result = train(
                config, arguments.out, resume=arguments.resume, download=arguments.download, report=report, ranks=ranks
            )
    except Interrupted as stop:
        if speaks:
            say(f"minires: {stop}", error=True)
        return 130
    if speaks:
        _print(result, arguments.json)
    return 0


def _config(arguments: argparse.Namespace) -> Config:
    values = {setting.name: getattr(arguments, setting.name) for setting in fields(Config)}
    chosen = {name: value for name, value in values.items() if value is not None}
    chosen |= {"backend": None} if own_backend(arguments.backend) else {}
    if arguments.resume is None:
        return Config.make(**chosen)
    for setting in fields(Config):
        if setting.name in chosen and not setting.metadata["resume"]:
            flag = "NETWORK" if setting.name == "network" else "--" + setting.name.replace("_", "-")
            raise UsageError(f"{flag} cannot be given with --resume: the run continues with its own settings")
    if "epochs" in chosen or "iterations" in chosen:
        chosen = {"epochs": None, "iterations": None, **chosen}
    if Path(arguments.resume).is_file():
        checkpoint(arguments.resume, "--resume")  # reports a file that is no checkpoint
    try:
        return replace(resume_config(arguments.resume), **chosen)
    except FileNotFoundError as error:
        raise UsageError(str(error)) from None


def _print(result: Result, as_json: bool) -> None:
    last, folder = result.rows[-1], result.folder
    files = {
        "history": folder.history,
        "curves": folder.curves,
        "config": folder.config,
        "checkpoint": result.checkpoint,
        "best": result.best,
    }
    if as_json:
        numbers = {"iterations": last.iteration, "epochs": last.epoch, "seconds": last.seconds}
        numbers |= {"training_loss": last.training_loss, "training_error": last.training_error}
        numbers |= {"test_error": result.test_error, "test_accuracy": 100 - result.test_error}
        what = {"network": result.config.network, "data": result.config.data, "seed": result.config.seed}
        paths = {name: None if path is None else str(path) for name, path in files.items()}
        print_json({**what, "parameters": result.parameters, **numbers, "run": str(folder.path), **paths})
        return
    for name, path in files.items():
        if path is not None:
            say(f"{'configuration' if name == 'config' else name:14} {path}", indent=None)
    say(f"test accuracy {100 - result.test_error:.2f} %  (error {result.test_error:.2f} %)")


def _milestones(text: str) -> tuple[float, ...]:
    try:
        return tuple(int(part) if part.strip().isdigit() else float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"must be iterations such as 32000,48000 or fractions such as 0.5,0.75, got {text!r}"
        ) from None


def _warmup(text: str) -> str | int:
    return int(text) if text.isdigit() else text


TYPES: dict[str, Callable[[str], Any]] = {
    "milestones": _milestones,
    "warmup": _warmup,
    "data": data_set,
    "backend": backend,
}
