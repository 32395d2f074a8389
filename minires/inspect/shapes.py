"""A backend that computes only shapes and dtypes, for counting."""

from __future__ import annotations

from typing import Any

import numpy as np

from minires.arrays import Array, array_module
from minires.backends import reference
from minires.backends.reference.windows import output_size

Pair = tuple[int, int]


class Shapes:
    """The reference backend's forward with results of zeros.

    The system allocates zeros without touching memory, so a network of any size runs at once.
    Cheap operations are the reference backend's.
    """

    name = "shapes"

    def __getattr__(self, operation: str) -> Any:
        return getattr(reference, operation)

    def conv2d_forward(
        self, x: Array, w: Array, b: Array | None, stride: Pair, padding: Pair, dilation: Pair, groups: int
    ) -> Array:
        output = output_size(x.shape[2:], w.shape[2:], stride, padding, dilation)
        return _zeros(x, (x.shape[0], w.shape[0], *output))

    def batch_norm_eval_forward(self, x: Array, *_: Any) -> Array:
        return _zeros(x, x.shape)

    def relu_forward(self, x: Array) -> Array:
        return _zeros(x, x.shape)

    def add_forward(self, a: Array, b: Array) -> Array:
        return _zeros(a, np.broadcast_shapes(a.shape, b.shape), np.result_type(a, b))

    def max_pool2d_forward(
        self, x: Array, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair, output: Pair
    ) -> tuple[Array, Array]:
        N, C = x.shape[:2]
        kind = np.uint8 if kernel[0] * kernel[1] <= 256 else np.int32
        return _zeros(x, (N, C, *output)), _zeros(x, (N, *output, C), kind)

    def adaptive_avg_pool2d_forward(self, x: Array, output: Pair) -> Array:
        return _zeros(x, (*x.shape[:2], *output))

    def linear_forward(self, x: Array, w: Array, b: Array | None) -> Array:
        return _zeros(x, (*x.shape[:-1], w.shape[0]))


def _zeros(like: Array, shape: tuple[int, ...], dtype: Any = None) -> Array:
    zeros: Array = array_module(like).zeros(shape, like.dtype if dtype is None else dtype)
    return zeros
