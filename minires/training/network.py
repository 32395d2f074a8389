"""The network of a run."""

from __future__ import annotations

import math
from pathlib import Path

from minires import backends, models
from minires._repr import shown
from minires.inspect import Summary, summary
from minires.nn import Module
from minires.training.checkpoint import Checkpoint, CheckpointError
from minires.training.config import Config, ConfigError
from minires.training.memory import check_weights


def make_model(config: Config, classes: int, input_shape: tuple[int, int, int]) -> tuple[Module, Summary]:
    """The network of a run, on the device of its backend, and its layers for one image.

    Raises ConfigError where the images don't fit it.
    """
    try:
        options = {"num_classes": classes, "in_channels": input_shape[0], **config.network_options()}
        check_weights(config, options)
        model = models.create(config.network, **options)
        layers = summary(model, input_shape)
    except ConfigError:
        raise
    except (TypeError, ValueError) as error:
        shape = "×".join(map(str, input_shape))
        raise ConfigError(f"{config.network} cannot be trained on {config.data} ({shape}): {error}") from None
    pixels = values_of_an_image(layers)
    if pixels == 1:
        # A batch of three in parts of at most two has a part of one image; with at most three, no batch has.
        for name, least in (("batch_size", 2), ("micro_batch", 3)):
            images = getattr(config, name)
            if images is not None and images < least:
                told = f"{name} must be at least {least} for {config.network} on {config.data}, got {images}"
                raise ConfigError(f"{told}: of one value a channel, batch norm makes nothing")
    model.astype(config.dtype)
    return model.to("cuda") if backends.on_gpu(config.backend) else model, layers


def check_shapes(checkpoint: Checkpoint, path: Path) -> None:
    """Raises CheckpointError where the arrays are not those of the network that the configuration names.

    Compares shapes before memory is taken for the network: a few bytes of JSON can name one of any size.
    """
    config = checkpoint.config
    options = {"num_classes": len(checkpoint.classes), "in_channels": checkpoint.input_shape[0]}
    options |= config.network_options()
    misfit = f"{path} does not fit {config.network}"
    try:
        expected = models.shapes(config.network, **options)
    except (MemoryError, TypeError, ValueError) as error:
        raise CheckpointError(f"{misfit}: {error}") from None
    found = {name: array.shape for name, array in checkpoint.model.items()}
    for name in {**expected, **found}:
        if found.get(name) != expected.get(name):
            raise CheckpointError(f"{misfit}: {shown(name)} has shape {found.get(name)}, not {expected.get(name)}")


def values_of_an_image(layers: Summary) -> int:
    """The fewest values a channel that a batch norm sees of one image; 2 where there is no batch norm."""
    return min((math.prod(row.output_shape[1:]) for row in layers.rows if row.operation == "BatchNorm"), default=2)
