"""Average pooling as rectangles: where each output's rows and columns begin and end, and what its sum is divided by."""

from __future__ import annotations

import numpy as np

from minires.arrays import Array

Pair = tuple[int, int]
Range = tuple[Array, Array]  # begin and end, a number each output


def windows_of_pool(
    x_shape: tuple[int, ...], kernel: Pair, stride: Pair, padding: Pair, output: Pair, count_include_pad: bool
) -> tuple[Range, Range, Array]:
    """Rows, columns, and the divisors (OH, OW) of avg_pool2d.

    The padding counts in the divisor if `count_include_pad`; what ceil_mode adds beyond the padding never counts.
    """
    ranges, sizes = [], []
    for size, k, s, p, o in zip(x_shape[2:], kernel, stride, padding, output, strict=True):
        begin = np.arange(o, dtype=np.int64) * s - p
        end = np.minimum(begin + k, size + p)
        inside = np.clip(begin, 0, size), np.clip(end, 0, size)
        ranges.append(inside)
        sizes.append(end - begin if count_include_pad else inside[1] - inside[0])
    return ranges[0], ranges[1], np.multiply.outer(*sizes)


def bins(size: Pair, output: Pair) -> tuple[Range, Range, Array]:
    """Rows, columns, and the divisors (OH, OW) of adaptive_avg_pool2d: output i has ⌊i·n/o⌋ up to ⌈(i+1)·n/o⌉."""
    ranges = []
    for n, o in zip(size, output, strict=True):
        i = np.arange(o, dtype=np.int64)
        ranges.append((i * n // o, -(-(i + 1) * n // o)))
    rows, columns = ranges
    return rows, columns, np.multiply.outer(rows[1] - rows[0], columns[1] - columns[0])
