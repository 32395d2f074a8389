"""Reads weight files, whose format it recognises by their first bytes, as a `WeightFile`: `read` and `read_any`."""

from __future__ import annotations

import json
import math
import os
import stat
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import safetensors

from minires import _checks
from minires.training import CheckpointError, find_checkpoint, load_checkpoint
from minires.training.checkpoint import is_checkpoint
from minires.training.restore import preprocessing
from minires.weights import hints, torch_file
from minires.weights.weight_file import RAW, WeightFile, WeightsError, check_shape, plain, quoted, widen


def read(path: str | os.PathLike[str]) -> WeightFile:
    """Reads a safetensors file or a file that `torch.save` wrote, without executing anything in it.

    PyTorch is not needed.  The arrays take at most 8 times the bytes of the file plus 1 MiB.  While reading, the memory
    also holds the stored bytes of one storage (PyTorch) or of one tensor that has to be widened (safetensors).
    Raises FileNotFoundError, another OSError if the file cannot be read, and WeightsError if it is not a valid weight
    file.  The message names the file and the reason, in one line.
    """
    path = _checks.path(path, "path")
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise FileNotFoundError(f"no weight file at {path}") from None
    if not stat.S_ISREG(mode):
        raise WeightsError(f"{path}: is {'a folder' if stat.S_ISDIR(mode) else 'no regular file'}, not a weight file")
    try:
        with open(path, "rb") as file:
            return _read(path, file)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from None


def read_any(path: str | os.PathLike[str]) -> WeightFile:
    """Reads a weight file, or a run folder or checkpoint of minires.  Raises the errors of `read`."""
    path = _checks.path(path, "path")
    return _read_checkpoint(path) if is_checkpoint(path) else read(path)


def _read(path: Path, file: BinaryIO) -> WeightFile:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - 8))
    tail = file.read(8)
    file.seek(0)
    head = file.read(512)
    file.seek(0)
    if not head:
        raise WeightsError("is empty")
    if head.startswith(b"PK\3\4"):
        return torch_file.read_zip(path, file, size)
    if head[8:9] == b"{":  # before pickles: a safetensors header of 640 bytes begins like a pickle
        return _read_safetensors(path, file, size)
    if head[0] == 0x80 and len(head) > 1 and 2 <= head[1] <= 5:
        return torch_file.read_legacy(path, file, size)
    reason = _other_format(head, tail)
    if not reason and path.suffix == ".safetensors":
        reason = "no valid safetensors file: it does not begin with the length of a header in JSON"
    raise WeightsError(reason or "is no weight file that minires can read: neither of PyTorch nor safetensors")


def _read_checkpoint(path: Path) -> WeightFile:
    """The newest checkpoint of a run folder, or the checkpoint that a file belongs to.

    Raises FileNotFoundError without a checkpoint and WeightsError for a broken checkpoint.
    """
    found = find_checkpoint(path)
    try:
        checkpoint = load_checkpoint(found)
    except CheckpointError as error:
        raise WeightsError(str(error)) from None
    arrays = {f"model.{name}": array for name, array in checkpoint.model.items()}
    arrays |= dict(checkpoint.velocity) | {"input.mean": checkpoint.mean}
    options = {"num_classes": len(checkpoint.classes), "in_channels": checkpoint.input_shape[0]}
    options |= checkpoint.config.network_options()
    pictures = asdict(preprocessing(checkpoint))
    metadata = hints.encode(checkpoint.config.network, options, pictures, checkpoint.classes)
    stored = {name: str(array.dtype) for name, array in arrays.items()}
    return WeightFile(found, "minires checkpoint", arrays, stored, metadata)


# safetensors: the length of the header, the header in JSON, then the elements, little-endian, without gaps

LONGEST_HEADER = 4 << 20  # bytes, enough for 40,000 tensors; the library's own limit of 100 MB takes 2 GB to parse
SAFETENSORS_DTYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2",
    "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8",
    "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip


def _read_safetensors(path: Path, file: BinaryIO, size: int) -> WeightFile:
    """Reads the arrays in the order of their places in the file.

    The library checks that the header fits the file: no holes, no overlaps, shape × type = bytes.  This function reads
    the elements directly into their arrays, because the library's reader for NumPy lacks bfloat16 and holds the file
    twice.
    """
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
    header: dict[str, Any] = json.loads(file.read(length), object_pairs_hook=_unique)
    metadata = header.pop("__metadata__", None) or {}
    arrays, stored = {}, {}
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        dtype, shape, (start, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        if dtype not in SAFETENSORS_DTYPES:
            raise WeightsError(f"tensor {quoted(name)} is {dtype}, which is not supported: convert it to F32")
        stored[name] = SAFETENSORS_DTYPES[dtype]
        if end - start != math.prod(shape) * RAW[stored[name]].itemsize:
            raise WeightsError(f"broken: tensor {quoted(name)} takes {end - start:,} bytes")
        check_shape(name, shape)
        raw = np.empty(shape, RAW[stored[name]].newbyteorder("<"))
        file.seek(8 + length + start)
        if file.readinto(raw.reshape(-1).view(np.uint8)) != raw.nbytes:  # type: ignore[attr-defined]
            raise WeightsError(f"truncated: it ends within tensor {quoted(name)}")
        arrays[name] = widen(raw, stored[name], copy=False)
    return WeightFile(path, "safetensors", arrays, stored, metadata)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object without repeated names; the library would silently use one of them."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise WeightsError("unsafe: its header repeats a name")
    return found


# Signatures of other formats

SIGNATURES = {
    b"\x1f\x8b": "is compressed by gzip: unpack it first",
    b"BZh": "is compressed by bzip2: unpack it first",
    b"\xfd7zXZ\0": "is compressed by xz: unpack it first",
    b"\x28\xb5\x2f\xfd": "is compressed by zstd: unpack it first",
    b"7z\xbc\xaf\x27\x1c": "is a 7z archive: unpack it first",
    b"\x89HDF\r\n\x1a\n": "is an HDF5 file (Keras?), not one of PyTorch or safetensors",
    b"\x93NUMPY": "is a NumPy array, not a weight file",
    b"GGUF": "is a GGUF file, not one of PyTorch or safetensors",
    b"version https://git-lfs": "is a pointer of Git LFS, not the file itself: fetch that with `git lfs pull`",
    b"\x89PNG": "is a picture, not a weight file",
    b"\x7fELF": "is a program, not a weight file",
}
# Members of PyTorch's first format, in the order in which it wrote them.
TAR_MEMBERS = (b"sys_info\0", b"pickle\0", b"tensors\0", b"storages\0")
TENSORFLOW = b"\x57\xfb\x80\x8b\x24\x75\x47\xdb"  # the last bytes of the index of a checkpoint


def _other_format(head: bytes, tail: bytes) -> str:
    """Describes a file of another format as a clause that follows its name; "" for an unknown format.

    head, tail   the first 512 bytes of the file and its last 8
    """
    for signature, what in SIGNATURES.items():
        if head.startswith(signature):
            return what
    if head[257:262] == b"ustar":
        if head.startswith(TAR_MEMBERS):
            return (
                "is in PyTorch's format from before 0.1.10 (a tar archive): if you trust it, convert it with "
                "torch.save(torch.load(OLD, weights_only=False), NEW)"
            )
        return "is a tar archive: unpack it first"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<?xml")):
        return "is a page of HTML or XML, not a weight file: a download that went wrong?"
    if text.startswith((b"{", b"[")):
        return "is JSON, not a weight file"
    if tail == TENSORFLOW:
        return "is the index of a TensorFlow checkpoint, not a file of PyTorch or safetensors"
    if head[:1] == b"\x08" and head[2:3] == b"\x12":  # a small number as field 1, text as field 2: its producer
        return "looks like an ONNX model or a TensorFlow graph, not a file of PyTorch or safetensors"
    return ""
