"""The network of a run."""

from __future__ import annotations

import math

from minires import backends, models
from minires.inspect import Summary, summary
from minires.nn import Module
from minires.training.config import Config, ConfigError


def make_model(config: Config, classes: int, input_shape: tuple[int, int, int]) -> tuple[Module, Summary]:
    """The network of a run, on the device of its backend, and its layers for one image.

    Raises ConfigError where the images don't fit it.
    """
    try:
        options = config.network_options()
        model = models.create(config.network, num_classes=classes, in_channels=input_shape[0], **options)
        layers = summary(model, input_shape)
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


def values_of_an_image(layers: Summary) -> int:
    """The fewest values a channel that a batch norm sees of one image; 2 where there is no batch norm."""
    return min((math.prod(row.output_shape[1:]) for row in layers.rows if row.operation == "BatchNorm"), default=2)
