"""Scratch memory that is used again.

A fresh array of 100 MB costs three to ten times a reused one: the system hands it out page by page, zeroed.  The
unrolled windows of a convolution live only within one call, so every call can write them into the same memory.
"""

from __future__ import annotations

import math
import threading
from typing import Any

import numpy as np

from minires.arrays import Array, array_module


class _Workspace(threading.local):
    memory: Array = np.empty(0, np.uint8)


_workspace = _Workspace()


def scratch_like(view: Array) -> Array:
    """A contiguous array of `view`'s shape and dtype, with undefined content, valid until this thread asks again."""
    shape: tuple[int, ...] = view.shape
    dtype: np.dtype[Any] = view.dtype
    if array_module(view) is not np:
        return array_module(view).empty(shape, dtype)  # CuPy pools its memory itself
    size = math.prod(shape) * dtype.itemsize
    if _workspace.memory.size < size:
        _workspace.memory = np.empty(0, np.uint8)  # the old one goes before the new one comes
        _workspace.memory = np.empty(size, np.uint8)
    return _workspace.memory[:size].view(dtype).reshape(shape)
