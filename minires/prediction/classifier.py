"""A trained network with its preprocessing and the names of its classes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minires import models, weights
from minires._checks import integer
from minires.data import Preprocessing
from minires.nn import Module
from minires.training import restore


@dataclass(frozen=True, eq=False)
class Classifier:
    """A network in evaluation mode with all that a picture needs.

    model           images (N, C, H, W) -> logits (N, classes)
    network         the network's name
    preprocessing   the steps from a picture to an image
    outputs         number of classes
    classes         names of the classes; None if unknown
    notes           assumptions about the weights, a line each
    """

    model: Module
    network: str
    preprocessing: Preprocessing
    outputs: int
    classes: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"<classifier: {self.network}, {self.outputs:,} classes; {self.preprocessing}>"

    def name(self, index: int) -> str:
        """The class's name, or its number."""
        integer(index, "index", 0)
        return str(index) if self.classes is None else self.classes[index]


def of_run(path: str | Path, **changes: Any) -> Classifier:
    """The network of a run folder or checkpoint, with the preprocessing and the classes of its data.

    changes   settings of `Config` about the machine, such as backend="reference"

    Raises what `restore` raises.
    """
    trained = restore(path, **changes)
    found = trained.checkpoint
    return Classifier(trained.model, found.config.network, trained.preprocessing, len(found.classes), found.classes)


def of_weights(
    path: str | Path, network: str | None = None, stride_in: str | None = None, zero_channels: str | None = None
) -> Classifier:
    """The network of a weight file, with the preprocessing in the file or else the usual preprocessing.

    The usual preprocessing has ImageNet's mean and standard deviation, a shorter side of 256 and a centre of 224.  For
    the networks of CIFAR, whose pictures have no margin, both are 32.

    network, stride_in, zero_channels   what the file leaves open, as for `weights.load`

    Raises what `weights.load` raises, and WeightsError for a network that takes neither colour nor grey pictures, or
    for an invalid preprocessing.
    """
    model, match = weights.load(path, network=network, stride_in=stride_in, zero_channels=zero_channels)
    options = models.options(match.network) | dict(match.options)
    channels = options["in_channels"]
    if channels not in (1, 3):
        raise weights.WeightsError(f"{path}: its network takes {channels} channels; a picture has 3, or 1 in grey")
    usual = {} if models.input_shape(match.network)[1] == 224 else {"resize": 32, "crop": 32}
    usual |= GREY if channels == 1 else {}
    try:
        preprocessing = Preprocessing(**(usual | match.preprocessing))
    except (TypeError, ValueError) as error:
        raise weights.WeightsError(f"{path}: invalid preprocessing: {error}") from None
    return Classifier(model, match.network, preprocessing, options["num_classes"], match.classes, match.notes)


# Means of ImageNet's three numbers.
GREY: dict[str, Any] = {"grey": True, "mean": (0.449,), "std": (0.226,)}
