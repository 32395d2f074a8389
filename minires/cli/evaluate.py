"""Measure the top-1 error, top-5 error and confusion matrix of a run, a checkpoint or a weight file.

A run means its newest checkpoint, evaluated on the run's own data unless --data is given.  A weight file needs --data.
Its pictures are preprocessed as the file's metadata specify, or else as its network usually needs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from rich.text import Text

from minires import backends, prediction
from minires import data as sets
from minires._table import FittedTable
from minires.cli.common import UsageError, columns, computing_on, own_backend, print_json, say
from minires.cli.parser import Parser, add, given, not_with
from minires.cli.runs import checkpoint, is_run, weight_file
from minires.cli.tables import console, print_table
from minires.data import Dataset, FolderImages
from minires.prediction import Classifier
from minires.training import Evaluation, evaluate, evaluate_run

EXAMPLES = ("evaluate runs/resnet20-digits-1", "evaluate resnet20.th --data cifar10 --data-dir cifar10 --json")
HINTS = ("network", "stride_in", "zero_channels")


def flags(parser: Parser) -> None:
    parser.add_argument("run", metavar="RUN", help="run folder, checkpoint or weight file")
    data = parser.add_argument_group("The data")
    add(data, "--data --data-dir --download")
    data.add_argument("--split", choices=("test", "train"), default="test", help="part of the data (default: test)")
    add(data, "--batch-size", help="images at a time (default: the run's; weight file: 128)")
    file = parser.add_argument_group("Hints for a weight file")
    add(file, "--network --stride-in --zero-channels")
    machine = parser.add_argument_group("The machine")
    add(machine, "--backend --threads --workers")
    add(parser, "--json")


def run(arguments: argparse.Namespace) -> int:
    found = (_of_run if is_run(arguments.run) else _of_weights)(arguments)
    what, images, classes, evaluation = found
    numbers = {"images": evaluation.images, "top1_error": evaluation.error, "top5_error": evaluation.top5_error}
    if arguments.json:
        counts = {"classes": list(classes), "confusion": evaluation.confusion.tolist()}
        print_json({**what, "data": images, "split": arguments.split, **numbers, **counts}, indent=None)
        return 0
    _print_confusion(evaluation.confusion, classes)
    path = what.get("checkpoint", what.get("file"))
    say(f"{what['network']} on {images} ({arguments.split}): {evaluation.images:,} images, {path}", indent=4)
    if evaluation.top5_error is not None:
        say(f"top-5 error   {evaluation.top5_error:.2f} %")
    say(f"top-1 error   {evaluation.error:.2f} %")
    return 0


# what is evaluated, the name of the data, the names of the classes, and the errors
Found = tuple[dict[str, Any], str, Sequence[str], Evaluation]


def _of_run(arguments: argparse.Namespace) -> Found:
    not_with(arguments, HINTS, "cannot be given with a run: the run has its own")
    path = checkpoint(arguments.run, "RUN")
    changes = given(arguments, ("data", "data_dir", "batch_size", "backend", "threads", "workers"))
    own = arguments.backend if own_backend(arguments.backend) else None
    changes |= {"backend": None} if own else {}
    with computing_on(own):
        trained, evaluation = evaluate_run(path, split=arguments.split, download=arguments.download, **changes)
    kept = trained.checkpoint
    what = {"network": kept.config.network, "checkpoint": str(path), "iteration": kept.iteration}
    return what, kept.config.data, kept.classes, evaluation


def _of_weights(arguments: argparse.Namespace) -> Found:
    path = weight_file(arguments.run, "RUN")
    if arguments.data is None:
        raise UsageError(f"RUN: {path} is a weight file: --data specifies the images to evaluate it on")
    if arguments.threads is not None:
        backends.set_num_threads(arguments.threads)
    with computing_on(arguments.backend):
        try:
            classifier = prediction.of_weights(path, **given(arguments, HINTS))
            size = {"size": classifier.preprocessing.crop} if arguments.data in ("folder", "fashion-mnist") else {}
            dataset = sets.load(arguments.data, arguments.split, arguments.data_dir, arguments.download, **size)
        except ValueError as error:
            raise UsageError(str(error)) from None
        for note in classifier.notes:
            say(f"note: {note}", error=True)
        if backends.on_gpu():
            classifier.model.to("cuda")
        batches = _batches(classifier, dataset, arguments.batch_size or 128)
        evaluation = evaluate(classifier.model, batches)
    return {"network": classifier.network, "file": str(path)}, arguments.data, dataset.classes, evaluation


def _batches(classifier: Classifier, dataset: Dataset, size: int) -> Iterator[tuple[Any, Any]]:
    """Preprocessed images (N, C, H, W) and labels (N,), batch by batch."""
    preprocessing, images = classifier.preprocessing, dataset.images
    shape = (preprocessing.channels, preprocessing.crop, preprocessing.crop)
    if len(dataset.classes) != classifier.outputs:
        counts = f"{len(dataset.classes):,} classes; the network has {classifier.outputs:,} outputs"
        raise UsageError(f"--data: the data set has {counts}")
    if not isinstance(images, FolderImages) and dataset.shape != shape:
        raise UsageError(f"--data: the data set has images of shape {dataset.shape}; the network takes {shape}")
    for start in range(0, len(dataset), size):
        chosen = slice(start, start + size)
        if isinstance(images, FolderImages):
            x = np.stack([preprocessing(file) for file in images.paths[chosen]])
        else:
            x = preprocessing.normalise(images[chosen])
        yield x, dataset.labels[chosen]


def _print_confusion(confusion: Any, classes: Sequence[str]) -> None:
    """Prints the whole matrix for up to 20 classes if the terminal is wide enough, else the most frequent mistakes."""
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
