"""What a data set is, and how it fails."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from minires._checks import instance
from minires._repr import shown

if TYPE_CHECKING:
    from minires.data.folder import FolderImages


class DataError(RuntimeError):
    """A data set that cannot be had: not found, not downloadable, empty."""


class DataPathError(DataError):
    """The folder that the caller named is none."""


class DataFileError(DataError):
    """A file of a data set that is broken: truncated, corrupt, mislabelled."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Labelled images.

    name, split   e.g. "digits", "train"
    images        uint8 array (N, H, W, C), or the images of a folder, which are decoded when they are asked for
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
        if not hasattr(images, "read") and (
            not isinstance(images, np.ndarray) or images.ndim != 4 or images.dtype != np.uint8
        ):
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
        told = f"{len(self):,} images of {'×'.join(map(str, self.shape))}, {len(self.classes)} classes"
        return f"<{self.name} ({self.split}): {told}>"

    def __len__(self) -> int:
        return len(self.labels)

    def digest(self) -> str:
        """SHA-256 of the classes and of every label and image in order; of a folder, see `FolderImages.update`."""
        sha256 = hashlib.sha256(json.dumps([self.classes, self.shape]).encode())
        sha256.update(np.ascontiguousarray(self.labels, "<i8").data)
        if isinstance(self.images, np.ndarray):
            sha256.update(np.ascontiguousarray(self.images).data)
        else:
            self.images.update(sha256)
        return sha256.hexdigest()

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image as the network sees it."""
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
    """A Dataset, if the labels fit the images and the classes; `source` is named in the error otherwise."""
    if len(images) != len(labels):
        raise DataFileError(f"{source}: {len(images)} images, but {len(labels)} labels")
    if len(labels) and not (int(labels.min()) >= 0 and int(labels.max()) < len(classes)):
        wrong = int(labels.max()) if int(labels.max()) >= len(classes) else int(labels.min())
        raise DataFileError(f"{source}: label {wrong} is outside of [0, {len(classes)})")
    return Dataset(name, split, images, labels.astype(np.int64), classes)
