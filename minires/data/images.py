"""The images of a folder, decoded on access."""

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
from minires._checks import choice, instance, integer
from minires.data.decode import decode
from minires.data.errors import DataFileError
from minires.data.preprocess import centre, margin, scale


def spread(N: int, most: int = 1024) -> list[int]:
    """At most `most` of the indices 0, ..., N − 1, evenly spread."""
    return [int(index) for index in np.unique(np.linspace(0, N - 1, min(most, N)).astype(int))]


class FolderImages:
    """Images in files, decoded on access.

    paths   the files
    size    side of the square input of the network (224)
    crop    of training images: "scale-jitter" (the shorter side drawn from [256, 480] for size 224, then a random
            square: section 3.4 of the paper) or "random-resized" (a random part of 8 to 100 % of the area)
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
        instance(chosen, "chosen", slice)
        for bound in (chosen.start, chosen.stop, chosen.step):
            if bound is not None:
                integer(bound, "chosen")
        return FolderImages(self.paths[chosen], self.size, self.crop)

    def read(self, index: int, rng: np.random.Generator | None = None) -> NDArray[np.uint8]:
        """Image `index` as (size, size, 3): a random crop drawn from `rng`, or the centre crop for evaluation.

        Evaluation scales the shorter side to size · 256/224 first.  Raises the DataFileError of `decode`.
        """
        path = self.paths[integer(index, "index")]
        if rng is not None:
            instance(rng, "rng", np.random.Generator)
        image = decode(path)
        try:
            return np.asarray(self._cropped(image, rng), np.uint8)
        except ValueError as error:
            raise DataFileError(f"{path}: {error}") from None

    def update(self, sha256: hashlib._Hash) -> None:
        """Adds every file's class, name and size in order, and the content of up to 1,024 files, evenly spread.

        Reading all of ImageNet would take hours.  Raises DataFileError for an unreadable file.
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

    def _cropped(self, image: Image.Image, rng: np.random.Generator | None) -> Image.Image:
        if rng is None:
            return centre(scale(image, margin(self.size)), self.size)
        if self.crop == "random-resized":
            return self._random_part(image, rng)
        image = scale(image, int(rng.integers(margin(self.size), round(self.size * 480 / 224) + 1)))
        left, top = round((image.width - self.size) * rng.random()), round((image.height - self.size) * rng.random())
        return image.crop((left, top, left + self.size, top + self.size))

    def _random_part(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        """A part of 8 to 100 % of the area with an aspect ratio of 3/4 to 4/3; the centre square after ten misfits."""
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
