"""The ladders: every kernel that can be chosen by name, the slowest first, each with what it adds to the one before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from minires._checks import choice


@dataclass(frozen=True)
class Rung:
    """A kernel, or a way to put kernels together, that a call can pick by name.

    kind    "gemm" (a product of matrices), "conv2d" (a convolution), or what the kernel computes
    adds    what is new in it, in one line
    needs   the oldest compute capability with its instructions; "" for any
    """

    name: str
    kind: str
    adds: str
    needs: str = ""


RUNGS = (
    Rung("gemm_01_naive", "gemm", "one thread an element of C, neighbours down a column"),
    Rung("gemm_02_coalesced", "gemm", "neighbours along a row: a warp reads whole lines"),
    Rung("gemm_03_shared", "gemm", "32×32 tiles in shared memory: each load is used 32 times"),
    Rung("gemm_04_registers", "gemm", "8×8 sums in the registers of a thread"),
    Rung("gemm_05_vectors", "gemm", "16-byte loads, transposed and padded on the way into shared memory"),
    Rung("gemm_06_async", "gemm", "cp.async: the next tiles under way while these are multiplied", "8.0"),
    Rung("gemm_07_warps", "gemm", "a compact, interleaved piece for each warp; blocks renumbered for L2", "8.0"),
    Rung("gemm_08_split_k", "gemm", "K divided among blocks, the parts added in a fixed order", "8.0"),
    Rung("gemm_09_tf32", "gemm", "tensor cores: ldmatrix and mma.sync in tf32", "8.0"),
    Rung("gemm_10_bf16", "gemm", "tensor cores in bf16: twice the rate of tf32", "8.0"),
    Rung("gemm_11_wide", "gemm", "8×16 sums a thread: 128×256 tiles, the default for large products", "8.0"),
    Rung("gemm_12_3xtf32", "gemm", "tensor cores nearly in float's precision: three products in tf32", "8.0"),
    Rung("conv_01_direct", "conv2d", "the definition: one thread an output"),
    Rung("conv_02_im2col", "conv2d", "windows copied out, then any gemm; backward gathers (col2im)"),
    Rung("conv_02_im2col_atomic", "conv2d", "for comparison: backward scatters by atomicAdd, in no fixed order"),
    Rung("conv_03_1x1", "conv2d", "1×1 windows need no copy: x itself is the matrix"),
    Rung("conv_04_implicit", "conv2d", "implicit GEMM: tiles gathered straight from x"),
    Rung("conv_05_vectors", "conv2d", "places worked out once, four channels with one load"),
    Rung("conv_06_async", "conv2d", "cp.async; taps carried along without divisions; 64 filters a tile", "8.0"),
    Rung("conv_07_tf32", "conv2d", "tensor cores in tf32", "8.0"),
    Rung("conv_07_bf16", "conv2d", "tensor cores in bf16", "8.0"),
    Rung("conv_08_winograd", "conv2d", "F(2×2, 3×3): 16 multiplications instead of 36", "8.0"),
    Rung("conv_09_fused", "conv2d", "batch norm, residual add and ReLU in the epilogue (evaluation)", "8.0"),
    Rung("conv_10_split_k", "conv2d", "taps and channels divided among blocks: layers with few pixels", "8.0"),
    Rung("conv_backward", "gradients", "implicit GEMM: data by parity classes, weights by split-K", "8.0"),
    Rung("batch_norm", "batch_norm", "Welford's moments, merged in a fixed order; ReLU and skip-add fused"),
    Rung("pool", "pooling", "max, average and adaptive pooling; backward as a gather"),
    Rung("softmax", "softmax", "a warp a row, reduced by shuffles; cross-entropy with label smoothing"),
    Rung("elementwise", "elementwise", "relu, add, and one SGD step for all parameters"),
)

GEMMS = tuple(rung.name for rung in RUNGS if rung.kind == "gemm")
CONVOLUTIONS = tuple(rung.name for rung in RUNGS if rung.kind == "conv2d" and rung.name != "conv_09_fused")


def check_gemm(name: Any) -> str:
    """The name, if it is a gemm's; ValueError with the nearest match otherwise."""
    return _check(name, "gemm", ("auto", "cublas", *GEMMS))


def check_conv2d(name: Any) -> str:
    """The name, if it is a convolution's; ValueError with the nearest match otherwise."""
    return _check(name, "conv2d", ("auto", *CONVOLUTIONS))


def _check(name: Any, option: str, allowed: tuple[str, ...]) -> str:
    try:
        return choice(name, option, allowed)
    except ValueError as error:
        raise ValueError(f"{error} A path that ends in .cu is a kernel of your own.") from None
