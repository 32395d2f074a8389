"""Turns a picture into the network's input: scales the shorter side, crops the centre, normalises.

The results are bit-identical to torchvision's Resize, CenterCrop, ToTensor and Normalize.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from minires import _checks
from minires._checks import choice, flag, integer, number
from minires._repr import shown
from minires.data.decode import decode
from minires.data.errors import DataFileError

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of R, G, B in [0, 1]
INTERPOLATIONS = {name.lower(): member for name, member in Image.Resampling.__members__.items()}

_MOST_PIXELS = 2**28  # of a scaled picture: 1×20,000 pixels would become 1.3 G


def margin(size: int) -> int:
    """The shorter side of a picture before the centre crop to `size`: 256 for 224."""
    return round(size * 256 / 224)


@dataclass(frozen=True, eq=False)
class Preprocessing:
    """The preprocessing of a picture for a network; the defaults are ImageNet's.

    resize          length of the shorter side after scaling, in pixels
    crop            side of the square centre crop; a smaller picture gets a black border
    mean            subtracted, in units of [0, 1]: a number a channel, or an image (crop, crop, C)
    std             divisor: a number a channel
    interpolation   "bilinear", "bicubic", "nearest", "lanczos", "box", "hamming"
    grey            one channel of grey levels instead of R, G, B

    Raises TypeError or ValueError that names the argument.
    """

    resize: int = 256
    crop: int = 224
    mean: Sequence[float] | NDArray[np.float32] = IMAGENET_MEAN
    std: Sequence[float] = IMAGENET_STD
    interpolation: str = "bilinear"
    grey: bool = False

    def __post_init__(self) -> None:
        flag(self.grey, "grey")
        integer(self.resize, "resize", 1, 2**14)
        integer(self.crop, "crop", 1, 2**14)
        choice(self.interpolation, "interpolation", INTERPOLATIONS)
        C = self.channels
        if isinstance(self.mean, np.ndarray) and self.mean.ndim == 3:
            if self.mean.shape != (self.crop, self.crop, C):
                shape = "×".join(map(str, self.mean.shape))
                raise ValueError(f"crop and channels must match the mean image, {shape}, got {self.crop} and {C}")
        else:
            _numbers(self.mean, "mean", C)
        for value in _numbers(self.std, "std", C):
            number(value, "std", 0, open_minimum=True)

    @property
    def channels(self) -> int:
        return 1 if self.grey else 3

    def __call__(self, path: Path) -> NDArray[np.float32]:
        """The network's input (C, crop, crop) for a file.  Raises DataFileError."""
        return self.normalise(self.cut(path))

    def cut(self, path: Path) -> NDArray[np.uint8]:
        """The scaled and cropped picture (crop, crop, C) of a file.  Raises DataFileError."""
        image = decode(_checks.path(path, "path"), self.grey)
        try:
            image = scale(image, self.resize, INTERPOLATIONS[self.interpolation])
        except ValueError as error:
            raise DataFileError(f"{path}: {error}") from None
        return np.atleast_3d(np.asarray(centre(image, self.crop), np.uint8))

    def normalise(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(..., crop, crop, C) -> (..., C, crop, crop), channels-last in memory."""
        if not isinstance(images, np.ndarray) or images.dtype != np.uint8:
            raise TypeError(f"images must be a uint8 array (..., H, W, {self.channels}), got {shown(images)}")
        mean = np.asarray(self.mean, np.float32)
        if images.ndim < 3 or images.shape[-mean.ndim :] != mean.shape:
            sizes = ("H, W, " if mean.ndim == 1 else "") + ", ".join(map(str, mean.shape))
            raise ValueError(f"images must be (..., {sizes}), got shape {images.shape}")
        x = images.astype(np.float32)
        x /= 255
        x -= mean
        x /= np.asarray(self.std, np.float32)
        return np.moveaxis(x, -1, -3)

    def __repr__(self) -> str:
        return f"<preprocessing: {self}>"

    def __str__(self) -> str:
        grey = "in grey, " if self.grey else ""
        how = "" if self.interpolation == "bilinear" else f" ({self.interpolation})"
        image = isinstance(self.mean, np.ndarray) and self.mean.ndim == 3
        mean = "minus the mean image" if image else f"mean {_listed(self.mean)}"
        std = "" if all(value == 1 for value in self.std) else f", std {_listed(self.std)}"
        return f"{grey}shorter side {self.resize}{how}, centre {self.crop}×{self.crop}, {mean}{std}"

    def to_json(self) -> dict[str, Any]:
        """Plain values; a mean image is replaced by the mean of each channel."""
        mean = np.asarray(self.mean, np.float64)
        return {
            "resize": self.resize,
            "crop": self.crop,
            "mean": (mean.mean(axis=(0, 1)) if mean.ndim == 3 else mean).tolist(),
            "std": [float(value) for value in self.std],
            "interpolation": self.interpolation,
            "grey": self.grey,
        }


def scale(image: Image.Image, side: int, interpolation: Image.Resampling = Image.Resampling.BILINEAR) -> Image.Image:
    """The picture scaled to a shorter side of `side`; the longer side is rounded down, as in torchvision.

    Raises ValueError when the result would have too many pixels.
    """
    short, long = sorted(image.size)
    stretched = int(side * long / short)
    if side * stretched > _MOST_PIXELS:
        raise ValueError(f"{image.width}×{image.height} pixels are too thin to scale the shorter side to {side}")
    size = (side, stretched) if image.width <= image.height else (stretched, side)
    return image if size == image.size else image.resize(size, interpolation)


def centre(image: Image.Image, size: int) -> Image.Image:
    """The centre square of side `size`, with a black border for a smaller picture."""
    left, top = _before(image.width, size), _before(image.height, size)
    return image.crop((left, top, left + size, top + size))


def _before(length: int, size: int) -> int:
    return round((length - size) / 2) if length >= size else -((size - length) // 2)


def _numbers(values: Any, argument: str, channels: int) -> list[float]:
    found = []
    if isinstance(values, (tuple, list)) or (isinstance(values, np.ndarray) and values.ndim == 1):
        values = values.tolist() if isinstance(values, np.ndarray) else values
        found = [number(value, argument) for value in values]
    if len(found) != channels:
        raise ValueError(
            f"{argument} must be {channels} number{'s' * (channels > 1)}, one a channel, got {shown(values)}"
        )
    return found


def _listed(values: Any) -> str:
    return " ".join(f"{value:.4g}" for value in values)
