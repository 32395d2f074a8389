"""Fashion-MNIST (Xiao, Rasul, Vollgraf, arXiv:1708.07747): 60,000 + 10,000 grey images of 28×28 in ten classes."""

from __future__ import annotations

import gzip
import math
import os
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from minires._checks import integer
from minires.data.dataset import Dataset, checked
from minires.data.errors import DataFileError
from minires.data.files import Remote, find, find_or_download

NAME = "fashion-mnist"
CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
# The authors' bucket; the website in their README has no https.
ADDRESS = "https://fashion-mnist.s3.eu-central-1.amazonaws.com/"
MD5 = {
    "train-images-idx3-ubyte": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "train-labels-idx1-ubyte": "25c81989df183df01b3e8a0aad5dffbe",
    "t10k-images-idx3-ubyte": "bef4ecab320f06d8554ea6380940ec79",
    "t10k-labels-idx1-ubyte": "bb300cfdad3c16e7a12a480ee83cd310",
}
SIZE = dict(zip(MD5, (26_421_880, 29_515, 4_422_102, 5_148), strict=True))  # bytes, gzipped
COUNT = {"train": 60_000, "test": 10_000}
LARGEST = 1 << 31  # bytes of an array in an IDX file

_CHOICES = [(name, f"{name}.gz") for name in MD5]


def where(data_dir: str | os.PathLike[str] | None = None) -> Path | None:
    """The folder that contains all four files, gzipped or not."""
    return find(NAME, data_dir, _CHOICES)


def load(
    split: str,
    data_dir: str | os.PathLike[str] | None = None,
    download: bool = False,
    size: int | None = None,
    address: str = ADDRESS,
) -> Dataset:
    """size: None for 28×28, or a divisor of 28, to which blocks of pixels are averaged."""
    remotes = [Remote(f"{name}.gz", f"{address}{name}.gz", md5, SIZE[name]) for name, md5 in MD5.items()]
    folder = find_or_download(
        NAME, data_dir, _CHOICES, remotes if download else None,
        "train-images-idx3-ubyte[.gz] and its three companions",
        "put the files into one of these folders, let them be downloaded (--download), "
        "or install Debian's package dataset-fashion-mnist",
    )  # fmt: skip
    stem = "train" if split == "train" else "t10k"
    images_path, labels_path = _path(folder, f"{stem}-images-idx3-ubyte"), _path(folder, f"{stem}-labels-idx1-ubyte")
    images, labels = read_idx(images_path, 3), read_idx(labels_path, 1)
    if images.shape != (COUNT[split], 28, 28):
        raise DataFileError(f"{images_path}: shape {images.shape}, not {(COUNT[split], 28, 28)}")
    if size is not None:
        if integer(size, "size", 1) > 28 or 28 % size:
            raise ValueError(f"size must divide 28, got {size}")
        block = 28 // size
        blocks = images.reshape(len(images), size, block, size, block)  # (N, 28, 28) -> (N, S, B, S, B)
        images = (blocks.mean(axis=(2, 4), dtype="float32") + 0.5).astype("uint8")
    return checked(NAME, split, images[..., None], labels, CLASSES, str(labels_path))


def _path(folder: Path, name: str) -> Path:
    return folder / name if (folder / name).is_file() else folder / f"{name}.gz"


def read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """The array of unsigned bytes in an IDX file (magic number, sizes, bytes), gzipped or not.

    Raises DataFileError for a wrong magic number, size or length, and for a damaged gzip stream.
    """
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb") as file:
            head = file.read(4 + 4 * dimensions)
            if len(head) < 4 + 4 * dimensions:
                raise DataFileError(f"{path}: the file ends within its header")
            zero, kind, count = struct.unpack(">HBB", head[:4])
            if (zero, kind, count) != (0, 0x08, dimensions):
                raise DataFileError(f"{path}: not an IDX file of unsigned bytes with {dimensions} dimensions")
            shape = struct.unpack(f">{dimensions}I", head[4:])
            size = math.prod(shape)
            if math.prod(max(n, 1) for n in shape) > LARGEST:  # NumPy multiplies all sizes but 0
                raise DataFileError(f"{path}: the header asks for {size:,} bytes, shape {shape}")
            payload = file.read(size + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataFileError(f"{path}: damaged gzip stream: {error}") from None
    except OSError as error:
        raise DataFileError(f"{path}: cannot be read: {error}") from None
    if len(payload) != size:
        more = "more" if len(payload) > size else f"only {len(payload):,}"
        raise DataFileError(f"{path}: the header promises {size:,} bytes, the file holds {more}")
    return np.frombuffer(payload, np.uint8).reshape(shape)
