"""The IDX format of MNIST and Fashion-MNIST: a magic number, the sizes, then bytes; often gzipped."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from minires.data.dataset import DataFileError

LARGEST = 1 << 31  # bytes; a header that asks for more is not one of these data sets


def read(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """The array of unsigned bytes in an IDX file.

    Raises DataFileError when magic number, sizes or length are wrong, or the gzip stream is damaged.
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
            if math.prod(max(n, 1) for n in shape) > LARGEST:  # NumPy multiplies the others even where one is 0
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
