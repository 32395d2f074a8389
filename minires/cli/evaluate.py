"""`minires evaluate`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from minires.cli.words import (
    add_data,
    add_machine,
    checkpoint,
    columns,
    computing_on,
    console,
    own_backend,
    print_json,
    print_table,
    say,
)


def add(commands: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        "evaluate",
        help="errors and confusion matrix of a trained network",
        description="Top-1 and top-5 error and the confusion matrix of a run's newest checkpoint, or of a checkpoint.",
        allow_abbrev=False,
    )
    parser.set_defaults(command=_evaluate)
    parser.add_argument("run", metavar="RUN", help="a run folder or a checkpoint file")
    add_data(parser)
    parser.add_argument("--split", choices=("test", "train"), default="test", help="default: test")
    parser.add_argument("--batch-size", type=int, metavar="N", help="default: the run's")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    add_machine(parser)
    return parser


def _evaluate(arguments: argparse.Namespace) -> int:

    from minires.training import evaluate_run

    path = checkpoint(arguments.run, "RUN")
    settings = ("data", "data_dir", "batch_size", "backend", "threads", "workers")
    given = {name: getattr(arguments, name) for name in settings if getattr(arguments, name) is not None}
    mine = arguments.backend if own_backend(arguments.backend) else None
    given |= {"backend": None} if mine else {}
    with computing_on(mine):
        trained, evaluation = evaluate_run(path, split=arguments.split, download=arguments.download, **given)
    config, classes = trained.checkpoint.config, trained.checkpoint.classes
    told = {
        "network": config.network,
        "data": config.data,
        "split": arguments.split,
        "checkpoint": str(path),
        "iteration": trained.checkpoint.iteration,
        "images": evaluation.images,
        "top1_error": evaluation.error,
        "top5_error": evaluation.top5_error,
        "classes": list(classes),
        "confusion": evaluation.confusion.tolist(),
    }
    if arguments.json:
        print_json(told, indent=None)
        return 0
    _print_confusion(evaluation.confusion, classes)
    say(f"{config.network} on {config.data} ({arguments.split}): {evaluation.images:,} images, {path}", indent=4)
    if evaluation.top5_error is not None:
        say(f"top-5 error   {evaluation.top5_error:.2f} %")
    say(f"top-1 error   {evaluation.error:.2f} %")
    return 0


def _print_confusion(confusion: Any, classes: Sequence[str]) -> None:
    """The whole matrix for up to 20 classes, where the terminal holds it; else the most frequent mistakes."""
    from rich.text import Text

    from minires._table import FittedTable

    rows = [
        (name, *(Text(f"{n:,}", "bold") if row == i else f"{n:,}" if n else "·" for i, n in enumerate(counts)))
        for row, (name, counts) in enumerate(zip(classes, confusion.tolist(), strict=True))
    ]
    title = "confusion: rows are labels, columns predictions"
    matrix = FittedTable(("label", *classes), rows, title, right=classes)
    if len(classes) <= 20 and matrix.fits(columns(sys.stdout)):
        console().print(matrix)
        return
    wrong = confusion.copy()
    wrong.flat[:: len(classes) + 1] = 0
    pairs = [divmod(int(index), len(classes)) for index in wrong.ravel().argsort()[::-1][:20]]
    mistakes = [(classes[i], classes[j], f"{wrong[i, j]:,}") for i, j in pairs if wrong[i, j]]
    print_table(("label", "taken for", "images"), mistakes, "most frequent mistakes", right=("images",))
