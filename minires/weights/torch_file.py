"""Reads files of `torch.save` without PyTorch: the zip format (since 1.6) and the legacy format.

The pickle of either format describes tensors and storages by numbers.  This module checks all numbers before it
allocates an array, and reads each storage once.  Names and the order of arguments follow `torch/_utils.py` and
`torch/serialization.py`.
"""

from __future__ import annotations

import io
import math
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np

from minires.arrays import Array
from minires.weights.pickles import Function, Opaque, Source, checked_key, load
from minires.weights.weight_file import RAW, WeightFile, WeightsError, check_shape, plain, quoted, widen, widened

STATE_DICT_KEYS = ("state_dict", "model_state_dict", "state_dict_ema", "model", "net", "module", "weights", "params")


def _allowed_bytes(size: int) -> int:
    """The number of bytes that the arrays of a file of `size` bytes may take.

    They may exceed the file: float8 is widened to four bytes, and two names may share a storage.  The limit guards
    against tensors of stride 0, for which PyTorch stores 2^40 equal elements as a single number.
    """
    return 8 * size + (1 << 20)


# The zip format: PREFIX/data.pkl for the object, PREFIX/data/KEY for each storage

LONGEST_DIRECTORY = 4 << 20  # bytes, enough for 40,000 storages
# Errors of zipfile for a broken archive: RuntimeError for an encrypted member, ValueError for an invalid name.
BROKEN = (
    zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, OverflowError, RuntimeError, ValueError
)  # fmt: skip


def read_zip(path: Path, file: BinaryIO, size: int) -> WeightFile:
    archive = _Archive(file, _allowed_bytes(size))
    pickled = archive.read("data.pkl")
    storages: dict[str, Storage] = {}
    loaded = load(Source(io.BytesIO(pickled), len(pickled)), _find, partial(_storage, known=storages))
    tensors, inside = _state_dict(loaded)
    # PyTorch takes an archive without this record as little-endian.
    order = archive.read("byteorder") if archive.prefix + "byteorder" in archive.members else b"little"
    if order not in (b"little", b"big"):
        raise WeightsError(f"broken: its byte order is {quoted(order[:16])}")

    def elements(storage: Storage) -> bytes:
        return archive.read(f"data/{storage.key}", storage.whole * _element_bytes(storage.dtype))

    arrays, stored = _arrays(tensors, elements, "<" if order == b"little" else ">", _allowed_bytes(size))
    return WeightFile(path, "PyTorch zip", arrays, stored, inside=inside)


class _Archive:
    """A zip archive from which at most `allowed` bytes are unpacked."""

    def __init__(self, file: BinaryIO, allowed: int) -> None:
        if (directory := _directory_bytes(file)) > LONGEST_DIRECTORY:
            raise WeightsError(
                f"unsafe: its directory takes {directory:,} bytes, {LONGEST_DIRECTORY:,} at most are read"
            )
        try:
            self.zip = zipfile.ZipFile(file)
        except BROKEN as error:
            raise WeightsError(f"truncated or broken zip archive: {plain(error)}") from None
        self.allowed = allowed
        self.members = {member.filename: member for member in self.zip.infolist()}
        if len(self.members) != len(self.zip.infolist()):
            raise WeightsError("unsafe: the zip archive holds two members of the same name")
        found = [name for name in self.members if name.rpartition("/")[2] == "data.pkl"]
        if not found and self.members and all(name.endswith(".npy") for name in self.members):
            raise WeightsError("is an npz archive of NumPy arrays, not a weight file")
        if not found and any(name.endswith("model.weights.h5") for name in self.members):
            raise WeightsError("is a Keras model, not a weight file of PyTorch")
        if len(found) != 1:
            raise WeightsError(f"the zip archive holds {len(found)} data.pkl, not one")
        self.prefix = found[0].removesuffix("data.pkl")
        if f"{self.prefix}constants.pkl" in self.members:
            raise WeightsError("is a TorchScript archive, which is a program: save the state_dict() of the model")

    def read(self, name: str, expected: int | None = None) -> bytes:
        """A member's bytes, after a check of its checksum and, if given, of its `expected` number of bytes."""
        member, shown = self.members.get(self.prefix + name), quoted(self.prefix + name)
        if member is None:
            raise WeightsError(f"broken: {shown} is missing from the zip archive")
        size = member.file_size
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise WeightsError(f"{shown} is compressed by method {member.compress_type}: PyTorch compresses nothing")
        if expected is not None and size != expected:
            raise WeightsError(f"broken: {shown} holds {size:,} bytes, its tensors need {expected:,}")
        self.allowed -= size
        if self.allowed < 0:
            raise WeightsError(f"unsafe: {shown} unpacks to {size:,} bytes, more than a file of this size may hold")
        try:
            with self.zip.open(member) as opened:
                content = opened.read(size)  # without the size, it would unpack any number of bytes
        except BROKEN as error:
            raise WeightsError(f"truncated or broken zip archive: {shown}: {plain(error)}") from None
        if len(content) != size:
            raise WeightsError(f"broken: {shown} holds {len(content):,} bytes, its directory entry {size:,}")
        return content


def _directory_bytes(file: BinaryIO) -> int:
    """The size of the list of members that `zipfile` is about to read; 0 if the file has no end-of-archive record.

    The size is in that record or, for large archives, in the ZIP64 record before it.
    """
    file.seek(max(0, file.seek(0, io.SEEK_END) - (1 << 16) - 22 - 76))  # a comment may follow the last record
    tail = file.read()
    file.seek(0)
    at_the_end = tail[-22:-18] == b"PK\5\6" and tail.endswith(b"\0\0")
    end = len(tail) - 22 if at_the_end else tail.rfind(b"PK\5\6")
    if end < 0:
        return 0
    if end >= 76 and tail[end - 20 : end - 16] == b"PK\6\7" and tail[end - 76 : end - 72] == b"PK\6\6":
        return int.from_bytes(tail[end - 36 : end - 28], "little")
    return int.from_bytes(tail[end + 12 : end + 16], "little")


# The legacy format: five pickles, then the storages one after the other
#
#     magic number · protocol version · sizes and byte order of the machine · the object · the keys of the storages
#     for each key: the number of elements (int64), then the elements
#
# Numbers and elements are little-endian on every machine, whatever the third pickle contains.

MAGIC, VERSION = 0x1950A86A20F9469CFC6C, 1001


def read_legacy(path: Path, file: BinaryIO, size: int) -> WeightFile:
    source = Source(file, size)
    if load(source, _find) != MAGIC:
        raise WeightsError("is a pickle, but not one that torch.save wrote")
    if load(source, _find) != VERSION:
        raise WeightsError("is of an unknown version of PyTorch's legacy format")
    load(source, _find)
    storages: dict[str, Storage] = {}
    loaded = load(source, _find, partial(_storage, known=storages))
    keys = load(source, _find)
    if type(keys) is not list or not all(type(key) is str for key in keys) or len(set(keys)) != len(keys):
        raise WeightsError("broken: its list of storages is invalid")
    tensors, inside = _state_dict(loaded)
    places = {}  # key -> where the elements begin, and their bytes
    for key in keys:
        if key not in storages:
            raise WeightsError(f"broken: it lists a storage {quoted(key)} that no tensor uses")
        if source.left < 8:
            raise WeightsError("truncated: it ends before its last storage")
        count, wanted = int.from_bytes(source.read(8), "little", signed=True), storages[key].whole
        if count != wanted:
            raise WeightsError(f"broken: storage {quoted(key)} holds {count:,} elements, not {wanted:,}")
        taken = count * _element_bytes(storages[key].dtype)
        if taken > source.left:
            raise WeightsError(f"truncated: storage {quoted(key)} takes {taken:,} bytes, {source.left:,} are left")
        places[key] = file.tell(), taken
        file.seek(taken, io.SEEK_CUR)
        source.left -= taken
    if source.left:
        raise WeightsError(f"broken: {source.left:,} bytes follow the last storage")

    def elements(storage: Storage) -> bytes:
        if storage.key not in places:
            raise WeightsError(f"broken: storage {quoted(storage.key)} is missing")
        start, count = places[storage.key]
        file.seek(start)
        content = file.read(count)
        if len(content) != count:
            raise WeightsError("truncated: it ends within a storage")
        return content

    arrays, stored = _arrays(tensors, elements, "<", _allowed_bytes(size))
    return WeightFile(path, "PyTorch legacy", arrays, stored, inside=inside)


# Classes that stand for PyTorch's objects in a pickle


@dataclass(frozen=True, eq=False, slots=True)
class DType:
    name: str


@dataclass(frozen=True, eq=False, slots=True)
class Storage:
    """`count` elements from element `first` of the stored bytes `key`, which hold `whole` elements."""

    key: str
    dtype: str
    whole: int
    first: int
    count: int


@dataclass(frozen=True, eq=False, slots=True)
class Tensor:
    """Element (i, j, ...) is element offset + i·stride[0] + j·stride[1] + ... of the storage."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: str


STORAGES = {
    "DoubleStorage": "float64", "FloatStorage": "float32", "HalfStorage": "float16", "BFloat16Storage": "bfloat16",
    "LongStorage": "int64", "IntStorage": "int32", "ShortStorage": "int16", "CharStorage": "int8",
    "ByteStorage": "uint8", "BoolStorage": "bool", "UntypedStorage": "uint8",
    "ComplexFloatStorage": "complex64", "ComplexDoubleStorage": "complex128",
    "QInt8Storage": "qint8", "QUInt8Storage": "quint8", "QInt32Storage": "qint32",
    "QUInt4x2Storage": "quint4x2", "QUInt2x4Storage": "quint2x4",
}  # fmt: skip
# Bytes of unsupported elements, to skip their storages.
UNSUPPORTED_BYTES = {
    "complex32": 4, "complex64": 8, "complex128": 16,
    "qint8": 1, "quint8": 1, "qint32": 4, "quint4x2": 1, "quint2x4": 1,
}  # fmt: skip
DTYPES_WITHOUT_STORAGE = ("float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu", "float4_e2m1fn_x2")


def _element_bytes(dtype: str) -> int:
    return RAW[dtype].itemsize if dtype in RAW else UNSUPPORTED_BYTES[dtype]


def _find(module: str, name: str) -> object:
    """The object that stands for a global of the pickle; None for a global that no checkpoint of numbers needs.

    Raises WeightsError for a tensor that is not a plain array.
    """
    if module in ("torch", "torch.cuda", "torch.storage") and name in STORAGES:
        return DType(STORAGES[name])
    if module == "torch" and (name in RAW or name in UNSUPPORTED_BYTES or name in DTYPES_WITHOUT_STORAGE):
        return DType(name)
    whole = f"{module}.{name}"
    if whole in NO_PLAIN_TENSORS:
        raise WeightsError(
            f"holds a {NO_PLAIN_TENSORS[whole]} tensor, which is not supported: save dense tensors of numbers"
        )
    return Function(whole, FUNCTIONS[whole]) if whole in FUNCTIONS else None


def _storage(identity: object, known: dict[str, Storage]) -> Storage:
    """The storage of a persistent id: ("storage", type, key, location, elements[, view]).

    known   all storages so far by their keys: a pickle may use a storage several times
    view    None, or (key, first element, elements) of a part of the storage that is a storage of its own
    """
    if type(identity) is tuple and len(identity) >= 2 and identity[0] == "module":
        raise WeightsError("holds a whole pickled model, which was not executed: save its state_dict() instead")
    if type(identity) is not tuple or len(identity) not in (5, 6) or identity[0] != "storage":
        raise WeightsError("broken: a persistent id that is not a storage")
    dtype, key, _, whole, view = (*identity, None)[1:6]
    if type(dtype) is not DType or dtype.name in DTYPES_WITHOUT_STORAGE or type(key) is not str or not _natural(whole):
        raise WeightsError("broken: a storage with an invalid type, key or size")
    storage = known.setdefault(key, Storage(key, dtype.name, whole, 0, whole))
    if (storage.dtype, storage.whole) != (dtype.name, whole):
        raise WeightsError(f"broken: storage {quoted(key)} has two types or sizes")
    if view is None:
        return storage
    if type(view) is not tuple or len(view) != 3 or not _naturals(view[1:]) or view[1] + view[2] > whole:
        raise WeightsError("broken: a view that does not fit its storage")
    return Storage(key, dtype.name, whole, *view[1:])


def _tensor(arguments: tuple[Any, ...], dtype: str = "") -> Tensor:
    """_rebuild_tensor(storage, storage_offset, size, stride) and _v2(..., requires_grad, backward_hooks, metadata)"""
    storage, offset, size, stride = arguments[:4] if len(arguments) >= 4 else (None,) * 4
    if type(storage) is not Storage or not _natural(offset) or not _naturals(size) or not _naturals(stride):
        raise WeightsError("broken: a tensor with an invalid storage, offset, size or stride")
    if len(size) != len(stride):
        raise WeightsError(f"broken: a tensor of {len(size)} dimensions and {len(stride)} strides")
    if len(arguments) > 6 and arguments[6]:
        raise WeightsError("holds a lazily negated or conjugated tensor: save its resolve_neg() or resolve_conj()")
    return Tensor(storage, offset, size, stride, dtype or storage.dtype)


def _tensor_of_any_type(arguments: tuple[Any, ...]) -> Tensor:
    """_rebuild_tensor_v3(storage, storage_offset, size, stride, requires_grad, backward_hooks, dtype, metadata)"""
    dtype = arguments[6] if len(arguments) >= 7 else None
    if type(dtype) is not DType:
        raise WeightsError("broken: a tensor without a type")
    return _tensor(arguments[:6] + arguments[7:], dtype.name)


def _parameter(arguments: tuple[Any, ...]) -> Tensor:
    """_rebuild_parameter(data, requires_grad, backward_hooks) and _with_state(..., state)"""
    if not arguments or type(arguments[0]) is not Tensor:
        raise WeightsError("broken: a parameter without a tensor")
    return arguments[0]


def _ordered_dict(arguments: tuple[Any, ...]) -> dict[str | int, Any]:
    """An OrderedDict: empty, to be filled by the pickle, or with the items that Python 2 passes as an argument."""
    items = (*arguments, ())[0]
    if (
        len(arguments) > 1
        or type(items) not in (tuple, list)
        or not all(type(item) in (tuple, list) and len(item) == 2 for item in items)
    ):
        raise WeightsError("broken: an OrderedDict of invalid items")
    return {checked_key(key): value for key, value in items}


def _opaque(arguments: tuple[Any, ...]) -> Opaque:
    return Opaque()


FUNCTIONS: dict[str, Callable[[tuple[Any, ...]], Any]] = {
    "collections.OrderedDict": _ordered_dict,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_of_any_type,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    # For further entries of a checkpoint: devices, a scheduler's milestones, the best accuracy so far.
    **dict.fromkeys(("torch.device", "torch.Size", "collections.Counter", "numpy.dtype", "_codecs.encode"), _opaque),
    **dict.fromkeys(("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar"), _opaque),
}
NO_PLAIN_TENSORS = {
    "torch._utils._rebuild_qtensor": "quantised",
    "torch._utils._rebuild_sparse_tensor": "sparse",
    "torch._utils._rebuild_sparse_csr_tensor": "sparse",
    "torch._utils._rebuild_meta_tensor_no_storage": "meta",
    "torch._utils._rebuild_nested_tensor": "nested",
    "torch._utils._rebuild_wrapper_subclass": "wrapped",
}


def _natural(value: object) -> bool:
    return type(value) is int and 0 <= value < 1 << 63


def _naturals(values: Any) -> bool:
    return type(values) is tuple and all(map(_natural, values))


# The state dict in the object that the pickle describes


def _state_dict(loaded: Any) -> tuple[dict[str, Tensor], str]:
    """The tensors by name, and the checkpoint's key under which they are ("" if the file is the state dict itself).

    Raises WeightsError without a state dict or for more than one.
    """
    if type(loaded) is Tensor:
        raise WeightsError("holds a single tensor, not a state dict")
    if type(loaded) is not dict:
        raise WeightsError(f"holds a {type(loaded).__name__}, not a state dict")
    usual = [key for key in STATE_DICT_KEYS if _holds_tensors(loaded.get(key))]
    if len(usual) > 1:
        raise WeightsError(f"holds several state dicts, under {_listed(usual)}: save only the one that you need")
    inside = usual[0] if usual else ""
    entries = loaded[inside] if usual else loaded
    if not usual and not any(type(value) is Tensor for value in loaded.values()):
        values = {id(value): value for value in loaded.values()}  # a hostile file may repeat a value
        holding = {number for number, value in values.items() if _holds_tensors(value)}
        if others := [key for key, value in loaded.items() if id(value) in holding]:
            known = ", ".join(STATE_DICT_KEYS)
            raise WeightsError(f"holds tensors under {_listed(others)}; a state dict must be under one of {known}")
        keys = f"; its keys are {_listed(list(loaded))}" if loaded else ": it is an empty dictionary"
        raise WeightsError(f"holds no state dict{keys}")
    for name, entry in entries.items():
        if type(name) is not str:
            raise WeightsError(f"holds no state dict: its key {name} is not a string")
        if type(entry) is not Tensor:
            raise WeightsError(f"holds no state dict: entry {quoted(name)} is not a tensor, but {type(entry).__name__}")
    return entries, inside


def _holds_tensors(value: object) -> bool:
    return type(value) is dict and any(type(entry) is Tensor for entry in value.values())


def _listed(keys: list[Any]) -> str:
    shown = ", ".join(quoted(key) for key in keys[:6])
    return shown + (f" and {len(keys) - 6} more" if len(keys) > 6 else "")


# From tensors to arrays


def _arrays(
    tensors: dict[str, Tensor], elements: Callable[[Storage], bytes], byteorder: Literal["<", ">"], allowed: int
) -> tuple[dict[str, Array], dict[str, str]]:
    """The arrays by name, in the order of `tensors`, and their types as stored.

    elements    reads all bytes of a storage; called once for each storage
    byteorder   byte order of the elements: "<" or ">"
    allowed     number of bytes that all arrays together may take
    Raises WeightsError with the name of a tensor that does not fit its storage or has an unsupported type.
    """
    total = 0
    by_storage: dict[str, list[str]] = {}
    for name, tensor in tensors.items():
        total += _checked_bytes(name, tensor)
        if total > allowed:
            raise WeightsError(f"unsafe: tensors up to {quoted(name)} take {total:,} bytes, {allowed:,} are allowed")
        by_storage.setdefault(tensor.storage.key, []).append(name)
    arrays: dict[str, Array] = {}
    for names in by_storage.values():
        whole = elements(tensors[names[0]].storage)
        for name in names:
            arrays[name] = _array(tensors[name], whole, byteorder)
        del whole  # frees this storage before the next is read
    return {name: arrays[name] for name in tensors}, {name: tensor.dtype for name, tensor in tensors.items()}


def _checked_bytes(name: str, tensor: Tensor) -> int:
    """The number of bytes of the tensor's array, after checks of its type, its shape and its place in the storage."""
    if tensor.dtype not in RAW:
        raise WeightsError(f"tensor {quoted(name)} is {tensor.dtype}, which is not supported: convert it to float32")
    check_shape(name, tensor.size)
    if 0 not in tensor.size:
        last = tensor.offset + sum((n - 1) * stride for n, stride in zip(tensor.size, tensor.stride, strict=True))
        held = tensor.storage.count * _element_bytes(tensor.storage.dtype) // RAW[tensor.dtype].itemsize
        if last >= held:
            raise WeightsError(
                f"broken: tensor {quoted(name)} reaches to element {last:,} of a storage that holds {held:,}"
            )
    return math.prod(tensor.size) * widened(tensor.dtype).itemsize


def _array(tensor: Tensor, whole: bytes, byteorder: Literal["<", ">"]) -> Array:
    raw, width = RAW[tensor.dtype].newbyteorder(byteorder), RAW[tensor.dtype].itemsize
    if 0 in tensor.size:
        return widen(np.empty(tensor.size, raw), tensor.dtype)
    # The stride of an axis of size 1 is unused and may be any number.
    strides = [stride * width if n > 1 else 0 for n, stride in zip(tensor.size, tensor.stride, strict=True)]
    start = tensor.storage.first * _element_bytes(tensor.storage.dtype) + tensor.offset * width
    # This constructor also checks the bounds.
    return widen(np.ndarray(tensor.size, raw, whole, start, strides), tensor.dtype)
