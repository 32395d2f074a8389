"""From a configuration to batches."""

from __future__ import annotations

from minires import data
from minires.arrays import Array
from minires.data import Augmentation, Dataset, Loader, Transform
from minires.training.config import Config, ConfigError


def images(config: Config, split: str, download: bool = False) -> Dataset:
    """The images of a run; ConfigError for a size that they cannot have, else what `minires.data.load` raises."""
    try:
        return data.load(config.data, split, config.data_dir, download, config.size)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def training_loader(config: Config, images: Dataset, mean: Array) -> Loader:
    """Shuffled and augmented batches without end; a pure function of seed and iteration."""
    augmentation = data.recipe(config.data, config.size) if config.augment else Augmentation()
    options = {} if config.workers is None else {"workers": config.workers}
    transform = Transform(mean, augmentation)
    return Loader(images, config.batch_size, transform=transform, seed=config.seed, shuffle=True, **options)


def evaluation_loader(config: Config, images: Dataset, mean: Array) -> Loader:
    """One ordered pass over the images as they are, as many at a time as in training."""
    options = {} if config.workers is None else {"workers": config.workers}
    images_at_a_time = config.micro_batch or config.batch_size
    return Loader(images, images_at_a_time, transform=Transform(mean), shuffle=False, **options)
