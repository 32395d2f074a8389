"""A data set: labelled images."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from minires._checks import instance
from minires._repr import shown
from minires.data.errors import DataFileError
from minires.data.images import FolderImages


@dataclass(frozen=True, eq=False)
class Dataset:
    """Labelled images.

    name, split   e.g. "digits", "train"
    images        uint8 array (N, H, W, C), or the images of a folder, decoded on access
    labels        int64 array (N,), each an index into classes
    classes       the names of the classes
    """

    name: str
    split: str
    images: NDArray[np.uint8] | FolderImages
    labels: NDArray[np.int64]
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        labels, images = self.labels, self.images
        if not isinstance(labels, np.ndarray) or labels.ndim != 1 or labels.dtype.kind not in "iu":
            raise TypeError(f"labels must be an integer array (N,), got {shown(labels)}")
        array = isinstance(images, np.ndarray) and images.ndim == 4 and images.dtype == np.uint8
        if not array and not isinstance(images, FolderImages):
            raise TypeError(f"images must be a uint8 array (N, H, W, C) or FolderImages, got {shown(images)}")
        if len(images) != len(labels):
            raise ValueError(f"labels must be as many as images, {len(images):,}, got {len(labels):,}")
        if not isinstance(self.classes, (tuple, list)) or not all(isinstance(name, str) for name in self.classes):
            raise TypeError(f"classes must be a tuple of names, got {shown(self.classes)}")
        if len(labels) and not (int(labels.min()) >= 0 and int(labels.max()) < len(self.classes)):
            wrong = int(labels.max()) if int(labels.max()) >= len(self.classes) else int(labels.min())
            raise ValueError(f"labels must lie in [0, {len(self.classes)}), one of the classes, got {wrong}")
        for name in ("name", "split"):
            instance(getattr(self, name), name, str)

    def __repr__(self) -> str:
        size = "×".join(map(str, self.shape))
        return f"<{self.name} ({self.split}): {len(self):,} images of {size}, {len(self.classes)} classes>"

    def __len__(self) -> int:
        return len(self.labels)

    def digest(self) -> str:
        """SHA-256 of the classes, and of every label and image in order; for a folder, see `FolderImages.update`."""
        sha256 = hashlib.sha256(json.dumps([self.classes, self.shape]).encode())
        sha256.update(np.ascontiguousarray(self.labels, "<i8").data)
        if isinstance(self.images, np.ndarray):
            sha256.update(np.ascontiguousarray(self.images).data)
        else:
            self.images.update(sha256)
        return sha256.hexdigest()

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image, the network's input."""
        H, W, C = self.images.shape[1:]
        return C, H, W


def checked(
    name: str,
    split: str,
    images: NDArray[np.uint8] | FolderImages,
    labels: NDArray[np.integer],
    classes: tuple[str, ...],
    source: str,
) -> Dataset:
    """A Dataset of files.  Raises DataFileError that names `source` when labels and images don't fit."""
    try:
        return Dataset(name, split, images, labels.astype(np.int64), classes)
    except ValueError as error:
        raise DataFileError(f"{source}: {error}") from None
