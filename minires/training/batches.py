"""From a configuration to batches."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from minires import data
from minires.arrays import Array
from minires.data import Augmentation, Dataset, Loader, Transform
from minires.parallel import Alone, Communicator, Shard
from minires.training.config import Config, ConfigError
from minires.training.parts import places


def images(config: Config, split: str, download: bool = False) -> Dataset:
    """The images of a run; ConfigError for a size that they cannot have, else what `minires.data.load` raises."""
    try:
        size, fraction = config.size, config.test_fraction
        return data.load(config.data, split, config.data_dir, download, size, fraction, config.seed)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def training_loader(config: Config, images: Dataset, mean: Array, ranks: Communicator | None = None) -> Loader:
    """Shuffled and augmented batches without end; a pure function of seed and iteration, a part for each rank."""
    augmentation = data.recipe(config.data, config.size) if config.augment else Augmentation()
    share = partial(places, micro_batch=config.micro_batch, ranks=ranks or Alone())
    options: dict[str, Any] = {} if config.workers is None else {"workers": config.workers}
    transform = Transform(mean, augmentation)
    return Loader(
        images, config.batch_size, transform=transform, seed=config.seed, shuffle=True, share=share, **options
    )


def evaluation_loader(config: Config, images: Dataset, mean: Array, ranks: Communicator | None = None) -> Loader:
    """One ordered pass over the images as they are, as many at a time as in training, each rank over its part."""
    options: dict[str, Any] = {} if config.workers is None else {"workers": config.workers}
    ranks = ranks or Alone()
    shard = Shard.of(len(images), ranks.rank, ranks.size)
    mine = slice(shard.start, shard.stop)
    images = replace(images, images=images.images[mine], labels=images.labels[mine])
    images_at_a_time = -(-(config.micro_batch or config.batch_size) // ranks.size)
    return Loader(images, images_at_a_time, transform=Transform(mean), shuffle=False, **options)
