"""What stands for PyTorch's objects in a pickle: storages and tensors described by numbers, nothing of them made yet.

The names and the order of arguments are those of `torch/_utils.py` and `torch/serialization.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from minires.weights.dtypes import RAW, itemsize
from minires.weights.file import WeightsError, plain, quoted
from minires.weights.pickles import Function, Opaque, UnknownGlobal, checked_key


@dataclass(frozen=True, eq=False, slots=True)
class DType:
    name: str


@dataclass(frozen=True, eq=False, slots=True)
class Storage:
    """A run of `count` elements, from element `first` of the stored bytes `key` on, which hold `whole` elements."""

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


# Bytes of the elements that cannot be read, but must be skipped where they belong to something else.
FOREIGN = {
    "complex32": 4, "complex64": 8, "complex128": 16,
    "qint8": 1, "quint8": 1, "qint32": 4, "quint4x2": 1, "quint2x4": 1,
}  # fmt: skip
STORAGES = {
    "DoubleStorage": "float64", "FloatStorage": "float32", "HalfStorage": "float16", "BFloat16Storage": "bfloat16",
    "LongStorage": "int64", "IntStorage": "int32", "ShortStorage": "int16", "CharStorage": "int8",
    "ByteStorage": "uint8", "BoolStorage": "bool", "UntypedStorage": "uint8",
    "ComplexFloatStorage": "complex64", "ComplexDoubleStorage": "complex128",
    "QInt8Storage": "qint8", "QUInt8Storage": "quint8", "QInt32Storage": "qint32",
    "QUInt4x2Storage": "quint4x2", "QUInt2x4Storage": "quint2x4",
}  # fmt: skip
OTHER_DTYPES = ("float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu", "float4_e2m1fn_x2")


def element_bytes(dtype: str) -> int:
    return itemsize(dtype) if dtype in RAW else FOREIGN[dtype]


def find(module: str, name: str) -> object:
    """What stands for a global of the pickle.

    Raises UnknownGlobal for all that a checkpoint of numbers has no need of, WeightsError for tensors that are no
    plain arrays.
    """
    if module in ("torch", "torch.cuda", "torch.storage") and name in STORAGES:
        return DType(STORAGES[name])
    if module == "torch" and (name in RAW or name in FOREIGN or name in OTHER_DTYPES):
        return DType(name)
    known = f"{module}.{name}"
    if known in NO_ARRAYS:
        raise WeightsError(f"holds a {NO_ARRAYS[known]} tensor, which is not supported: save dense tensors of numbers")
    function = FUNCTIONS.get(known)
    if function is None:
        raise UnknownGlobal(f"unsafe or not a state dict: it names {plain(known)}, which was not executed")
    return Function(known, function)


def storage(identity: object, known: dict[str, Storage]) -> Storage:
    """The storage of a persistent id: ("storage", type, key, location, elements[, view]).

    known   every storage by its key, for those that the pickle names again
    view    None, or (key, first element, elements) of a part of the storage that is a storage of its own
    """
    if type(identity) is tuple and len(identity) >= 2 and identity[0] == "module":
        raise WeightsError("holds a whole pickled model, none of which was executed: save its state_dict() instead")
    if (
        type(identity) is not tuple
        or len(identity) not in (5, 6)
        or type(identity[0]) is not str
        or identity[0] != "storage"
    ):
        raise WeightsError("broken: a persistent id that is no storage")
    _, dtype, key, _, whole = identity[:5]
    view = identity[5] if len(identity) == 6 else None
    if type(dtype) is not DType or dtype.name in OTHER_DTYPES or type(key) is not str or not _natural(whole):
        raise WeightsError("broken: a storage whose type, key or size is none")
    first, count = 0, whole
    if view is not None:
        if type(view) is not tuple or len(view) != 3 or not _naturals(view[1:]) or view[1] + view[2] > whole:
            raise WeightsError("broken: a view that does not fit its storage")
        first, count = view[1:]
    before = known.setdefault(key, Storage(key, dtype.name, whole, 0, whole))
    if (before.dtype, before.whole) != (dtype.name, whole):
        raise WeightsError(f"broken: storage {quoted(key)} has two types or sizes")
    return Storage(key, dtype.name, whole, first, count) if view is not None else before


def _tensor(arguments: tuple[Any, ...], dtype: DType | None = None, metadata: int = 6) -> Tensor:
    """_rebuild_tensor(storage, storage_offset, size, stride) and _v2(..., requires_grad, backward_hooks, metadata)"""
    storage, offset, size, stride = arguments[:4] if len(arguments) >= 4 else (None,) * 4
    if type(storage) is not Storage or not _natural(offset) or not _naturals(size) or not _naturals(stride):
        raise WeightsError("broken: a tensor whose storage, offset, size or stride is none")
    if len(size) != len(stride):
        raise WeightsError(f"broken: a tensor of {len(size)} dimensions and {len(stride)} strides")
    if len(arguments) > metadata and arguments[metadata]:
        raise WeightsError("holds a tensor that is negated or conjugated only when read: save its resolve_neg()")
    return Tensor(storage, offset, size, stride, dtype.name if dtype else storage.dtype)


def _tensor_of_any_type(arguments: tuple[Any, ...]) -> Tensor:
    """_rebuild_tensor_v3(storage, storage_offset, size, stride, requires_grad, backward_hooks, dtype, metadata)"""
    dtype = arguments[6] if len(arguments) >= 7 else None
    if type(dtype) is not DType:
        raise WeightsError("broken: a tensor without a type")
    return _tensor(arguments, dtype, metadata=7)


def _parameter(arguments: tuple[Any, ...]) -> Tensor:
    """_rebuild_parameter(data, requires_grad, backward_hooks) and _with_state(..., state)"""
    if not arguments or type(arguments[0]) is not Tensor:
        raise WeightsError("broken: a parameter without a tensor")
    return arguments[0]


def _ordered_dict(arguments: tuple[Any, ...]) -> dict[str | int, Any]:
    """Empty, to be filled by the pickle; Python 2 gives the items at once."""
    items = arguments[0] if len(arguments) == 1 else ()
    if len(arguments) > 1 or type(items) not in (tuple, list):
        raise WeightsError("broken: the items of an OrderedDict are none")
    if any(type(item) not in (tuple, list) or len(item) != 2 for item in items):
        raise WeightsError("broken: the items of an OrderedDict are none")
    return {checked_key(key): value for key, value in items}


def _size(arguments: tuple[Any, ...]) -> tuple[int, ...]:
    if len(arguments) != 1 or not _naturals(arguments[0]):
        raise WeightsError("broken: a torch.Size that is none")
    size: tuple[int, ...] = arguments[0]
    return size


def _opaque(name: str) -> Callable[[tuple[Any, ...]], Opaque]:
    return lambda arguments: Opaque(name)


FUNCTIONS: dict[str, Callable[[tuple[Any, ...]], Any]] = {
    "collections.OrderedDict": _ordered_dict,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_of_any_type,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch.Size": _size,
    # What stands beside the state dict of a checkpoint: devices, a scheduler's milestones, the best accuracy so far.
    **{
        name: _opaque(name)
        for name in (
            "torch.device", "collections.Counter", "numpy.dtype", "_codecs.encode",
            "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar",
        )
    },
}  # fmt: skip
NO_ARRAYS = {
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
