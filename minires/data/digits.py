"""The UCI handwritten digits: 1,797 images of 8×8 inside the package (see digits.txt)."""

from __future__ import annotations

import gzip
from importlib import resources

import numpy as np

from minires.data.dataset import Dataset, checked

CLASSES = tuple("0123456789")


def load(split: str) -> Dataset:
    """Every fifth image of each digit is a test image: 364 of 1,797.  The 17 grey levels are scaled to 0..255."""
    source = resources.files("minires.data") / "digits.csv.gz"
    with source.open("rb") as packed, gzip.open(packed, "rt") as text:
        table = np.loadtxt(text, delimiter=",", dtype=np.int64)  # (1797, 65)
    labels = table[:, 64]
    images = np.rint(table[:, :64] * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1)
    nth = np.zeros(len(labels), np.int64)  # index of each image within its class
    for digit in range(10):
        nth[labels == digit] = np.arange((labels == digit).sum())
    chosen = (nth % 5 == 0) if split == "test" else (nth % 5 != 0)
    return checked("digits", split, images[chosen], labels[chosen], CLASSES, "digits.csv.gz")
