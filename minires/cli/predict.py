"""Classify pictures: print the most probable classes of each picture.

Folders are searched with their subfolders.  If a file cannot be decoded, the command reports it on stderr, classifies
the other pictures and exits with 4.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from minires import backends, prediction
from minires.cli.common import UsageError, computing_on, folder_for_output, print_json, say, write
from minires.cli.parser import Parser, add, given, not_with
from minires.cli.runs import checkpoint, weight_file
from minires.data import DataFileError, Preprocessing
from minires.inspect import summary
from minires.prediction import Classifier, Prediction
from minires.prediction.figure import MOST_ON_A_SHEET
from minires.training.checkpoint import is_checkpoint
from minires.training.progress import counting

EXAMPLES = (
    "predict cat.jpg --weights runs/resnet20-digits-1",
    "predict pictures --weights resnet50.pth --stride-in 3x3 --classes names.txt --top 3",
)


def flags(parser: Parser) -> None:
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="picture, or folder of pictures")
    network = parser.add_argument_group("The network")
    add(network, "--weights", required=True, help="run, checkpoint or weight file")
    add(network, "--network --stride-in --zero-channels")
    network.add_argument(
        "--classes",
        metavar="FILE",
        help="file of class names, one a line or as JSON (default: stored with the weights)",
    )
    pictures = parser.add_argument_group(
        "The preprocessing",
        "default: stored with the weights, else as for ImageNet; CIFAR networks: 32 pixels without a margin",
    )
    pictures.add_argument("--resize", type=int, metavar="N", help="pixels of the shorter side (default: 256)")
    pictures.add_argument("--crop", type=int, metavar="N", help="side of the central square in pixels (default: 224)")
    pictures.add_argument(
        "--mean",
        type=_numbers,
        metavar="R,G,B",
        help="mean to subtract from pixels in [0, 1] (default: 0.485,0.456,0.406)",
    )
    pictures.add_argument(
        "--std", type=_numbers, metavar="R,G,B", help="standard deviation to divide by (default: 0.229,0.224,0.225)"
    )
    answer = parser.add_argument_group("The answer")
    answer.add_argument("--top", type=int, metavar="N", help="number of classes to print per picture (default: 5)")
    add(answer, "--json --quiet")
    answer.add_argument("--plot", action="store_true", help="plot of each picture, with probabilities as bars")
    add(answer, "--out", metavar="DIR", help="folder of the plots (default: predictions)")
    add(parser, "--batch-size", default=32, help="pictures at a time (default: 32)")
    machine = parser.add_argument_group("The machine")
    add(machine, "--backend --threads")
    add(machine, "--workers", default=2)


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(word) for word in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be numbers such as 0.5,0.5,0.5, got {text!r}") from None


def run(arguments: argparse.Namespace) -> int:
    if arguments.threads is not None:
        backends.set_num_threads(arguments.threads)
    if arguments.out is not None and not arguments.plot:
        raise UsageError("--out requires --plot")
    paths = prediction.find_pictures(arguments.images)
    with computing_on(arguments.backend), warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # large, but below what Pillow refuses
        classifier = _classifier(arguments)
        top = _top(arguments.top, classifier)
        out = folder_for_output(Path(arguments.out or "predictions")) if arguments.plot else None
        results = _counted(paths, arguments, classifier)
        images, files = _answers(paths, results, classifier, top, out, aloud=not arguments.json)
    if arguments.json:
        steps = classifier.preprocessing.to_json()
        values = {"network": classifier.network, "preprocessing": steps, "images": images, "files": files}
        print_json(values, indent=None)
    broken = sum("error" in one for one in images)
    if broken:
        say(f"error: {broken:,} of {len(paths):,} pictures cannot be decoded", error=True)
    return 4 if broken else 0


def _answers(
    paths: Sequence[Path],
    results: Iterator[Prediction | DataFileError],
    classifier: Classifier,
    top: int,
    out: Path | None,
    aloud: bool,
) -> tuple[list[dict[str, Any]], list[str]]:
    """A JSON object per picture, and the files written; `aloud`: prints each answer on stdout at once."""
    answer = say if aloud else lambda *words, **form: None
    names = {} if out is None else _free_names(paths)
    images: list[dict[str, Any]] = []
    files: list[str] = []
    kept: list[Prediction] = []  # pictures on the sheet
    for note in classifier.notes:
        say(f"note: {note}", error=True)
    answer(f"{classifier.network}, {classifier.outputs:,} classes; pictures: {classifier.preprocessing}")
    for path, result in zip(paths, results, strict=True):
        if isinstance(result, DataFileError):
            say(f"error: {result}", error=True)
            images.append({"image": str(path), "error": str(result)})
            continue
        best = result.top(top)
        answer(path, indent=None)
        for index, probability in best:
            answer(f"  {100 * probability:6.2f} %  {classifier.name(index)}", indent=12)
        classes = [{"class": classifier.name(i), "index": i, "probability": probability} for i, probability in best]
        images.append({"image": str(path), "classes": classes})
        if out is not None:
            files.append(str(write(out / names[path], prediction.annotated(result, classifier, top))))
            kept += [result] if len(kept) < MOST_ON_A_SHEET else []
    if out is not None and len(kept) > 1:
        files.append(str(write(out / names[Path()], prediction.sheet(kept, classifier))))
    for file in files:
        answer(file, indent=None)
    return images, files


def _free_names(paths: Sequence[Path]) -> dict[Path, str]:
    """Distinct names of the pictures' plots and, under the empty path, of the sheet.  No plot replaces a picture."""
    taken = {path.name.casefold() for path in paths}
    last: dict[str, int] = {}  # number of each stem
    names: dict[Path, str] = {}
    for path in (*paths, Path()):
        stem = path.stem[:100] or "all"
        name = ""
        while not name or name.casefold() in taken:
            last[stem] = last.get(stem, 0) + 1
            name = f"{stem}{'' if last[stem] == 1 else f'-{last[stem]}'}.predicted.png"
        taken.add(name.casefold())
        names[path] = name
    return names


def _classifier(arguments: argparse.Namespace) -> Classifier:
    """The network that the flags specify, with preprocessing and class names that fit it."""
    path = weight_file(arguments.weights)
    if is_checkpoint(path):
        not_with(
            arguments, ("stride_in", "zero_channels"), "cannot be given with --weights of a run: the run has its own"
        )
        backend = backends.path_of(backends.active())  # not the backend that trained the run
        found = prediction.of_run(checkpoint(arguments.weights, "--weights"), backend=backend)
        if arguments.network not in (None, found.network):
            raise UsageError(f"--weights: {path} holds a {found.network}, not a {arguments.network}")
    else:
        try:
            found = prediction.of_weights(path, arguments.network, arguments.stride_in, arguments.zero_channels)
        except ValueError as error:
            raise UsageError(str(error)) from None
        if backends.on_gpu():
            found.model.to("cuda")
    found = replace(found, preprocessing=_preprocessing(found.preprocessing, arguments))
    _fits(found)
    if arguments.classes is None:
        return found
    try:
        names = prediction.read_classes(arguments.classes)
    except OSError as error:
        raise UsageError(f"--classes: {arguments.classes}: {error.strerror or error}") from None
    if len(names) != found.outputs:
        raise UsageError(
            f"--classes: {arguments.classes} names {len(names):,} classes; the network has {found.outputs:,}"
        )
    return replace(found, classes=names)


def _preprocessing(found: Preprocessing, arguments: argparse.Namespace) -> Preprocessing:
    try:
        return replace(found, **given(arguments, ("resize", "crop", "mean", "std")))
    except (TypeError, ValueError) as error:
        raise UsageError(f"--{error}") from None


def _fits(classifier: Classifier) -> None:
    crop = classifier.preprocessing.crop
    try:
        summary(classifier.model, (classifier.preprocessing.channels, crop, crop))
    except (TypeError, ValueError) as error:
        raise UsageError(f"--crop: {classifier.network} cannot take {crop}×{crop} pixels: {error}") from None


def _top(top: int | None, classifier: Classifier) -> int:
    if top is None:
        return min(5, classifier.outputs)
    if not 1 <= top <= classifier.outputs:
        raise UsageError(f"--top must lie in [1, {classifier.outputs}], the number of classes, got {top}")
    return top


def _counted(
    paths: Sequence[Path], arguments: argparse.Namespace, classifier: Classifier
) -> Iterator[Prediction | DataFileError]:
    """The results, counted on stderr unless they are printed on the same terminal."""
    results = prediction.predict(classifier, paths, arguments.batch_size, arguments.workers)
    scrolling = sys.stdout.isatty() and not arguments.json
    if scrolling or arguments.quiet or len(paths) <= arguments.batch_size:
        yield from results
        return
    with counting("pictures", len(paths)) as count:
        for result in results:
            yield result
            count()
