"""A folder of images, one folder per class, as ImageNet is laid out: ROOT/train/CLASS/*.jpg, ROOT/val/CLASS/*.jpg.

Without train and val, `test_fraction` divides ROOT/CLASS/*.jpg.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from minires import _checks
from minires.data.dataset import Dataset, checked
from minires.data.errors import DataError, DataFileError
from minires.data.images import FolderImages

NAME = "folder"
SUFFIXES = (".jpg", ".jpeg", ".png")
SPLITS = {"train": ("train",), "test": ("val", "test")}


def load(
    split: str,
    data_dir: str | os.PathLike[str] | None = None,
    size: int = 224,
    test_fraction: float | None = None,
    seed: int = 0,
) -> Dataset:
    """See `minires.data.load`; the same folder and seed give the same division."""
    root = data_dir or os.environ.get("MINIRES_DATA")
    if not root:
        raise DataError("data set 'folder' needs its folder: --data-dir DIR (or $MINIRES_DATA), with train/CLASS/*.jpg")
    whole = test_fraction is not None
    folder = _undivided(Path(root)) if whole else _split_folder(Path(root), split)
    classes = _classes(folder if whole else _split_folder(Path(root), "train"))
    unknown = sorted(set(_classes(folder)) - set(classes))
    if unknown:
        raise DataError(f"{folder}: class {unknown[0]!r} does not occur in the training images")
    paths: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        own = folder / name
        images = sorted(p for p in own.iterdir() if p.suffix.lower() in SUFFIXES) if own.is_dir() else []
        for path in images:
            if not path.is_file():
                raise DataFileError(f"{path}: not a regular file; remove it")
        if not images:
            raise DataError(f"{own}: no images (of {', '.join(SUFFIXES)})")
        if test_fraction is not None:
            test = _test_images(len(images), test_fraction, (seed, 2, label), own)
            images = [path for path, is_test in zip(images, test, strict=True) if is_test == (split == "test")]
        paths += images
        labels += [label] * len(images)
    return checked(NAME, split, FolderImages(paths, size), np.array(labels), classes, str(folder))


def _split_folder(root: Path, split: str) -> Path:
    for name in SPLITS[split]:
        if (root / name).is_dir():
            return root / name
    raise DataError(
        f"{root}: no folder {' or '.join(SPLITS[split])} with one folder per class in it; --test-fraction 0.2 divides "
        "a folder of classes"
    )


def _undivided(root: Path) -> Path:
    for name in (*SPLITS["train"], *SPLITS["test"]):
        if (root / name).is_dir():
            raise DataError(f"{root}: has a folder {name}, which test_fraction cannot divide; omit test_fraction")
    if not root.is_dir():
        raise DataError(f"{root}: no such folder")
    return root


def _test_images(N: int, fraction: float, seed: tuple[int, ...], folder: Path) -> NDArray[np.bool_]:
    """Whether each of a class's N images is a test image: the nearest share to `fraction`, at least one image."""
    count = max(1, round(_checks.number(fraction, "test_fraction", 0, 1, open_minimum=True) * N))
    if count >= N:
        raise DataError(f"{folder}: test_fraction {fraction} takes {count} of {N} images; one must remain for training")
    test = np.zeros(N, np.bool_)
    test[np.random.default_rng(seed).permutation(N)[:count]] = True
    return test


def _classes(folder: Path) -> tuple[str, ...]:
    names = tuple(sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")))
    if not names:
        raise DataError(f"{folder}: no class folders")
    return names
