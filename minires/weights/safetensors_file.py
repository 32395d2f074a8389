"""safetensors: the length of the header, the header in JSON, then the elements, little-endian, without gaps.

The library checks the header against the file (no holes, no overlaps, shape × type = bytes) without reading it; the
elements are then read here, straight into their arrays.  The library's own reader for NumPy knows no bfloat16 and holds
the file twice.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import safetensors

from minires.arrays import Array
from minires.weights.dtypes import RAW, check_shape, itemsize, widen
from minires.weights.file import WeightsError, plain, quoted

LONGEST_HEADER = 4 << 20  # bytes, some 40,000 tensors; the library's own limit are 100 MB, which take 2 GB to parse
DTYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2",
    "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8",
    "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip


def read(path: Path, file: BinaryIO, size: int) -> tuple[dict[str, Array], dict[str, str], dict[str, str]]:
    """Arrays by name in the order of their places in the file, their types as stored, and the metadata."""
    length = int.from_bytes(file.read(8), "little")
    if length > size - 8:
        raise WeightsError(f"truncated or broken: its header claims {length:,} of the file's {size:,} bytes")
    if length > LONGEST_HEADER:
        raise WeightsError(f"unsafe: its header takes {length:,} bytes, {LONGEST_HEADER:,} at most are read")
    try:
        with safetensors.safe_open(path, framework="numpy"):
            pass
    except safetensors.SafetensorError as error:
        raise WeightsError(f"no valid safetensors file: {plain(error)}") from None
    header = _header(file.read(length))
    metadata = header.pop("__metadata__", None) or {}
    arrays, stored = {}, {}
    for name, told in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        if told["dtype"] not in DTYPES:
            raise WeightsError(f"tensor {quoted(name)} is {told['dtype']}, which is not supported: convert it to F32")
        stored[name] = DTYPES[told["dtype"]]
        start, end = told["data_offsets"]
        if end - start != math.prod(told["shape"]) * itemsize(stored[name]):
            raise WeightsError(f"broken: tensor {quoted(name)} takes {end - start:,} bytes")
        file.seek(8 + length + start)
        arrays[name] = _array(file, name, told["shape"], stored[name])
    return arrays, stored, metadata


def _array(file: BinaryIO, name: str, shape: list[int], stored: str) -> Array:
    check_shape(name, shape)
    raw = np.empty(shape, np.dtype(RAW[stored]).newbyteorder("<"))
    if file.readinto(raw.reshape(-1).view(np.uint8)) != raw.nbytes:  # type: ignore[attr-defined]
        raise WeightsError(f"truncated: it ends within tensor {quoted(name)}")
    return widen(raw, stored, copy=False)


def _header(content: bytes) -> dict[str, Any]:
    """The header as JSON.  The library has seen that it is well-formed; of two equal names it would take one."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise WeightsError("unsafe: its header names something twice")
        return found

    header: dict[str, Any] = json.loads(content, object_pairs_hook=unique)
    return header
