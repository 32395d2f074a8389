"""Launching the rungs of the GEMM ladder."""

from __future__ import annotations

import math
from typing import Any

from minires.arrays import Array
from minires.backends.kernels.own_rung import GemmRung, OwnRung
from minires.backends.kernels.provider import Provider, ceil_div

TILE = 128  # of the rungs from gemm_04 on
MULTIPROCESSORS = 132  # of the GPU that "auto" is tuned for (H100, H200)


def gemm(device: Provider, rung: GemmRung, a: Array, b: Array, out: Array) -> None:
    """out = a @ b by a rung.  a (M, K) and b (K, N) with any strides, out (M, N) with contiguous rows."""
    (M, K), N = a.shape, b.shape[1]
    if rung == "auto":
        rung = choose(M, K, N, a.itemsize)
    if rung == "cublas":
        device.module.matmul(a, b, out=out)
        return
    if K == 0:
        out[...] = 0
        return
    if isinstance(rung, OwnRung):
        rung.gemm(a, b, out)
        return
    strides = [s // array.itemsize for array in (a, b) for s in array.strides]
    row = out.strides[0] // out.itemsize
    if rung == "gemm_08_split_k":
        _split_k(device, a, b, out, strides, row)
        return
    grid, block = _shape_of_launch(rung, M, N, a.itemsize)
    device.launch(rung, out.dtype, grid, block, a, b, out, M, N, K, *strides, row)


def choose(M: int, K: int, N: int, itemsize: int = 4) -> str:
    """The rung for a product of (M, K) and (K, N): gemm_11_wide if its large tiles fill the GPU, split-K if even
    the small ones leave half of it idle, else gemm_07_warps."""
    if ceil_div(M, TILE) * ceil_div(N, wide(itemsize)) >= MULTIPROCESSORS:
        return "gemm_11_wide"
    if ceil_div(M, TILE) * ceil_div(N, TILE) <= MULTIPROCESSORS // 2 and K >= 512:
        return "gemm_08_split_k"
    return "gemm_07_warps"


def wide(itemsize: int) -> int:
    """Columns of a tile of gemm_11_wide: 256, in double precision 128."""
    return 1024 // itemsize


def _shape_of_launch(rung: str, M: int, N: int, itemsize: int = 4) -> tuple[tuple[int, ...], tuple[int, ...]]:
    if rung == "gemm_01_naive":
        return (ceil_div(M, 16), ceil_div(N, 16)), (16, 16)
    if rung == "gemm_02_coalesced":
        return (ceil_div(N, 32), ceil_div(M, 32)), (32, 32)
    if rung == "gemm_03_shared":
        return (ceil_div(N, 32), ceil_div(M, 32)), (32, 32)
    return (ceil_div(N, wide(itemsize) if rung == "gemm_11_wide" else TILE), ceil_div(M, TILE)), (256,)


def threads_of(kernel: str) -> int:
    """Threads in a block of the kernel."""
    return math.prod(_shape_of_launch(kernel, 1, 1)[1])


def split(K: int, tiles: int) -> tuple[int, int]:
    """(part, parts): how K is divided so that some 256 blocks are at work, none with less than 256 of K."""
    parts = max(1, min(ceil_div(256, max(1, tiles)), ceil_div(K, 256)))
    part = max(1, ceil_div(ceil_div(K, parts), 8)) * 8
    return part, ceil_div(K, part)


def _split_k(device: Provider, a: Array, b: Array, out: Array, strides: list[Any], row: int) -> None:
    (M, K), N = a.shape, b.shape[1]
    grid, block = (ceil_div(N, TILE), ceil_div(M, TILE)), (256,)
    part, parts = split(K, grid[0] * grid[1])
    workspace = device.module.empty((parts, M, N), out.dtype)
    device.launch("gemm_08_split_k", out.dtype, (*grid, parts), block, a, b, workspace, M, N, K, *strides, part)
    add_parts(device, workspace, out, row)


def add_parts(device: Provider, workspace: Array, out: Array, row: int) -> None:
    """out (M, N) = the sum of workspace (parts, M, N), in ascending order."""
    parts, M, N = workspace.shape
    grid = (ceil_div(N, 32), ceil_div(M, 8))
    device.launch("gemm_08_add_parts", out.dtype, grid, (32, 8), workspace, out, parts, M, N, row)
