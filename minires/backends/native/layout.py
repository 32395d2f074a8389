"""Arrays as the kernels take them: without gaps, images (N, H, W, C), everything else rows × channels."""

from __future__ import annotations

from numpy import moveaxis

from minires.arrays import Array, channels_first
from minires.backends.native.compiled import native


def empty(shape: tuple[int, ...], like: Array, lasting: bool = False) -> Array:
    """An array to be filled, of `like`'s dtype, in memory that is used again.

    lasting   a capture may compute it once and keep it
    """
    array: Array = native().empty(shape, like.dtype, lasting)
    return array


def filled(shape: tuple[int, ...], like: Array, value: float) -> Array:
    """An array of `value`, images channels-last."""
    memory = empty((shape[0], *shape[2:], shape[1]) if len(shape) == 4 else shape, like)
    native().fill(memory, value)
    return unpacked(memory)


def contiguous(x: Array) -> Array:
    """In C order, without gaps and aligned: x itself where it lies so, else a copy."""
    if x.flags.c_contiguous and x.flags.aligned:
        return x
    copy = empty(x.shape, x)
    native().copy(copy, x)
    return copy


def channels_last(x: Array) -> Array:
    """(N, C, H, W) -> (N, H, W, C), contiguous: a free view where the memory already lies so."""
    return contiguous(x.transpose(0, 2, 3, 1))


def pixels(x: Array) -> Array:
    """(N, C, ...) -> (N·..., C), without gaps: a view where the memory is channels-last already"""
    return contiguous(moveaxis(x, 1, -1)).reshape(x.size // max(x.shape[1], 1), x.shape[1])


def unpixels(X: Array, shape: tuple[int, ...]) -> Array:
    """(N·..., C) -> (N, C, ...), a view"""
    N, C, *spatial = shape
    return moveaxis(X.reshape(N, *spatial, C), -1, 1)


def packed(x: Array) -> Array:
    """Without gaps, images channels-last: two arrays of one shape lie alike whatever their strides were."""
    return channels_last(x) if x.ndim == 4 else contiguous(x).reshape(x.shape)


def unpacked(X: Array) -> Array:
    return channels_first(X) if X.ndim == 4 else X


def optional(vector: Array | None) -> Array | None:
    return None if vector is None else contiguous(vector)
