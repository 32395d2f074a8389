"""Tensors described by numbers become arrays: first every number is checked, then storage by storage is read once."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import numpy as np

from minires.arrays import Array
from minires.weights.dtypes import RAW, check_shape, itemsize, widen, widened
from minires.weights.file import WeightsError, quoted
from minires.weights.torch_objects import Storage, Tensor, element_bytes


def allowed_bytes(size: int) -> int:
    """How many bytes of arrays a file of `size` bytes may become.

    float8 makes four bytes of one, and two names may share a storage.  But a tensor of 2^40 elements that all lie in
    the same place is one number in the file too: PyTorch writes strides of 0 as they are.
    """
    return 8 * size + (1 << 20)


def build(
    tensors: dict[str, Tensor], content: Callable[[Storage], bytes], byteorder: Literal["<", ">"], allowed: int
) -> tuple[dict[str, Array], dict[str, str]]:
    """The arrays by name, in the order of `tensors`, and their types as stored.

    content     the bytes of a storage, all of them; asked for once each, in the order of the file
    byteorder   of the elements: "<" or ">"
    allowed     bytes that all arrays together may take
    Raises WeightsError that names the tensor which does not fit its storage, or is of a type that is no NumPy array.
    """
    total = 0
    for name, tensor in tensors.items():
        total += _checked(name, tensor)
        if total > allowed:
            raise WeightsError(f"unsafe: tensors up to {quoted(name)} take {total:,} bytes, {allowed:,} are allowed")
    by_storage: dict[str, list[str]] = {}
    for name, tensor in tensors.items():
        by_storage.setdefault(tensor.storage.key, []).append(name)
    made: dict[str, Array] = {}
    for names in by_storage.values():
        whole = content(tensors[names[0]].storage)
        for name in names:
            made[name] = _array(tensors[name], whole, byteorder)
        del whole  # before the next one is read
    return {name: made[name] for name in tensors}, {name: tensor.dtype for name, tensor in tensors.items()}


def _checked(name: str, tensor: Tensor) -> int:
    """The bytes of the array to be."""
    told = f"tensor {quoted(name)}"
    if tensor.dtype not in RAW:
        raise WeightsError(f"{told} is {tensor.dtype}, which is not supported: convert it to float32")
    check_shape(name, tensor.size)
    if 0 not in tensor.size:
        last = tensor.offset + sum((n - 1) * stride for n, stride in zip(tensor.size, tensor.stride, strict=True))
        held = tensor.storage.count * element_bytes(tensor.storage.dtype) // itemsize(tensor.dtype)
        if last >= held:
            raise WeightsError(f"broken: {told} reaches to element {last:,} of a storage that holds {held:,}")
    return math.prod(tensor.size) * widened(tensor.dtype).itemsize


def _array(tensor: Tensor, whole: bytes, byteorder: Literal["<", ">"]) -> Array:
    width = itemsize(tensor.dtype)
    raw = np.dtype(RAW[tensor.dtype]).newbyteorder(byteorder)
    if 0 in tensor.size:
        return widen(np.empty(tensor.size, raw), tensor.dtype)
    # A stride that is never gone along may be any number.
    strides = [stride * width if n > 1 else 0 for n, stride in zip(tensor.size, tensor.stride, strict=True)]
    start = tensor.storage.first * element_bytes(tensor.storage.dtype) + tensor.offset * width
    # This constructor checks the bounds once more.
    return widen(np.ndarray(tensor.size, raw, whole, start, strides), tensor.dtype)
