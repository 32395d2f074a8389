"""`minires predict`."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minires._checks import integer
from minires.cli.counting import counting
from minires.cli.words import (
    UsageError,
    add_machine,
    checkpoint,
    computing_on,
    folder_for_output,
    known_network,
    no_mere_folder,
    print_json,
    say,
    write,
)

if TYPE_CHECKING:
    from minires.data import DataFileError, Preprocessing
    from minires.prediction import Classifier, Prediction


def add(commands: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        "predict",
        help="what a trained network sees in pictures",
        description="Classes and probabilities of pictures: of those named, and of all in the folders named and below. "
        "A file that cannot be decoded is reported on stderr, the others are still answered, and the exit code is 4.",
        allow_abbrev=False,
    )
    parser.remedies = {"--plot": "; --out DIR is where it writes"}  # type: ignore[attr-defined]
    parser.set_defaults(command=_predict)
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="a picture, or a folder of pictures")
    network = parser.add_argument_group("the network")
    network.add_argument(
        "--weights", metavar="FILE", required=True, help="a weight file, or a run folder or checkpoint of minires"
    )
    network.add_argument(
        "--model", "--network", metavar="NETWORK", help="see `minires models` (default: what the weights fit)"
    )
    network.add_argument("--stride-in", metavar="1x1|3x3", help="which convolution of a bottleneck has the stride")
    network.add_argument("--zero-channels", metavar="end|both", help="where option A's zeros are")
    network.add_argument(
        "--classes", metavar="FILE", help="their names: one a line, or JSON (default: the weights' own, else numbers)"
    )
    eyes = parser.add_argument_group(
        "the preprocessing",
        "default: what the weights say, else ImageNet's, and for the CIFAR networks 32 pixels without a margin",
    )
    eyes.add_argument("--resize", type=int, metavar="N", help="pixels of the shorter side (256)")
    eyes.add_argument("--crop", type=int, metavar="N", help="side of the square cut from the centre (224)")
    eyes.add_argument("--mean", type=_numbers, metavar="R,G,B", help="subtracted, in units of [0, 1]")
    eyes.add_argument("--std", type=_numbers, metavar="R,G,B", help="divided by")
    told = parser.add_argument_group("the answer")
    told.add_argument("--top", type=int, metavar="N", help="so many classes a picture (5)")
    told.add_argument("--json", action="store_true", help="print the result as JSON")
    told.add_argument("--plot", action="store_true", help="write the pictures with their classes as bars")
    told.add_argument("--out", metavar="DIR", help="where --plot writes (predictions)")
    parser.add_argument("--batch-size", type=int, metavar="N", default=32, help="pictures at once (32)")
    add_machine(parser)
    parser.set_defaults(workers=2)
    return parser


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(word) for word in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be numbers such as 0.5,0.5,0.5, got {text!r}") from None


def _predict(arguments: argparse.Namespace) -> int:
    from PIL import Image

    from minires import backends
    from minires.prediction import find_pictures

    try:
        integer(arguments.batch_size, "batch-size", 1)
        integer(arguments.workers, "workers", 0, 256)
        if arguments.threads is not None:
            backends.set_num_threads(arguments.threads)
    except ValueError as error:
        raise UsageError(f"--{error}") from None
    if arguments.out is not None and not arguments.plot:
        raise UsageError("--out requires --plot: --out is where --plot writes")
    paths = find_pictures(arguments.images)
    with computing_on(arguments.backend), warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # large, but below what Pillow refuses
        classifier = _classifier(arguments)
        top = _top(arguments.top, classifier)
        out = folder_for_output(Path(arguments.out or "predictions")) if arguments.plot else None
        results = _counted(paths, arguments, classifier)
        told, files = _told(paths, results, classifier, top, out, aloud=not arguments.json)
    if arguments.json:
        eyes = classifier.preprocessing.to_json()
        print_json({"network": classifier.network, "preprocessing": eyes, "images": told, "files": files}, indent=None)
    broken = sum("error" in one for one in told)
    if broken:
        say(f"minires: {broken:,} of {len(paths):,} pictures cannot be decoded", error=True)
    return 4 if broken else 0


def _told(
    paths: Sequence[Path],
    results: Iterator[Prediction | DataFileError],
    classifier: Classifier,
    top: int,
    out: Path | None,
    aloud: bool,
) -> tuple[list[dict[str, Any]], list[str]]:
    """One object a picture, and the files written; `aloud`: said on stdout as they come."""
    from minires.data import DataFileError
    from minires.prediction import annotated, sheet
    from minires.prediction.figure import MOST_ON_A_SHEET

    answer = say if aloud else lambda *words, **form: None
    names = {} if out is None else _free_names(paths)
    told: list[dict[str, Any]] = []
    files: list[str] = []
    kept: list[Prediction] = []  # for the sheet
    for note in classifier.notes:
        say(f"minires: {note}", error=True)
    answer(f"{classifier.network}, {classifier.outputs:,} classes; pictures: {classifier.preprocessing}")
    for path, result in zip(paths, results, strict=True):
        if isinstance(result, DataFileError):
            say(f"minires: {result}", error=True)
            told.append({"image": str(path), "error": str(result)})
            continue
        best = result.top(top)
        answer(path, indent=None)
        for index, probability in best:
            answer(f"  {100 * probability:6.2f} %  {classifier.name(index)}", indent=12)
        classes = [{"class": classifier.name(i), "index": i, "probability": probability} for i, probability in best]
        told.append({"image": str(path), "classes": classes})
        if out is not None:
            files.append(str(write(out / names[path], annotated(result, classifier, top))))
            kept += [result] if len(kept) < MOST_ON_A_SHEET else []
    if out is not None and len(kept) > 1:
        files.append(str(write(out / names[Path()], sheet(kept, classifier))))
    for file in files:
        answer(file, indent=None)
    return told, files


def _free_names(paths: Sequence[Path]) -> dict[Path, str]:
    """A file for each picture's plot and, under the empty path, for the sheet: no two alike, none that is a picture."""
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
    """The network of the flags, its preprocessing and the names of its classes; that they fit is checked."""
    from minires import backends, prediction
    from minires.training.checkpoint import is_checkpoint

    path = Path(arguments.weights)
    if not path.exists() and not is_checkpoint(path):  # RUN/best is no file
        raise UsageError(f"--weights: no such file or folder {path}")
    no_mere_folder(path, "--weights: ")
    if arguments.model is not None:
        known_network(arguments.model)
    if is_checkpoint(path):
        for name in ("stride_in", "zero_channels"):
            if getattr(arguments, name) is not None:
                flag = name.replace("_", "-")
                raise UsageError(f"--{flag} cannot be given with --weights of a run: the run has its own")
        backend = backends.path_of(backends.active())  # not the one that trained it
        found = prediction.of_run(checkpoint(arguments.weights, "--weights"), backend=backend)
        if arguments.model not in (None, found.network):
            raise UsageError(f"--weights: {path} holds a {found.network}, not a {arguments.model}")
    else:
        try:
            found = prediction.of_weights(path, arguments.model, arguments.stride_in, arguments.zero_channels)
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
    given = {name: getattr(arguments, name) for name in ("resize", "crop", "mean", "std")}
    try:
        return replace(found, **{name: value for name, value in given.items() if value is not None})
    except (TypeError, ValueError) as error:
        raise UsageError(f"--{error}") from None


def _fits(classifier: Classifier) -> None:
    from minires.inspect import summary

    eyes = classifier.preprocessing
    try:
        summary(classifier.model, (eyes.channels, eyes.crop, eyes.crop))
    except (TypeError, ValueError) as error:
        raise UsageError(f"--crop: {classifier.network} cannot take {eyes.crop}×{eyes.crop} pixels: {error}") from None


def _top(top: int | None, classifier: Classifier) -> int:
    if top is None:
        return min(5, classifier.outputs)
    if not 1 <= top <= classifier.outputs:
        raise UsageError(f"--top must lie in [1, {classifier.outputs}], the number of classes, got {top}")
    return top


def _counted(
    paths: Sequence[Path], arguments: argparse.Namespace, classifier: Classifier
) -> Iterator[Prediction | DataFileError]:
    """The results, counted on stderr where they don't scroll by on the same terminal."""
    from minires.prediction import predict

    results = predict(classifier, paths, arguments.batch_size, arguments.workers)
    scrolling = sys.stdout.isatty() and not arguments.json
    if scrolling or len(paths) <= arguments.batch_size:
        yield from results
        return
    with counting("pictures", len(paths)) as count:
        for result in results:
            yield result
            count()
