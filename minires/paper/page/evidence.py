"""What the page's verdicts rest on: recorded runs, counts of models, and reproduced tables and figures."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import get_data_path

from minires import models, random
from minires.data import Preprocessing, Transform, load, pixel_mean
from minires.inspect import Summary, Trace, summary, trace
from minires.models.blocks import Bottleneck
from minires.models.resnet import ResNet
from minires.nn import init
from minires.paper import items
from minires.paper.report import Report

NOW: dict[str, Callable[[], Report]] = {
    "table1": items.reproduce_table1,
    "table6": items.reproduce_table6,
    "figure3": items.reproduce_figure3,
    "gradients": items.reproduce_gradients,
}
TRAINED = ("figure1", "figure4", "figure7")  # these need training runs, so they are read from a folder
LARGEST_PICTURE = 1 << 20  # bytes; a larger SVG is replaced by its PNG


class ResultError(ValueError):
    """A file of results that the page cannot read."""


@dataclass(frozen=True)
class Result:
    """A reproduced table or figure.

    origin     "computed now", or the file that it was read from
    pictures   data URIs
    """

    name: str
    title: str
    head: Sequence[str]
    lines: Sequence[Sequence[str]]
    notes: Sequence[str]
    reproduced: bool
    origin: str
    pictures: Sequence[str] = field(repr=False, default=())

    @property
    def trained_on(self) -> str | None:
        """The data set of a result that needs training; None for untrained networks and for what needs no training."""
        if self.name in ("figure1", "figure4"):
            return "an analogue" if "analogue" in self.title else "the paper's data"
        trained = [note for note in self.notes if note.startswith("trained on ")]
        if self.name != "figure7" or not trained:
            return None
        return "the paper's data" if trained[0].startswith("trained on cifar10;") else "an analogue"

    @property
    def analogue(self) -> bool:
        """Whether the result is another experiment than the paper's, on smaller data."""
        return self.trained_on == "an analogue"

    @classmethod
    def of(cls, report: Report) -> Result:
        """A report that was computed now."""
        own = report.name, report.title, report.head, report.lines, report.notes, report.reproduced
        return cls(*own, "computed now", _pictures(report.files))

    @classmethod
    def read(cls, path: Path) -> Result:
        """The JSON file of an item, written by `minires paper`, with its pictures; raises ResultError."""
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            files = {
                file: (path.parent / Path(file).name).read_bytes()
                for file in found["files"]
                if file.endswith((".png", ".svg"))
            }
            texts = [found["head"], found["notes"], *found["lines"]]
            if not all(isinstance(text, list) and all(isinstance(cell, str) for cell in text) for text in texts):
                raise TypeError("head, lines and notes must be lists of texts")
            name, title, reproduced = str(found["name"]), str(found["title"]), bool(found["reproduced"])
            head, lines, notes = found["head"], found["lines"], found["notes"]
            return cls(name, title, head, lines, notes, reproduced, path.name, _pictures(files))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ResultError(f"{path}: no result of `minires paper`: {error!r}") from None


def _pictures(files: Mapping[str, bytes]) -> list[str]:
    """Each picture once as a data URI: the SVG where it is small, else the PNG."""
    stems = dict.fromkeys(Path(name).stem for name in files if name.endswith((".png", ".svg")))
    found = []
    for stem in stems:
        kinds = {Path(name).suffix: content for name, content in files.items() if Path(name).stem == stem}
        svg = kinds.get(".svg")
        if svg is not None and len(svg) <= LARGEST_PICTURE:
            found.append(uri(svg, "svg+xml"))
        elif ".png" in kinds:
            found.append(uri(kinds[".png"], "png"))
    return found


def uri(picture: bytes, kind: str) -> str:
    """A picture as a data URI, which needs no request."""
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"


class Evidence:
    """Everything that is computed for the page, each part once and on first use.

    results   a folder with the JSON files of `minires paper`; None: what needs training is "not run"
    """

    def __init__(self, results: Path | None = None) -> None:
        self.read = {} if results is None else _read(results)
        self.counted: dict[tuple[str, str], Summary] = {}
        self.computed: dict[str, Result] = {}

    def result(self, item: str) -> Result | None:
        """An item's result: from the folder, or computed now; None for what needs training and was not run."""
        if item in self.read:
            return self.read[item]
        if item not in NOW:
            return None
        if item not in self.computed:
            self.computed[item] = Result.of(NOW[item]())
        return self.computed[item]

    def count(self, network: str, shortcut: str = "") -> Summary:
        """Parameters and multiply-adds of a network at the paper's input size."""
        key = network, shortcut
        if key not in self.counted:
            options = {"shortcut": shortcut} if shortcut else {}
            with init.skipped():
                model = models.create(network, **options)
            self.counted[key] = summary(model, models.input_shape(network))
        return self.counted[key]

    @cached_property
    def basic(self) -> Trace:
        """ResNet-20 with shortcuts A: one forward and backward of eight handwritten digits."""
        random.manual_seed(0)
        images, labels = digits()
        return trace(models.create("resnet20", in_channels=1), images, labels, "resnet20, 8 digits")

    @cached_property
    def bottleneck(self) -> Trace:
        """A small network of bottlenecks with projections, on the same digits."""
        random.manual_seed(0)
        images, labels = digits()
        model = ResNet(Bottleneck, (2, 1), stem="cifar", width=16, num_classes=10, in_channels=1)
        return trace(model, images, labels, "three bottlenecks, 8 digits")

    @cached_property
    def stem(self) -> Trace:
        """ResNet-18 in an eighth of its width on matplotlib's photograph, for the 7×7 stem and the max pooling."""
        random.manual_seed(0)
        image = Preprocessing()(Path(get_data_path()) / "sample_data" / "grace_hopper.jpg")[None]
        model = models.create("resnet18", width=8)
        return trace(model, image, np.array([652]), "resnet18 of width 8, a photograph")  # the label of `minires step`


def digits() -> tuple[Any, Any]:
    """Eight test images of the handwritten digits, less the mean image, and their labels."""
    test = load("digits", "test")
    images: Any = test.images
    return Transform(pixel_mean(load("digits", "train")))(images[:8]), test.labels[:8]


def _read(folder: Path) -> dict[str, Result]:
    """The results in a folder; raises ResultError if it holds none."""
    try:
        held = {path.name for path in folder.iterdir()}
    except OSError as error:
        raise ResultError(f"{folder} cannot be read: {error.strerror or error}") from None
    found = {name: Result.read(folder / f"{name}.json") for name in (*NOW, *TRAINED) if f"{name}.json" in held}
    if not found:
        raise ResultError(f"{folder} holds no result; `minires paper all --quick --out {folder}` writes them")
    return found
