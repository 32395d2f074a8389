"""Data sets of images for training, and the loader of batches."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minires import _checks
from minires._checks import choice, flag, instance, integer, suggest
from minires._lazy import directory
from minires._repr import shown
from minires.data import cifar10, digits, fashion_mnist, folder
from minires.data.augment import Augmentation, Transform, pixel_mean
from minires.data.dataset import Dataset
from minires.data.errors import DataError, DataFileError, DataPathError
from minires.data.images import FolderImages
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
    "from_arrays",
    "load",
    "names",
    "pixel_mean",
    "recipe",
    "register",
]
__dir__ = directory(globals())

# Digits must not be mirrored, and their 8×8 pixels leave no margin to crop: they get small warps instead.
_RECIPES = {
    "digits": Augmentation(rotate=15, zoom=0.15, shift=0.7),
    "fashion-mnist": Augmentation(pad=4, flip=True),
    "cifar10": Augmentation(pad=4, flip=True),
    "folder": Augmentation(flip=True, colour=0.1),
}

_MOST_CLASSES = 1_000_000  # in `from_arrays`: a larger label is hardly an index of a class

_OWN: dict[str, tuple[Callable[[str], Dataset], Augmentation]] = {}  # registered data sets by name


def names() -> tuple[str, ...]:
    """The names of all data sets, including your registered ones."""
    return (*_RECIPES, *_OWN)


def from_arrays(
    images: NDArray[np.uint8],
    labels: Any,
    classes: Sequence[str] | None = None,
    *,
    name: str = "arrays",
    split: str = "train",
) -> Dataset:
    """A data set of your own arrays, for `Loader`, or for `register`.

    images   uint8 (N, H, W, C), or (N, H, W) for grey
    labels   integers (N,)
    classes  their names; None: "0", "1" ... up to the largest label, which must be below 1,000,000
    """
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.ndim not in (3, 4):
        floating = isinstance(images, np.ndarray) and images.dtype.kind == "f"
        hint = ".  Of numbers in [0, 1]: np.rint(255 * images).astype(np.uint8)" if floating else ""
        raise TypeError(f"images must be a uint8 array (N, H, W, C) or (N, H, W), got {shown(images)}{hint}")
    if isinstance(labels, (list, tuple)):
        try:
            labels = np.asarray(labels)
        except ValueError:
            raise TypeError(f"labels must be an integer array (N,), got {shown(labels)}") from None
    if classes is None and isinstance(labels, np.ndarray) and labels.ndim == 1 and labels.dtype.kind in "iu":
        number = int(labels.max()) + 1 if labels.size else 0
        if number > _MOST_CLASSES:
            allowed = f"labels must lie in [0, {_MOST_CLASSES:,}) where classes is None"
            raise ValueError(
                f"{allowed}, got {number - 1:,}; number the classes from 0: np.unique(labels, return_inverse=True)"
            )
        classes = [str(label) for label in range(number)]
    images = images if images.ndim == 4 else images[..., None]
    dataset = Dataset(name, split, images, labels, tuple(classes) if isinstance(classes, list) else classes)  # type: ignore[arg-type]
    return replace(dataset, labels=labels.astype(np.int64))


def register(name: str, load: Callable[[str], Dataset], augmentation: Augmentation | None = None) -> None:
    """Registers your own data set under a name, in this process, for `load` and so for `training.train`.

    name           letters, digits, - and _; replaces an earlier registration
    load           returns the Dataset of a split, "train" or "test", with the same classes for both
    augmentation   of training images; None: none
    """
    if not isinstance(name, str) or not name.replace("-", "").replace("_", "").isalnum() or name in _RECIPES:
        taken = ", ".join(_RECIPES)
        raise ValueError(f"name must be a name of letters, digits, - and _, and none of {taken}; got {shown(name)}")
    if not callable(load):
        raise TypeError(f"load must be a function of the split that returns a Dataset, got {shown(load)}")
    _OWN[name] = load, Augmentation() if augmentation is None else instance(augmentation, "augmentation", Augmentation)


def load(
    name: str,
    split: str = "train",
    data_dir: str | os.PathLike[str] | None = None,
    download: bool = False,
    size: int | None = None,
    test_fraction: float | None = None,
    seed: int = 0,
) -> Dataset:
    """A data set's images, labels and class names.

    name       "digits" (embedded in the package), "fashion-mnist", "cifar10", "folder" (one folder per class), or one
               of your registered data sets
    split      "train" or "test"
    data_dir   the folder to search first; then $MINIRES_DATA, the system's data sets, the user's cache
    download   whether to download missing files from their official address; otherwise the network is never used
    size       "folder": side of the images (224); "fashion-mnist": a divisor of 28 to average down to
    test_fraction   "folder" without train/ and test/: the share of each class's images that are test images
    seed       of the random choice of test images

    Raises ValueError for an unknown name, DataPathError when data_dir is no folder, DataError for missing files,
    DataFileError for a broken file.
    """
    _known(name)
    if not flag(download, "download"):  # a download makes the folder
        _given(data_dir)
    choice(split, "split", ("train", "test"))
    options: dict[str, Any] = {} if size is None else {"size": integer(size, "size", 1)}
    if options and name not in ("fashion-mnist", "folder"):
        raise ValueError(f"size cannot be chosen for {name!r}, got {size}")
    if test_fraction is not None and name != "folder":
        raise ValueError(f"test_fraction cannot be chosen for {name!r}, got {test_fraction}")
    if name in _OWN:
        return instance(_OWN[name][0](split), f"the result of load for data set {name!r}", Dataset)
    if name == "digits":
        return digits.load(split)
    if name == "fashion-mnist":
        return fashion_mnist.load(split, data_dir, download, **options)
    if name == "cifar10":
        return cifar10.load(split, data_dir, download)
    return folder.load(split, data_dir, test_fraction=test_fraction, seed=seed, **options)


def recipe(name: str, size: int | None = None) -> Augmentation:
    """The default augmentation of a data set; images of at most 14 pixels are padded by 2 instead of 4."""
    augmentation = _OWN[name][1] if _known(name) in _OWN else _RECIPES[name]
    if size is not None and integer(size, "size", 1) <= 14 and augmentation.pad > 2:
        return replace(augmentation, pad=2)
    return augmentation


def find(name: str, data_dir: str | os.PathLike[str] | None = None) -> Path | None:
    """The path of a data set's files, or None.  Raises DataPathError when data_dir is no folder."""
    _given(data_dir)
    if _known(name) in _OWN:
        return None
    if name == "digits":
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
    if not isinstance(name, str) or name not in names():
        raise ValueError(f"unknown data set {shown(name)}; known are {', '.join(names())}.{suggest(name, names())}")
    return name
