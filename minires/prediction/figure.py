"""Draws pictures with their predicted classes."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from minires._checks import instance, integer, iterable
from minires._plotting import encoded
from minires._repr import printable
from minires.prediction.classifier import Classifier
from minires.prediction.predict import Prediction

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_ON_A_SHEET = 100


def annotated(prediction: Prediction, classifier: Classifier, top: int = 5) -> bytes:
    """A PNG: the network's part of the picture, and the most probable classes as bars."""
    from matplotlib.figure import Figure  # slow to import, and most predictions are not drawn

    integer(top, "top", 1)
    instance(classifier, "classifier", Classifier)
    best = instance(prediction, "prediction", Prediction).top(top)
    figure = Figure(figsize=(8, max(3.2, 0.45 * len(best) + 1)), layout="constrained")
    picture, bars = figure.subplots(1, 2, width_ratios=(1, 1))
    _show(picture, prediction)
    picture.set_title(_plain(_short(prediction.path.name, 36)), fontsize=10)
    places = range(len(best))
    bars.barh(places, [100 * probability for _, probability in best], color="C0", alpha=0.4)
    for place, (index, probability) in zip(places, best, strict=True):
        label = f"{_short(classifier.name(index), 28)}  {100 * probability:.2f} %"
        bars.text(1, place, _plain(label), va="center", fontsize=10)
    bars.set(xlim=(0, 100), yticks=[], xlabel="probability (%)")
    bars.invert_yaxis()
    bars.set_title(classifier.network, fontsize=10)
    return _drawn(figure)


def sheet(predictions: Sequence[Prediction], classifier: Classifier) -> bytes:
    """A PNG of up to `MOST_ON_A_SHEET` pictures side by side, each under its most probable class."""
    from matplotlib.figure import Figure  # as in `annotated`

    instance(classifier, "classifier", Classifier)
    shown = iterable(predictions, "predictions", "Predictions")[:MOST_ON_A_SHEET]
    if not shown or not all(isinstance(one, Prediction) for one in shown):
        raise ValueError("predictions must be Predictions, at least one")
    columns = math.ceil(math.sqrt(len(shown)))
    rows = math.ceil(len(shown) / columns)
    figure = Figure(figsize=(1.6 * columns, 1.8 * rows), layout="constrained")
    cells = np.atleast_1d(figure.subplots(rows, columns)).ravel()
    for cell in cells:
        cell.set_axis_off()
    for cell, prediction in zip(cells, shown, strict=False):
        _show(cell, prediction)
        index, probability = prediction.top(1)[0]
        cell.set_title(_plain(f"{_short(classifier.name(index), 16)} {100 * probability:.0f} %"), fontsize=8)
    return _drawn(figure)


def _show(axes: Axes, prediction: Prediction) -> None:
    picture = prediction.picture
    axes.imshow(picture[:, :, 0] if picture.shape[2] == 1 else picture, cmap="gray", vmin=0, vmax=255)
    axes.set_axis_off()


def _drawn(figure: Figure) -> bytes:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # boxes replace glyphs that the font lacks
        return encoded(figure)


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _plain(text: str) -> str:
    """Text that matplotlib draws literally: no formulas between dollar signs, no control characters."""
    return printable(text).replace("$", r"\$")
