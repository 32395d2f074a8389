"""Arrays with fences around them, which reveal reads and writes outside of the array."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np

from minires import backends
from minires.arrays import Array
from minires.verify.properties import expect

WIDTH = 1 << 14  # bytes around an array


def _within_field(shape: tuple[int, ...], dtype: Any, byte: int) -> tuple[Array, Array, int]:
    """An array, aligned to a cache line, in the midst of a field of one byte; the field; and where it begins there."""
    field = np.full(math.prod(shape) * np.dtype(dtype).itemsize + 2 * WIDTH + 64, byte, np.uint8)
    begin = WIDTH - field.ctypes.data % 64
    return np.ndarray(shape, dtype, field.data, begin), field, begin


def among_nan(array: Array) -> Array:
    """A copy of floats with NaN before and behind it in memory: a kernel that reads outside, and be it to multiply what
    it finds there with 0, gives NaN.  The axes lie in the order in which the array's do, without gaps."""
    order = sorted(range(array.ndim), key=lambda axis: -abs(array.strides[axis]))
    room, _, _ = _within_field(tuple(array.shape[axis] for axis in order), array.dtype, 0xFF)
    copy = room.transpose([order.index(axis) for axis in range(array.ndim)])
    copy[...] = array
    return copy


class Fence(ModuleType):
    """NumPy, but its `empty` gives NaN (integers: −77) with a fence around it."""

    POST = 0xA5  # every byte of it

    def __init__(self) -> None:
        super().__init__("numpy")
        self._fields: list[tuple[Array, int, int]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)

    def empty(self, shape: Any, dtype: Any = float) -> Array:
        dtype = np.dtype(dtype)
        array, field, begin = _within_field((shape,) if isinstance(shape, int) else tuple(shape), dtype, self.POST)
        array.fill(np.nan if dtype.kind == "f" else 77 if dtype.kind == "u" else -77)
        self._fields.append((field, begin, begin + array.nbytes))
        return array

    def check(self) -> None:
        """AssertionError if somebody wrote outside of an array that `empty` gave; those are forgotten then."""
        fields, self._fields = self._fields, []
        whole = all((f[:begin] == self.POST).all() and (f[end:] == self.POST).all() for f, begin, end in fields)
        expect(whole, "a kernel wrote outside of the array that it was to fill")


@contextmanager
def fenced(name: str, **options: Any) -> Iterator[Any]:
    """Within it the named backend computes, and every array that its kernels fill has a fence."""
    fence = Fence()
    with backends.backend(name, **options) as backend:
        if name == "emulated":
            backend.device.module = fence
            yield backend
        else:
            from minires.backends.native import backend as native
            from minires.backends.native import filters

            places = (native, filters)
            before = [place.empty for place in places]
            try:
                for place in places:
                    place.empty = lambda shape, like, lasting=False: fence.empty(shape, like.dtype)  # type: ignore[attr-defined]
                yield backend
            finally:
                for place, empty in zip(places, before, strict=True):
                    place.empty = empty  # type: ignore[attr-defined]
    fence.check()
