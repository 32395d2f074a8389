"""Real images to train on, behind one small interface."""

from __future__ import annotations

import os
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

from minires import _checks
from minires._checks import choice, flag, integer, suggest
from minires._lazy import directory
from minires._shown import shown
from minires.data import cifar10, digits, fashion_mnist, folder
from minires.data.augment import Augmentation, Transform, pixel_mean
from minires.data.dataset import DataError, DataFileError, DataPathError, Dataset
from minires.data.folder import FolderImages
from minires.data.loader import Loader
from minires.data.preprocess import Preprocessing

__all__ = [
    "Augmentation",
    "DataError",
    "DataFileError",
    "DataPathError",
    "Dataset",
    "FolderImages",
    "Loader",
    "Preprocessing",
    "Transform",
    "find",
    "load",
    "names",
    "pixel_mean",
    "recipe",
]
__dir__ = directory(globals())

# Digits must not be mirrored, and fill their 8×8 pixels: they are turned and stretched a little instead.
_RECIPES = {
    "digits": Augmentation(rotate=15, zoom=0.15, shift=0.7),
    "fashion-mnist": Augmentation(pad=4, flip=True),
    "cifar10": Augmentation(pad=4, flip=True),
    "folder": Augmentation(flip=True, colour=0.1),
}


def names() -> tuple[str, ...]:
    """The data sets there are."""
    return tuple(_RECIPES)


def load(
    name: str,
    split: str = "train",
    data_dir: str | os.PathLike[str] | None = None,
    download: bool = False,
    size: int | None = None,
) -> Dataset:
    """A data set's images, labels and class names.

    name       "digits" (embedded in the package), "fashion-mnist", "cifar10", or "folder" (one folder per class)
    split      "train" or "test"
    data_dir   where to look first; then $MINIRES_DATA, the system's data sets, the user's cache
    download   fetch what is missing from its official address; without it the network is never touched
    size       "folder": side of the images (224); "fashion-mnist": a divisor of 28 to average down to

    Raises ValueError for an unknown name, DataPathError for a data_dir that is no folder, DataError when files are
    missing, DataFileError when one is broken.
    """
    _known(name)
    if not flag(download, "download"):  # which would make the folder
        _given(data_dir)
    choice(split, "split", ("train", "test"))
    options: dict[str, Any] = {} if size is None else {"size": integer(size, "size", 1)}
    if options and name not in ("fashion-mnist", "folder"):
        raise ValueError(f"size cannot be chosen for {name!r}, got {size}")
    if name == "digits":
        return digits.load(split)
    if name == "fashion-mnist":
        return fashion_mnist.load(split, data_dir, download, **options)
    if name == "cifar10":
        return cifar10.load(split, data_dir, download)
    return folder.load(split, data_dir, **options)


def recipe(name: str, size: int | None = None) -> Augmentation:
    """The default augmentation of a data set; images of 14 pixels and less are padded by 2 instead of 4."""
    augmentation = _RECIPES[_known(name)]
    if size is not None and integer(size, "size", 1) <= 14 and augmentation.pad > 2:
        return replace(augmentation, pad=2)
    return augmentation


def find(name: str, data_dir: str | os.PathLike[str] | None = None) -> Path | None:
    """Where the files of a data set are, or None; DataPathError for a data_dir that is no folder."""
    _given(data_dir)
    if _known(name) == "digits":
        return Path(str(resources.files("minires.data") / "digits.csv.gz"))
    if name == "fashion-mnist":
        return fashion_mnist.where(data_dir)
    if name == "cifar10":
        return cifar10.where(data_dir)
    root = data_dir or os.environ.get("MINIRES_DATA")
    return Path(root) if root and (Path(root) / "train").is_dir() else None


def _given(data_dir: str | os.PathLike[str] | None) -> None:
    if data_dir is not None and not os.path.isdir(_checks.path(data_dir, "data_dir")):
        raise DataPathError(f"data_dir must be a folder, got {shown(os.fspath(data_dir))}")


def _known(name: str) -> str:
    if not isinstance(name, str) or name not in _RECIPES:
        raise ValueError(f"unknown data set {shown(name)}; known are {', '.join(_RECIPES)}.{suggest(name, _RECIPES)}")
    return name
