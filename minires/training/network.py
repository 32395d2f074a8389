"""The network of a run, and the settings that fit it."""

from __future__ import annotations

import math
from pathlib import Path

from minires import backends, models
from minires._repr import shown
from minires.data import Loader
from minires.inspect import Summary, summary
from minires.nn import Module
from minires.parallel import Communicator
from minires.training.checkpoint import Checkpoint, CheckpointError
from minires.training.config import Config, ConfigError
from minires.training.memory import check_weights
from minires.training.microbatch import micro_batches


def make_model(config: Config, classes: int, input_shape: tuple[int, int, int]) -> tuple[Module, Summary]:
    """The network on the device of its backend, and its layers for one image.

    Raises ConfigError when the network cannot be trained on such images.
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
    if _values_of_an_image(layers) == 1:
        # Micro-batches of at most two split a batch of three into two and one image; at most three never leaves one.
        for name, least in (("batch_size", 2), ("micro_batch", 3)):
            images = getattr(config, name)
            if images is not None and images < least:
                raise ConfigError(
                    f"{name} must be at least {least} for {config.network} on {config.data}, got {images}: batch norm "
                    "needs more than one value a channel"
                )
    model.astype(config.dtype)
    return model.to("cuda") if backends.on_gpu(config.backend) else model, layers


def check_shapes(checkpoint: Checkpoint, path: Path) -> None:
    """Raises CheckpointError when the arrays' shapes differ from the network that the configuration names.

    Compares shapes before the network is allocated: a few bytes of JSON can name a network of any size.
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


def check_ranks(config: Config, layers: Summary, loader: Loader, test_images: int, ranks: Communicator) -> None:
    """Raises ConfigError when some batch has no image for a rank, or too few images for its batch norm.

    layers   `summary` of the network
    loader   of the training images
    """
    if ranks.size == 1:
        return
    if config.batch_size < ranks.size:
        raise ConfigError(f"batch_size must be at least {ranks.size}, an image a rank, got {config.batch_size}")
    batches = {loader.images_of(0), loader.images_of(len(loader) - 1)}
    smallest, whole = min((part.size, N) for N in batches for part in micro_batches(N, config.micro_batch))
    part = f"{smallest} images" + ("" if smallest == whole else f" (a part of a batch of {whole})")
    if smallest < ranks.size:
        raise ConfigError(f"batch_size must leave no batch with fewer images than the {ranks.size} ranks, got {part}")
    if test_images < ranks.size:
        raise ConfigError(f"the test set must hold an image for each of the {ranks.size} ranks, got {test_images}")
    if not config.sync_batch_norm and smallest // ranks.size * _values_of_an_image(layers) < 2:
        raise ConfigError(
            f"sync_batch_norm must be on for {ranks.size} ranks with a batch of {part}: a rank's own batch norm would "
            "have one value a channel"
        )


def _values_of_an_image(layers: Summary) -> int:
    """The fewest values a channel of one image in any batch norm; 2 without batch norm."""
    return min((math.prod(row.output_shape[1:]) for row in layers.rows if row.operation == "BatchNorm"), default=2)
