"""Figure 7: standard deviations of the layers' responses, plain and residual.

A response is the output of a 3×3 convolution after its batch norm, before ReLU and addition.  Its standard deviation is
taken over images, channels and pixels.  The paper's networks are trained on CIFAR-10.  At initialisation batch norm
makes every deviation 1, so the curves show nothing about residuals, as the title states.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from minires import models, random
from minires._plotting import encoded
from minires.arrays import Array
from minires.autograd import Function
from minires.context import Observer, no_grad
from minires.nn import Module
from minires.tensor import Tensor
from minires.training.batches import evaluation_loader, images
from minires.training.evaluation import on_device
from minires.training.restore import restore

INITIALISED = ("plain20", "plain56", "resnet20", "resnet56", "resnet110")
AT_INITIALISATION = "At initialisation batch norm makes every deviation 1; Figure 7 is about trained networks (--runs)."
IMAGES = 1_000  # of the test set


@dataclass(frozen=True)
class Responses:
    """The standard deviation of every 3×3 convolution's response, from the input to the output."""

    network: str
    trained_on: str
    deviations: tuple[float, ...]


class _Deviations(Observer):
    """Measures batch norms whose input is the output of a 3×3 convolution."""

    def __init__(self) -> None:
        self.found: list[float] = []
        self.convolved: Any = None

    def after_forward(self, node: Function, arrays: tuple[Array | None, ...], output: Array) -> None:
        if node.name == "Conv2d" and arrays[1] is not None and arrays[1].shape[2:] == (3, 3):
            self.convolved = output
        elif node.name.startswith("BatchNorm") and arrays[0] is self.convolved:
            self.found.append(float(output.std(dtype=np.float64)))


def initialised(network: str, seed: int = 0) -> Responses:
    """A network of the CIFAR family before training, on 32 random images, in training mode."""
    random.manual_seed(seed)
    model = models.create(network)
    images = np.random.default_rng(seed).standard_normal((32, 3, 32, 32)).astype(np.float32)
    return Responses(network, "", _deviations(model, images))


def of_run(path: Path, data_dir: str | None = None) -> Responses:
    """Figure 7 for the network of a run folder: the standard deviation of each layer's responses.

    The responses are those to the first 1,000 test images, in evaluation mode.

    Raises what `minires.training.restore` and `minires.data.load` raise, and ValueError if no batch norm follows a 3×3
    convolution.
    """
    trained = restore(path, **({} if data_dir is None else {"data_dir": data_dir}))
    config = trained.checkpoint.config
    batches = evaluation_loader(config, images(config, "test"), trained.checkpoint.mean).epoch()
    seen: list[Array] = []
    for x, _ in batches:
        seen.append(x)
        if sum(map(len, seen)) >= IMAGES:
            break
    found = _deviations(trained.model, np.concatenate(seen)[:IMAGES])
    if not found:
        raise ValueError(f"{config.network} has no 3×3 convolution that is followed by batch norm")
    return Responses(config.network, config.data, found)


def _deviations(model: Module, images: Array) -> tuple[float, ...]:
    with no_grad(), _Deviations() as watch:
        model(Tensor(on_device(model, images)))
    return tuple(watch.found)


def picture(responses: Sequence[Responses]) -> bytes:
    """In the order of the layers, below it sorted, as in the paper; plain networks dashed: a PNG's bytes."""
    figure = Figure(figsize=(7, 6.6), layout="constrained")
    depths = sorted({len(r.deviations) for r in responses})
    panels = figure.subplots(2, 1)
    for axes, label in zip(panels, ("layer, from the input", "layer, sorted by deviation"), strict=True):
        for r in responses:
            values = sorted(r.deviations, reverse=True) if "sorted" in label else list(r.deviations)
            style = "--" if r.network.startswith("plain") else "-"
            colour = f"C{depths.index(len(r.deviations))}"
            axes.plot(range(1, len(values) + 1), values, style, color=colour, label=r.network)
        axes.set(xlabel=label, ylabel="standard deviation")
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    trained = sorted({r.trained_on for r in responses if r.trained_on})
    title = f"Responses of the layers of networks trained on {', '.join(trained)}" if trained else AT_INITIALISATION
    figure.suptitle(title, fontsize=10)
    return encoded(figure)
