"""The content of a weight file: its arrays and their data types, and the error for an unreadable file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minires.arrays import Array, as_array


class WeightsError(RuntimeError):
    """A file is not a readable weight file: it is broken, unsafe, or of another format."""


@dataclass(frozen=True, eq=False)
class WeightFile:
    """The arrays of a weight file under the names that the file gives them.

    path       where it was read
    format     "safetensors", "PyTorch zip", "PyTorch legacy" or "minires checkpoint"
    arrays     contiguous NumPy arrays in this machine's byte order, in the file's order; they share no memory.
               float16, bfloat16 and float8 are widened to float32, which holds each of their values exactly.
               Integers, booleans, float32 and float64 keep their type
    stored     the data type of each array in the file, in PyTorch's words: "bfloat16"
    metadata   the text entries of a safetensors header
    inside     key of the state dict in a checkpoint; "" if the whole file is the state dict
    """

    path: Path
    format: str
    arrays: dict[str, Array]
    stored: dict[str, str]
    metadata: dict[str, str] = field(default_factory=dict)
    inside: str = ""

    def __repr__(self) -> str:
        numbers = sum(array.size for array in self.arrays.values())
        return f"<{self.format} file {self.path}: {len(self.arrays)} arrays, {numbers:,} numbers>"


# Text of a file in error messages

LONGEST = 100  # characters


def quoted(value: object) -> str:
    """A value from a file, for a one-line error: escaped, at most LONGEST characters."""
    return _shortened(ascii(value[:LONGEST] if isinstance(value, str | bytes) else value))


def plain(value: object) -> str:
    """`quoted` without quotation marks, for a class's name or another error's message."""
    return _shortened(ascii(" ".join(str(value).split()))[1:-1])


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


# Data types

DIMENSIONS = 32
# NumPy's type for the bytes of an element.  NumPy lacks the narrow floats: their bytes are read as integers.
RAW = {name: np.dtype(code) for name, code in {
    "float64": "f8", "float32": "f4", "float16": "f2", "bfloat16": "u2", "float8_e4m3fn": "u1", "float8_e5m2": "u1",
    "int64": "i8", "int32": "i4", "int16": "i2", "int8": "i1",
    "uint64": "u8", "uint32": "u4", "uint16": "u2", "uint8": "u1", "bool": "u1",
}.items()}  # fmt: skip


def check_shape(name: str, shape: Sequence[int]) -> None:
    """Raises WeightsError for a tensor whose shape no NumPy array can have, not even an empty array."""
    if len(shape) > DIMENSIONS:
        raise WeightsError(f"tensor {quoted(name)} has {len(shape)} dimensions, at most {DIMENSIONS} are supported")
    if math.prod(max(n, 1) for n in shape) >= 1 << 59:  # NumPy multiplies the other sizes even where one is 0
        raise WeightsError(f"broken: tensor {quoted(name)} has too many elements for an array")


def widened(stored: str) -> np.dtype[Any]:
    """The type of the array that `widen` makes of elements of type `stored`."""
    narrow = {"bool": "?", **dict.fromkeys(("float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"), "f4")}
    return np.dtype(narrow.get(stored, RAW[stored]))


def widen(raw: Array, stored: str, copy: bool = True) -> Array:
    """Elements of type RAW[stored], in any byte order and with any strides, as a contiguous array of `widened(stored)`.

    copy=False may return `raw` itself where it already is that array.
    """
    if stored == "bfloat16":  # the upper half of a float32
        bits = raw.astype(np.uint32, order="C")
        bits <<= 16
        return bits.view(np.float32)
    if stored in FLOAT8:
        return as_array(np.take(FLOAT8[stored], raw))
    if stored == "bool":  # any byte but 0 is true, as in C
        return np.not_equal(raw, 0, order="C", out=np.empty(raw.shape, np.bool_))
    return raw.astype(widened(stored), order="C", copy=copy)


def _float8_e4m3fn() -> NDArray[np.float32]:
    """The value of each byte: sign, 4 bits of exponent (bias 7), 3 of mantissa; no infinities, NaN is all ones.

    Micikevicius et al., FP8 Formats for Deep Learning, arXiv:2209.05433.
    """
    byte = np.arange(256)
    exponent, mantissa = byte >> 3 & 15, byte & 7
    magnitude = np.where(exponent == 0, mantissa / 8 * 2.0**-6, (1 + mantissa / 8) * 2.0 ** (exponent - 7))
    magnitude[byte & 127 == 127] = np.nan
    return np.where(byte >> 7, -magnitude, magnitude).astype(np.float32)


FLOAT8 = {
    "float8_e4m3fn": _float8_e4m3fn(),
    # The upper half of a float16.
    "float8_e5m2": (np.arange(256, dtype=np.uint16) << 8).view(np.float16).astype(np.float32),
}
