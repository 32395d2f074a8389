"""CIFAR-10, the binary version (Krizhevsky, 2009): records of a label byte and 3×32×32 bytes, plane by plane."""

from __future__ import annotations

import os
import tarfile
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from minires.data.dataset import Dataset, checked
from minires.data.errors import DataFileError
from minires.data.files import Remote, find, find_or_download

NAME = "cifar10"
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
ARCHIVE = Remote(
    "cifar-10-binary.tar.gz",
    "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    "c32a1d4ab5d03f1284b67883e8d87530",
    170_052_171,
)
INSIDE = "cifar-10-batches-bin"
FILES = {"train": [f"data_batch_{i}.bin" for i in range(1, 6)], "test": ["test_batch.bin"]}
RECORDS = 10_000  # in each file
RECORD = 1 + 3 * 32 * 32  # bytes


_CHOICES = [(name, f"{INSIDE}/{name}", ARCHIVE.name) for split in FILES.values() for name in split]


def where(data_dir: str | os.PathLike[str] | None = None) -> Path | None:
    """The folder that contains the six .bin files, their folder, or the archive."""
    return find(NAME, data_dir, _CHOICES)


def load(
    split: str,
    data_dir: str | os.PathLike[str] | None = None,
    download: bool = False,
    archive: Remote = ARCHIVE,
) -> Dataset:
    folder = find_or_download(
        NAME, data_dir, _CHOICES, [archive] if download else None,
        f"data_batch_1.bin ... test_batch.bin, or {ARCHIVE.name}",
        "put the binary version of CIFAR-10 into one of these folders, or let it be downloaded (--download)",
    )  # fmt: skip
    parts = [_records(folder, name) for name in FILES[split]]
    records = np.concatenate(parts)  # (N, 3073)
    images = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)  # -> (N, 32, 32, 3)
    return checked(NAME, split, np.ascontiguousarray(images), records[:, 0], CLASSES, f"{folder}: {split} labels")


def _records(folder: Path, name: str) -> NDArray[np.uint8]:
    """(10000, 3073)"""
    path = next((p for p in (folder / name, folder / INSIDE / name) if p.is_file()), None)
    limit = RECORDS * RECORD + 1
    try:
        if path is not None:
            source = str(path)
            with open(path, "rb") as file:
                payload = file.read(limit)
        else:
            source = f"{folder / ARCHIVE.name}: {INSIDE}/{name}"  # read without unpacking onto the disk
            with tarfile.open(folder / ARCHIVE.name, "r:gz") as archive:
                member = archive.extractfile(f"{INSIDE}/{name}")
                if member is None:
                    raise DataFileError(f"{source} is not a file")
                payload = member.read(limit)
    except KeyError:
        raise DataFileError(f"{source} is missing from the archive") from None
    except (tarfile.TarError, EOFError, zlib.error, OSError, ValueError, RecursionError) as error:
        # ValueError: sizes beyond the file; RecursionError: links to themselves.
        raise DataFileError(f"{source}: cannot be read: {error}") from None
    if len(payload) != limit - 1:
        size = "more" if len(payload) >= limit else f"{len(payload):,}"
        raise DataFileError(f"{source}: {limit - 1:,} bytes expected, the file holds {size}")
    return np.frombuffer(payload, np.uint8).reshape(RECORDS, RECORD)
