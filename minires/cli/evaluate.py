"""`minires evaluate`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Any

from minires.cli.words import add_data, add_machine, checkpoint, computing_on, console, own_backend, printable


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
    from rich.markup import escape

    from minires.training import evaluate_run

    path = checkpoint(arguments.run, "RUN")
    settings = ("data", "data_dir", "batch_size", "backend", "threads", "workers")
    given = {name: getattr(arguments, name) for name in settings if getattr(arguments, name) is not None}
    mine = arguments.backend if own_backend(arguments.backend) else None
    given |= {"backend": None} if mine else {}
    with computing_on(mine):
        trained, evaluation = evaluate_run(path, split=arguments.split, download=arguments.download, **given)
    config, classes = trained.checkpoint.config, trained.checkpoint.classes
    shown = [escape(printable(name)) for name in classes]  # a stranger's may hold markup and control characters
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
        print(json.dumps(told))
        return 0
    console().print(_confusion_table(evaluation.confusion, shown))
    print(f"{config.network} on {config.data} ({arguments.split}): {evaluation.images:,} images, {path}")
    if evaluation.top5_error is not None:
        print(f"top-5 error   {evaluation.top5_error:.2f} %")
    print(f"top-1 error   {evaluation.error:.2f} %")
    return 0


def _confusion_table(confusion: Any, classes: Sequence[str]) -> Any:
    """The whole matrix for up to 20 classes, the most frequent mistakes for more."""
    from rich.table import Table

    if len(classes) > 20:
        table = Table("label", "taken for", "images", title="most frequent mistakes")
        wrong = confusion.copy()
        wrong.flat[:: len(classes) + 1] = 0
        for index in wrong.ravel().argsort()[::-1][:20]:
            label, predicted = divmod(int(index), len(classes))
            if wrong[label, predicted]:
                table.add_row(classes[label], classes[predicted], f"{wrong[label, predicted]:,}")
        return table
    table = Table(title="confusion: rows are labels, columns predictions")
    table.add_column("")
    for name in classes:
        table.add_column(name, justify="right")
    for row, (name, counts) in enumerate(zip(classes, confusion.tolist(), strict=True)):
        cells = [
            f"[bold]{count:,}[/]" if row == i else f"{count:,}" if count else "·" for i, count in enumerate(counts)
        ]
        table.add_row(name, *cells)
    return table
