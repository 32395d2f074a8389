"""A folder of images, one folder per class, as ImageNet is laid out: ROOT/train/CLASS/*.jpg, ROOT/val/CLASS/*.jpg.

Without train and val, ROOT/CLASS/*.jpg is divided by `test_fraction`.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from minires import _checks
from minires._atomic import open_regular
from minires._checks import choice, integer
from minires.data.dataset import DataError, DataFileError, Dataset, checked
from minires.data.decode import decode
from minires.data.preprocess import centre, margin, scale

NAME = "folder"
SUFFIXES = (".jpg", ".jpeg", ".png")
SPLITS = {"train": ("train",), "test": ("val", "test")}


def spread(N: int, most: int = 1024) -> list[int]:
    """At most so many of N indices, evenly spread over them."""
    return [int(index) for index in np.unique(np.linspace(0, N - 1, min(most, N)).astype(int))]


class FolderImages:
    """The images of a folder, decoded when asked for.

    paths   the files
    size    side of the square that the network sees (224)
    crop    how a training image is cut: "scale-jitter" (the shorter side drawn from [256, 480] for size 224, then a
            random square: section 3.4 of the paper) or "random-resized" (a random part of 8 to 100 % of the area)
    """

    def __init__(self, paths: Sequence[Path], size: int = 224, crop: str = "scale-jitter") -> None:
        self.paths = tuple(_checks.path(path, "paths") for path in _checks.iterable(paths, "paths", "paths of files"))
        self.size = integer(size, "size", 1, 2**14)
        self.crop = choice(crop, "crop", ("scale-jitter", "random-resized"))

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return len(self.paths), self.size, self.size, 3

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, chosen: slice) -> FolderImages:
        """Some of the images, not yet decoded."""
        _checks.instance(chosen, "chosen", slice)
        for bound in (chosen.start, chosen.stop, chosen.step):
            if bound is not None:
                _checks.integer(bound, "chosen")
        return FolderImages(self.paths[chosen], self.size, self.crop)

    def read(self, index: int, rng: np.random.Generator | None = None) -> NDArray[np.uint8]:
        """Image `index` as (size, size, 3): a random cut drawn from `rng`, or the centre crop for evaluation.

        Evaluation scales the shorter side to size · 256/224 first.  Raises DataFileError for a file that `decode`
        refuses.
        """
        path = self.paths[_checks.integer(index, "index")]
        if rng is not None:
            _checks.instance(rng, "rng", np.random.Generator)
        image = decode(path)
        try:
            return np.asarray(self._cut(image, rng), np.uint8)
        except ValueError as error:
            raise DataFileError(f"{path}: {error}") from None

    def update(self, sha256: hashlib._Hash) -> None:
        """Adds every file's class, name and size in order, and the content of up to 1,024 files, evenly spread.

        To read all of ImageNet would take hours.  Raises DataFileError where a file cannot be read.
        """
        read = set(spread(len(self)))
        for index, path in enumerate(self.paths):
            try:
                with open_regular(path) as file:
                    size = os.fstat(file.fileno()).st_size
                    sha256.update(json.dumps([path.parent.name, path.name, size]).encode())
                    if index in read:
                        sha256.update(file.read())
            except OSError as error:
                raise DataFileError(f"{path}: {error.strerror}") from None

    def _cut(self, image: Image.Image, rng: np.random.Generator | None) -> Image.Image:
        if rng is None:
            return centre(scale(image, margin(self.size)), self.size)
        if self.crop == "random-resized":
            return self._random_part(image, rng)
        image = scale(image, int(rng.integers(margin(self.size), round(self.size * 480 / 224) + 1)))
        left, top = round((image.width - self.size) * rng.random()), round((image.height - self.size) * rng.random())
        return image.crop((left, top, left + self.size, top + self.size))

    def _random_part(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        """A part of 8 to 100 % of the area with an aspect ratio of 3/4 to 4/3; a square of the middle if none fits."""
        W, H = image.size
        for _ in range(10):
            area = rng.uniform(0.08, 1.0) * W * H
            aspect = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
            w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if 0 < w <= W and 0 < h <= H:
                left, top = int(rng.integers(W - w + 1)), int(rng.integers(H - h + 1))
                break
        else:
            w = h = min(W, H)
            left, top = (W - w) // 2, (H - h) // 2
        box = (left, top, left + w, top + h)
        return image.resize((self.size, self.size), Image.Resampling.BILINEAR, box=box)


def load(
    split: str,
    data_dir: str | os.PathLike[str] | None = None,
    size: int = 224,
    crop: str = "scale-jitter",
    test_fraction: float | None = None,
    seed: int = 0,
) -> Dataset:
    """test_fraction, seed: see `minires.data.load`; the same folder and seed give the same division."""
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
    images_ = FolderImages(paths, size, crop)
    return checked(NAME, split, images_, np.array(labels), classes, str(folder))


def _split_folder(root: Path, split: str) -> Path:
    for name in SPLITS[split]:
        if (root / name).is_dir():
            return root / name
    told = f"{root}: no folder {' or '.join(SPLITS[split])} with one folder per class in it"
    raise DataError(f"{told}; --test-fraction 0.2 divides a folder of classes")


def _undivided(root: Path) -> Path:
    for name in (*SPLITS["train"], *SPLITS["test"]):
        if (root / name).is_dir():
            raise DataError(f"{root}: has a folder {name}, so that test_fraction has nothing to divide; leave it out")
    if not root.is_dir():
        raise DataError(f"{root}: no such folder")
    return root


def _test_images(N: int, fraction: float, seed: tuple[int, ...], folder: Path) -> NDArray[np.bool_]:
    """Which of a class's N images are test images: the share that is nearest to `fraction`, but one at least."""
    count = max(1, round(_checks.number(fraction, "test_fraction", 0, 1, open_minimum=True) * N))
    if count >= N:
        raise DataError(f"{folder}: test_fraction {fraction} takes {count} of {N} images; one must be left to train on")
    test = np.zeros(N, np.bool_)
    test[np.random.default_rng(seed).permutation(N)[:count]] = True
    return test


def _classes(folder: Path) -> tuple[str, ...]:
    names = tuple(sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")))
    if not names:
        raise DataError(f"{folder}: no class folders")
    return names
