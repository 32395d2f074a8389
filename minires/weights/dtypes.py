"""The data types of weight files, in PyTorch's words, and how they become NumPy's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minires.arrays import Array, as_array
from minires.weights.file import WeightsError, quoted

DIMENSIONS = 32
# What the bytes of an element are read as.  The narrow floats that NumPy lacks are read as integers.
RAW = {
    "float64": "f8", "float32": "f4", "float16": "f2", "bfloat16": "u2", "float8_e4m3fn": "u1", "float8_e5m2": "u1",
    "int64": "i8", "int32": "i4", "int16": "i2", "int8": "i1",
    "uint64": "u8", "uint32": "u4", "uint16": "u2", "uint8": "u1", "bool": "u1",
}  # fmt: skip


def itemsize(stored: str) -> int:
    return np.dtype(RAW[stored]).itemsize


def check_shape(name: str, shape: Sequence[int]) -> None:
    """Raises WeightsError for the shape of a tensor that no NumPy array can have, were it empty."""
    if len(shape) > DIMENSIONS:
        raise WeightsError(f"tensor {quoted(name)} has {len(shape)} dimensions, at most {DIMENSIONS} are supported")
    if math.prod(max(n, 1) for n in shape) >= 1 << 59:  # NumPy multiplies the others even where one is 0
        raise WeightsError(f"broken: tensor {quoted(name)} has more elements than there can be")


def widened(stored: str) -> np.dtype[Any]:
    """The type of the array that elements of type `stored` end up in."""
    if stored == "bool":
        return np.dtype(np.bool_)
    narrow = stored in ("float16", "bfloat16", "float8_e4m3fn", "float8_e5m2")
    return np.dtype(np.float32) if narrow else np.dtype(RAW[stored])


def widen(raw: Array, stored: str, copy: bool = True) -> Array:
    """Elements of type RAW[stored], in any byte order and with any strides, as a contiguous array of `widened(stored)`.

    copy=False may give `raw` itself back, where that is what is asked for.
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
