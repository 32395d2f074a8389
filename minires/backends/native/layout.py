"""Arrays as the kernels want them: without gaps, images (N, H, W, C), everything else rows × channels."""

from __future__ import annotations

import numpy as np

from minires.arrays import Array, channels_first
from minires.backends.native.compiled import native


def empty(shape: tuple[int, ...], like: Array) -> Array:
    """An array to be filled, of `like`'s dtype, in memory that is used again."""
    array: Array = native().empty(shape, like.dtype)
    return array


def contiguous(x: Array) -> Array:
    """In C order, without gaps and aligned: x itself where it lies so, else a copy."""
    if x.flags.c_contiguous and x.flags.aligned:
        return x
    copy = empty(x.shape, x)
    np.copyto(copy, x)
    return copy


def channels_last(x: Array) -> Array:
    """(N, C, H, W) -> (N, H, W, C), contiguous: a free view where the memory already lies so."""
    return contiguous(x.transpose(0, 2, 3, 1))


def pixels(x: Array) -> Array:
    """(N, C, ...) -> (N·..., C), without gaps: a view where the memory is channels-last already"""
    return contiguous(np.moveaxis(x, 1, -1)).reshape(x.size // max(x.shape[1], 1), x.shape[1])


def unpixels(X: Array, shape: tuple[int, ...]) -> Array:
    """(N·..., C) -> (N, C, ...), a view"""
    N, C, *spatial = shape
    return np.moveaxis(X.reshape(N, *spatial, C), -1, 1)


def packed(x: Array) -> Array:
    """Without gaps, images channels-last: two arrays of one shape lie alike whatever their strides were."""
    return channels_last(x) if x.ndim == 4 else contiguous(x).reshape(x.shape)


def unpacked(X: Array) -> Array:
    return channels_first(X) if X.ndim == 4 else X


def optional(vector: Array | None) -> Array | None:
    return None if vector is None else contiguous(vector)
