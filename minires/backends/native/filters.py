"""A convolution's filters as its kernel reads them, and where they are kept from call to call."""

from __future__ import annotations

import weakref
from typing import Any, NamedTuple

from minires.arrays import Array
from minires.backends.native.layout import empty


def arranged(kernels: Any, x_shape: Any, w: Array, y_shape: Any, options: tuple[Any, ...]) -> Array:
    """The filters w (O, C/G, KH, KW) arranged for the convolution of x (N, H, W, C) to y (N, OH, OW, O)."""
    size = kernels.conv2d_filters_size(x_shape, w, y_shape, *options)
    filters = empty((size,), w, lasting=True)
    kernels.conv2d_filters(x_shape, w, y_shape, filters, *options)
    return filters


class _Kept(NamedTuple):
    w: weakref.ref[Array]
    digest: bytes
    filters: Array


FEW = 8  # images: with more of them arranging the filters takes little of the time, and keeping them much memory


class KeptFilters:
    """Arranged filters, kept as long as the weights live and stay the same, for batches of few images.

    With one image arranging the filters costs as much as the convolution itself.  Whether the weights have changed is
    read off a digest of all weights, so a change needs no announcement.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[int, int, int], _Kept] = {}

    def arranged(self, kernels: Any, x_shape: Any, w: Array, y_shape: Any, options: tuple[Any, ...]) -> Array:
        if x_shape[0] > FEW:
            return arranged(kernels, x_shape, w, y_shape, options)
        groups, size = options[3], kernels.conv2d_filters_size(x_shape, w, y_shape, *options)
        key = (
            id(w),
            groups,
            size,
        )  # the size implies the algorithm
        digest = kernels.digest(w)
        kept = self._kept.get(key)
        if kept is None or kept.w() is not w or kept.digest != digest:
            filters = arranged(kernels, x_shape, w, y_shape, options)
            self._kept[key] = kept = _Kept(weakref.ref(w, lambda _: self._kept.pop(key, None)), digest, filters)
        return kept.filters
