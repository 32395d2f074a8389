"""A trained network with all that is needed to show it a picture."""

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
    """A network in evaluation mode, and its world.

    model           images (N, C, H, W) -> logits (N, classes)
    network         its name
    preprocessing   what a picture goes through first
    outputs         number of classes
    classes         their names; None where nobody knows them
    notes           what was assumed of the weights, each in a line
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

    changes   settings of `Config` that say where it runs, such as backend="reference"

    Raises what `restore` raises.
    """
    trained = restore(path, **changes)
    found = trained.checkpoint
    return Classifier(trained.model, found.config.network, trained.preprocessing, len(found.classes), found.classes)


def of_weights(
    path: str | Path, network: str | None = None, stride_in: str | None = None, zero_channels: str | None = None
) -> Classifier:
    """The network of a weight file, with the preprocessing that the file tells, else the usual one.

    The usual one: ImageNet's mean and standard deviation, shorter side 256 and centre 224; for the networks of CIFAR,
    whose pictures have no margin, 32 both.

    network, stride_in, zero_channels   what the file may leave open, as for `weights.load`

    Raises what `weights.load` raises, and WeightsError for a network that takes neither colour nor grey pictures or
    for a preprocessing that cannot be.
    """
    model, match = weights.load(path, network=network, stride_in=stride_in, zero_channels=zero_channels)
    options = models.options(match.network) | dict(match.options)
    channels = options["in_channels"]
    if channels not in (1, 3):
        raise weights.WeightsError(f"{path}: its network takes {channels} channels; a picture has 3, or 1 in grey")
    told = {} if models.input_shape(match.network)[1] == 224 else {"resize": 32, "crop": 32}
    told |= GREY if channels == 1 else {}
    try:
        preprocessing = Preprocessing(**(told | match.preprocessing))
    except (TypeError, ValueError) as error:
        raise weights.WeightsError(f"{path}: its preprocessing cannot be followed: {error}") from None
    return Classifier(model, match.network, preprocessing, options["num_classes"], match.classes, match.notes)


# One number in place of three: the mean of each.
GREY: dict[str, Any] = {"grey": True, "mean": (0.449,), "std": (0.226,)}
