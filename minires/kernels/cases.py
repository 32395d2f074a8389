"""The operations that kernels are checked and profiled on: sizes, shapes, the definition, a bound on rounding."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from minires.arrays import Array
from minires.backends.kernels.own import OwnKernel, without_comments
from minires.backends.reference.conv2d import conv2d_forward

# Sizes that are no multiples of tiles, smaller than tiles, one, and multiples of four and of sixteen alone.
CASES = {
    "gemm": ((33, 65, 17), (37, 29, 23), (64, 48, 32), (20, 36, 12), (2, 3, 70), (1, 1, 1)),
    "conv2d": (
        (2, 3, 9, 7, 5, 3, 3, 1, 1), (1, 4, 8, 8, 8, 3, 3, 2, 1), (1, 3, 13, 11, 2, 7, 7, 2, 3),
        (2, 5, 6, 6, 7, 1, 1, 1, 0), (1, 2, 5, 7, 33, 3, 2, 1, 0), (1, 1, 1, 1, 1, 1, 1, 1, 0),
    ),
}  # fmt: skip
# Multiples of every tile, so that edges do not count.
PROFILED = {
    "gemm": {"M": 128, "N": 128, "K": 64},
    "conv2d": {"N": 1, "C": 16, "H": 16, "W": 16, "O": 32, "KH": 3, "KW": 3, "stride": 1, "padding": 1},
}


def shapes_of(kind: str, sizes: Mapping[str, int]) -> tuple[tuple[int, ...], ...]:
    """The shapes of the two inputs and of the output."""
    if kind == "gemm":
        M, N, K = sizes.values()
        return (M, K), (K, N), (M, N)
    N, C, H, W, O, KH, KW, stride, padding = sizes.values()
    OH, OW = ((size + 2 * padding - k) // stride + 1 for size, k in ((H, KH), (W, KW)))
    return (N, C, H, W), (O, C, KH, KW), (N, O, OH, OW)


def definition(kind: str, inputs: Sequence[Array], sizes: Mapping[str, int]) -> Array:
    """The result in float64, C = A·B or the cross-correlation."""
    left, right = (array.astype(np.float64) for array in inputs)
    if kind == "gemm":
        return left @ right
    stride, padding = (sizes[name] for name in ("stride", "padding"))
    return conv2d_forward(left, right, None, (stride, stride), (padding, padding), (1, 1), 1)


def bound_of(kernel: OwnKernel, inputs: Sequence[Array], sizes: Mapping[str, int]) -> Array:
    """Σ|a||b| times twice the error of a sum of that depth in float32; tensor cores round operands to tf32 or bf16."""
    depth = sizes["K"] if kernel.kind == "gemm" else sizes["C"] * sizes["KH"] * sizes["KW"]
    code = without_comments(kernel.text)
    operand = 2.0**-7 if re.search("bf16|bfloat16", code) else 2.0**-10 if re.search("tf32", code) else 0.0
    return definition(kernel.kind, [np.abs(array) for array in inputs], sizes) * ((depth + 2) * 2.0**-23 + operand)
