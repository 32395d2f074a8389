"""Transforms stored images to the network's input: mean subtraction and augmentation of a whole batch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from minires._checks import flag, instance, integer, number
from minires._repr import shown
from minires.data.dataset import Dataset
from minires.data.images import FolderImages, spread

# Eigenvalues and eigenvectors of the colours of ImageNet in [0, 1] (Krizhevsky et al., 2012, section 4.1; the paper's
# "standard color augmentation").
COLOUR_VALUES = np.array([0.2175, 0.0188, 0.0045])
COLOUR_VECTORS = np.array(
    [[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]]
)  # (channel, component)


@dataclass(frozen=True)
class Augmentation:
    """Random changes to training images.

    pad      width of the border of zeros before the random crop to the old size (section 4.2: 4)
    flip     whether to mirror with probability 1/2
    colour   standard deviation of the shift along the principal components of colour (0.1 for ImageNet; 0: none)
    rotate   largest angle in degrees, in both directions
    zoom     largest stretch, as a share of the size, of height and width independently (0.15: 1/1.15 to 1.15)
    shift    largest translation in pixels, fractions included, in each direction
    """

    pad: int = 0
    flip: bool = False
    colour: float = 0.0
    rotate: float = 0.0
    zoom: float = 0.0
    shift: float = 0.0

    def __post_init__(self) -> None:
        integer(self.pad, "pad", 0, 2**14)
        flag(self.flip, "flip")
        number(self.colour, "colour", 0, 1e4)
        number(self.rotate, "rotate", 0, 180)
        number(self.zoom, "zoom", 0, 1e4)
        number(self.shift, "shift", 0, 2**14)


@dataclass(frozen=True)
class Part:
    """Some images of a batch of `total` images, by their places in it.

    Random numbers are drawn for the whole batch and selected by place.  So the change of an image does not depend on
    the division of the batch among processes.
    """

    places: NDArray[np.intp]
    total: int

    @classmethod
    def whole(cls, N: int) -> Part:
        return cls(np.arange(N), N)


class Transform:
    """uint8 (N, H, W, C) -> float32 (N, C, H, W), channels-last in memory: scaled to [0, 1], minus the mean, augmented.

    mean           (H, W, C) in [0, 1] units: the per-pixel mean of the training images; None: not subtracted
    augmentation   applied only in calls with a random generator, for training
    """

    def __init__(self, mean: NDArray[np.float32] | None = None, augmentation: Augmentation | None = None) -> None:
        if mean is not None and not (isinstance(mean, np.ndarray) and mean.dtype.kind == "f"):
            raise TypeError(f"mean must be a floating array, got {shown(mean)}")
        self.mean = mean
        self.augmentation = Augmentation()
        if augmentation is not None:
            self.augmentation = instance(augmentation, "augmentation", Augmentation)

    def __call__(
        self, images: NDArray[np.uint8], rng: np.random.Generator | None = None, part: Part | None = None
    ) -> NDArray[np.float32]:
        """part: the place of these images in a larger batch; an image gets the same change as in the whole batch."""
        if not isinstance(images, np.ndarray) or images.ndim != 4 or images.dtype != np.uint8:
            raise TypeError(f"images must be a uint8 array (N, H, W, C), got {shown(images)}")
        if rng is not None:
            instance(rng, "rng", np.random.Generator)
        if self.mean is not None and self.mean.shape != images.shape[1:]:
            raise ValueError(f"mean must have the shape of an image, {images.shape[1:]}, got {self.mean.shape}")
        part = Part.whole(len(images)) if part is None else instance(part, "part", Part)
        if len(part.places) != len(images):
            raise ValueError(f"part must place each of the {len(images)} images, got {len(part.places)} places")
        x = images.astype(np.float32)
        x /= 255
        augmentation = self.augmentation
        if rng is not None and (augmentation.rotate or augmentation.zoom or augmentation.shift):
            # before the subtraction, so that the border is black
            x = warp(x, augmentation.rotate, augmentation.zoom, augmentation.shift, rng, part)
        if self.mean is not None:
            x -= self.mean
        if rng is not None:
            if self.augmentation.colour:
                x = shift_colours(x, self.augmentation.colour, rng, part)
            if self.augmentation.pad or self.augmentation.flip:
                x = crop_and_flip(x, self.augmentation.pad, self.augmentation.flip, rng, part)
        return x.transpose(0, 3, 1, 2)


def crop_and_flip(
    x: NDArray[np.float32], pad: int, flip: bool, rng: np.random.Generator, part: Part | None = None
) -> NDArray[np.float32]:
    """(N, H, W, C) -> (N, H, W, C): a random window of each padded image, half of them mirrored."""
    N, H, W, C = x.shape
    padded = np.zeros((N, H + 2 * pad, W + 2 * pad, C), x.dtype)
    padded[:, pad : pad + H, pad : pad + W] = x
    part = part or Part.whole(N)
    top, left = rng.integers(0, 2 * pad + 1, (2, part.total))[:, part.places]
    mirrored = np.less(rng.random((part.total, 1))[part.places], 0.5 if flip else 0.0)
    columns = np.where(mirrored, np.arange(W)[::-1], np.arange(W)) + left[:, None]  # (N, W)
    rows = np.arange(H) + top[:, None]  # (N, H)
    return padded[np.arange(N)[:, None, None], rows[:, :, None], columns[:, None, :]]


def warp(
    x: NDArray[np.float32],
    rotate: float,
    zoom: float,
    shift: float,
    rng: np.random.Generator,
    part: Part | None = None,
) -> NDArray[np.float32]:
    """(N, H, W, C) -> (N, H, W, C): random rotation, stretch and translation of each image, interpolated bilinearly."""
    N, H, W, C = x.shape
    part = part or Part.whole(N)
    angle = np.deg2rad(rng.uniform(-rotate, rotate, (part.total, 1, 1))[part.places])
    # in the logarithm, so that 1/1.1 is as probable as 1.1
    stretch = np.exp(rng.uniform(-np.log1p(zoom), np.log1p(zoom), (2, part.total, 1, 1))[:, part.places])
    move = rng.uniform(-shift, shift, (2, part.total, 1, 1))[:, part.places]
    row, column = np.arange(H)[:, None] - (H - 1) / 2, np.arange(W) - (W - 1) / 2  # from the centre
    # Coordinates in x of each output pixel, on an image with a border of 1 in place of everything outside.
    i = (np.cos(angle) * row - np.sin(angle) * column) * stretch[0] + move[0] + (H + 1) / 2  # (N, H, W)
    j = (np.sin(angle) * row + np.cos(angle) * column) * stretch[1] + move[1] + (W + 1) / 2
    i, j = np.clip(i, 0, H + 0.999), np.clip(j, 0, W + 0.999)
    bordered = np.zeros((N, H + 2, W + 2, C), x.dtype)
    bordered[:, 1:-1, 1:-1] = x
    top, left = i.astype(int), j.astype(int)
    down, right = ((k - np.floor(k))[..., None].astype(x.dtype) for k in (i, j))  # (N, H, W, 1)
    n = np.arange(N)[:, None, None]
    upper = bordered[n, top, left] * (1 - right) + bordered[n, top, left + 1] * right
    lower = bordered[n, top + 1, left] * (1 - right) + bordered[n, top + 1, left + 1] * right
    return upper * (1 - down) + lower * down


def shift_colours(
    x: NDArray[np.float32], deviation: float, rng: np.random.Generator, part: Part | None = None
) -> NDArray[np.float32]:
    """(N, H, W, 3) -> (N, H, W, 3): one random shift per image along the principal components of colour."""
    if x.shape[3] != 3:
        raise ValueError(f"colour augmentation needs images of 3 channels, got {x.shape[3]}")
    part = part or Part.whole(len(x))
    amounts = rng.normal(0, deviation, (part.total, 3))[part.places] * COLOUR_VALUES  # (N, component)
    shift = (amounts @ COLOUR_VECTORS.T).astype(x.dtype)  # (N, 3)
    return x + shift[:, None, None, :]


def pixel_mean(dataset: Dataset, sample: int = 1024) -> NDArray[np.float32]:
    """(H, W, C): the mean image in [0, 1] units; for a folder, the mean of `sample` evenly spread centre crops."""
    images = instance(dataset, "dataset", Dataset).images
    if integer(sample, "sample", 1) and not len(images):
        raise ValueError("dataset must hold at least one image for their mean, got none")
    if isinstance(images, FolderImages):
        chosen = spread(len(images), sample)
        total = np.zeros(images.shape[1:])
        for index in chosen:
            total += images.read(index)
        return (total / (255 * len(chosen))).astype(np.float32)
    return (images.mean(axis=0, dtype=np.float64) / 255).astype(np.float32)
