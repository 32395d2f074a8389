"""Data sets and loaders of a configuration."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from minires import data
from minires.arrays import Array
from minires.data import Augmentation, Dataset, Loader, Transform
from minires.parallel import Alone, Communicator, Shard
from minires.training.config import Config, ConfigError
from minires.training.microbatch import places


def images(config: Config, split: str, download: bool = False) -> Dataset:
    """The images of a split.  Raises ConfigError for an invalid size, and the other errors of `minires.data.load`."""
    try:
        size, fraction = config.size, config.test_fraction
        return data.load(config.data, split, config.data_dir, download, size, fraction, config.seed)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def training_loader(config: Config, images: Dataset, mean: Array, ranks: Communicator | None = None) -> Loader:
    """Shuffled, augmented batches, of which each rank loads its part; seed and iteration determine every batch."""
    augmentation = data.recipe(config.data, config.size) if config.augment else Augmentation()
    share = partial(places, micro_batch=config.micro_batch, ranks=ranks or Alone())
    transform = Transform(mean, augmentation)
    return Loader(
        images, config.batch_size, transform=transform, seed=config.seed, shuffle=True, share=share, **_workers(config)
    )


def evaluation_loader(config: Config, images: Dataset, mean: Array, ranks: Communicator | None = None) -> Loader:
    """One ordered pass over this rank's part of the images without augmentation, in batches as large as in training."""
    ranks = ranks or Alone()
    shard = Shard.of(len(images), ranks.rank, ranks.size)
    own = slice(shard.start, shard.stop)
    images = replace(images, images=images.images[own], labels=images.labels[own])
    batch_size = -(-(config.micro_batch or config.batch_size) // ranks.size)
    return Loader(images, batch_size, transform=Transform(mean), shuffle=False, **_workers(config))


def _workers(config: Config) -> dict[str, Any]:
    return {} if config.workers is None else {"workers": config.workers}
