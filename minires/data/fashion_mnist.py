"""Fashion-MNIST (Xiao, Rasul, Vollgraf, arXiv:1708.07747): 60,000 + 10,000 grey images of 28×28 in ten classes."""

from __future__ import annotations

import os
from pathlib import Path

from minires._checks import integer
from minires.data import idx
from minires.data.dataset import DataFileError, Dataset, checked
from minires.data.files import Remote, download, find, missing, user_cache

NAME = "fashion-mnist"
CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
# The authors' bucket.  Its website, which their README names, has no https.
ADDRESS = "https://fashion-mnist.s3.eu-central-1.amazonaws.com/"
MD5 = {
    "train-images-idx3-ubyte": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "train-labels-idx1-ubyte": "25c81989df183df01b3e8a0aad5dffbe",
    "t10k-images-idx3-ubyte": "bef4ecab320f06d8554ea6380940ec79",
    "t10k-labels-idx1-ubyte": "bb300cfdad3c16e7a12a480ee83cd310",
}
SIZE = dict(zip(MD5, (26_421_880, 29_515, 4_422_102, 5_148), strict=True))  # bytes, gzipped
COUNT = {"train": 60_000, "test": 10_000}


def where(data_dir: str | os.PathLike[str] | None = None) -> Path | None:
    """The folder that holds all four files, gzipped or not."""
    return find(NAME, data_dir, [(name, f"{name}.gz") for name in MD5])


def load(
    split: str,
    data_dir: str | os.PathLike[str] | None = None,
    download_missing: bool = False,
    size: int | None = None,
    address: str = ADDRESS,
) -> Dataset:
    """size: None for 28×28, or a divisor of 28: blocks of pixels are averaged."""
    folder = where(data_dir)
    if folder is None:
        if not download_missing:
            raise missing(
                NAME, data_dir, "train-images-idx3-ubyte[.gz] and its three companions",
                "put the files into one of these folders, let them be downloaded (--download), "
                "or install Debian's package dataset-fashion-mnist",
            )  # fmt: skip
        folder = (Path(data_dir) if data_dir else user_cache()) / NAME
        for name, md5 in MD5.items():
            download(Remote(f"{name}.gz", f"{address}{name}.gz", md5, SIZE[name]), folder)
    stem = "train" if split == "train" else "t10k"
    images_path, labels_path = _path(folder, f"{stem}-images-idx3-ubyte"), _path(folder, f"{stem}-labels-idx1-ubyte")
    images, labels = idx.read(images_path, 3), idx.read(labels_path, 1)
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
