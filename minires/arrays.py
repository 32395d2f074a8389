"""What the engine asks of an array, be it NumPy's or CuPy's."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

# CuPy has no type stubs that every installation carries; its arrays answer to the same names.
Array = NDArray[Any]


def array_module(array: Any) -> ModuleType:
    """The module (`numpy` or `cupy`) that made `array`."""
    if isinstance(array, np.ndarray):
        return np
    if type(array).__module__.partition(".")[0] == "cupy":
        import cupy

        module: ModuleType = cupy
        return module
    raise TypeError(f"expected a NumPy or CuPy array, got {type(array).__name__}")


def plain_array(value: Any, argument: str, expected: str = "an array") -> Array:
    """`value`, if it is an array like others: a masked one hides numbers, a matrix has two axes whatever is done."""
    if not is_array(value) or isinstance(value, (np.ma.MaskedArray, np.matrix)):
        raise TypeError(f"{argument} must be {expected}, got {type(value).__name__}")
    array: Array = value
    return array


def is_array(value: Any) -> bool:
    kind = type(value)
    return isinstance(value, np.ndarray) or (kind.__name__ == "ndarray" and kind.__module__.partition(".")[0] == "cupy")


def as_array(value: Any) -> Any:
    """NumPy's arithmetic turns arrays of shape () into scalars; this turns them back, and leaves all else alone."""
    return np.asarray(value) if isinstance(value, np.generic) else value


def on_cpu(array: Any) -> Any:
    """A NumPy array as it is, a CuPy array copied to the memory of the CPU."""
    return array if isinstance(array, np.ndarray) else array.get()


def address_of(array: Any) -> int:
    """Where the first element of a NumPy or CuPy array lies."""
    return int(array.ctypes.data if isinstance(array, np.ndarray) else array.data.ptr)


def channels_last(x: Array) -> Array:
    """(N, C, H, W) -> (N, H, W, C), contiguous: a free view where the memory already lies so."""
    return array_module(x).ascontiguousarray(x.transpose(0, 2, 3, 1))


def channels_first(x: Array) -> Array:
    """(N, H, W, C) -> (N, C, H, W), always a view."""
    return x.transpose(0, 3, 1, 2)
