"""The bugs in what several kernels share."""

from __future__ import annotations

from collections.abc import Iterator

from ..bug import Bug
from .builders import convolution, header, operation, product


def bugs() -> Iterator[Bug]:
    tiles = [product("gemm_07_warps"), product("gemm_05_vectors"), product("gemm_06_async")]
    yield from header("tile.cuh", "struct Squares", tiles, [
        ("row + i / 4 * row_step + i % 4", "row + i"),
        ("column + j / 4 * column_step + j % 4", "column + j / 4 * row_step + j % 4"),
    ])  # fmt: skip
    yield from header("tile.cuh", "Squares squares_of_block()", tiles, [("t / 16 * 4", "t / 16"), ("t % 16 * 4", "0")])
    yield from header("tile.cuh", "Squares squares_of_warp()", tiles, [
        ("warp / 4 * 64 + lane / 4 * 4", "warp / 4 * 64 + lane / 8 * 4"),
        ("warp % 4 * 32 + lane % 4 * 4", "warp % 4 * 16 + lane % 4 * 4"),
    ])  # fmt: skip
    yield from header("tile.cuh", "void multiply_tiles(", tiles, [
        ("at.row + half * at.row_step", "at.row"),
        ("u[i] * v[j]", "u[i] * v[7 - j]"),
        ("u[i] * v[j]", "-u[i] * v[j]"),
    ])  # fmt: skip
    yield from header("tile.cuh", "void store_sums(", tiles, [
        ("m < M && n < N", "m < M"),
        ("m < M && n < N", "n < N"),
        ("sum[i][j]", "sum[j][i]"),
    ])  # fmt: skip
    yield from header("tile.cuh", "struct Strided", tiles, [
        ("line < lines && k < depth", "line < lines"),
        ("line < lines && k < depth", "line < lines && k < depth - 1"),
        ("at(line, line_step, k, depth_step)", "at(k, line_step, line, depth_step)"),
    ])  # fmt: skip
    yield from header("tile.cuh", "struct Share", tiles, [
        ("ALONG_K ? line : line + i", "line"),
        ("ALONG_K ? k + i : k", "k"),
        ("ALONG_K ? threadIdx.x / 2 : threadIdx.x % 32 * 4", "threadIdx.x / 2"),
    ])  # fmt: skip
    yield from header("tile.cuh", "void load_tile(Tile", tiles, [
        ("tile[share.k + i][share.line] = ‹value[i]›", "value[3 - i]"),
        ("address ? *address : 0", "address ? *address : 1"),
        ("value[0] = ‹four.x›", "four.y"),
    ])  # fmt: skip
    yield from header("tile.cuh", "void load_tile_async(Tile", tiles, [
        ("address ? from + i : from", "from"),
        ("address ? 16 : 0", "address ? 12 : 0"),
        ("address ? address : anywhere, ‹address != nullptr›", "true"),
    ])  # fmt: skip
    yield from header("tile.cuh", "void accumulate(Tile", tiles, [
        ("k0 + DEPTH < end", "k0 + 2 * DEPTH < end"),
        ("load_b(b[stage ^ 1], ‹k0 + DEPTH›);", "k0"),
        ("load_a(a[‹stage ^ 1›]", "stage"),
        ("cp_async_wait(1);", "cp_async_wait(2);"),
        ("‹__syncthreads();›   // the other threads' copies too", ""),
        ("‹__syncthreads();›  // before the tiles are overwritten", ""),
        ("stage ^= 1;", ""),
    ])  # fmt: skip
    split = [product("gemm_08_split_k"), product("gemm_06_async")]
    yield from header("gemm_tile.cuh", "void accumulate_matrices(", split, [
        ("rows{A, M, a_row, ‹end < K ? end : K›, a_col}", "end - 1"),
        ("columns{B, N, b_col, ‹end < K ? end : K›, b_row}", "end - 1"),
        ("load_tile_async<true>(tile, rows, ‹m0›, k0", "n0"),
        ("load_tile_async<false>(tile, columns, n0, ‹k0›", "begin"),
        ("        ‹begin›, end, squares", "0"),
        ("begin, ‹end›, squares", "end - 8"),
        ("whole && by_four_along(A, K, a_row)", "true"),
    ])  # fmt: skip
    tensor = [product("gemm_09_tf32"), product("gemm_10_bf16")]
    yield from header("tensor_tile.cuh", "struct MmaWarp", tensor, [
        ("threadIdx.x / 32 / 4 * 64", "threadIdx.x / 32 / 4 * 32"),
        ("threadIdx.x / 32 % 4 * 32", "threadIdx.x / 32 % 2 * 32"),
    ])  # fmt: skip
    yield from header("tensor_tile.cuh", "void load_fragment_a(", tensor, [
        ("byte + lane / 16 * 16", "byte + lane % 2 * 16"),
        ("line + lane % 16", "line + lane % 8"),
    ])  # fmt: skip
    yield from header("tensor_tile.cuh", "void load_fragments_b(", tensor, [
        ("line + lane / 16 * 8 + lane % 8", "line + lane % 16"),
        ("byte + lane / 8 % 2 * 16", "byte"),
    ])  # fmt: skip
    yield from header("tensor_tile.cuh", "void multiply_mma(", tensor, [
        ("byte < 64", "byte < 32"),
        ("right[j][0] = ‹two[0]›", "two[1]"),
        ("warp.row + 16 * i", "warp.row"),
    ])  # fmt: skip
    yield from header("tensor_tile.cuh", "void store_mma(", tensor, [
        ("m < M && n < N", "m < M"),
        ("r / 2 * 8", "r % 2 * 8"),
        ("warp.lane % 4 * 2", "warp.lane % 4"),
    ])  # fmt: skip
    yield from header("tensor_tile.cuh", "void load_mma_async(", tensor, [
        ("threadIdx.x % 2 * 8", "threadIdx.x % 2 * 4"),
        ("address ? 4 : 0", "4"),
        ("row + i, address ? address : anywhere, ‹address ? 16 : 0›", "address ? 8 : 0"),
    ])  # fmt: skip
    yield from header("tensor_tile.cuh", "void load_mma_bf16(", tensor, [
        ("threadIdx.x % 2 * 16", "0"),
        ("high ? *high : 0", "low ? *low : 0"),
        ("low ? *low : 0", "low ? *low : 1"),
    ])  # fmt: skip
    yield from header("tensor_tile.cuh", "void accumulate_tf32(", tensor, [
        ("k0 + 16 < K", "k0 + 32 < K"),
        ("load_a(a[stage ^ 1], ‹k0 + 16›);", "k0"),
        ("‹__syncthreads();›\n        multiply_mma", ""),
        ("multiply_mma<false>(a[stage], b[stage], warp, sum);\n        ‹__syncthreads();›", ""),
        ("stage ^= 1;", ""),
    ])  # fmt: skip
    yield from header("ptx.cuh", "void cp_async_one(double* ", tiles, [
        ("inside ? 8 : 0", "8"),
        ("inside ? 8 : 0", "inside ? 4 : 0"),
    ])  # fmt: skip
    yield from header("ptx.cuh", "unsigned to_tf32(", tensor, [
        ("0xffffe000u", "0xff800000u"),
        ("bits + 0x1000u", "bits + 0x100000u"),
        ("bits + 0x1000u", "0x1000u"),
    ])  # fmt: skip
    yield from header("ptx.cuh", "unsigned to_bf16_pair(", tensor, [
        ("bits[0] | bits[1] << 16", "bits[0] | bits[0] << 16"),
        ("bits[0] | bits[1] << 16", "bits[0]"),
        ("(b & 0x7fffffffu) > 0x7f800000u", "(b & 0x7fffffffu) > 0x3f800000u"),
        ("b + 0x7fffu", "b + 0x7fffffu"),
    ])  # fmt: skip
    windows = [convolution("conv_02_im2col", True), convolution("conv_04_implicit")]
    yield from header("conv.cuh", "struct Windows {", windows, [
        ("tap / conv.KW", "tap / conv.KH"),
        ("i * conv.sh + p * conv.dh - conv.ph", "i * conv.sh + p * conv.dh - conv.pw"),
        ("j * conv.sw + q * conv.dw - conv.pw", "j * conv.sw + q - conv.pw"),
        ("row < 0 || row >= conv.H || column < 0 || column >= conv.W", "column < 0 || column >= conv.W"),
        ("* ‹conv.x_pixel› + c", "conv.C"),
    ])  # fmt: skip
    of_pixel = [convolution("conv_05_vectors")]
    yield from header("conv.cuh", "struct WindowsOfPixel", of_pixel, [
        ("i * conv.sh - conv.ph", "i * conv.sh"),
        ("j * conv.sw - conv.pw", "j - conv.pw"),
        ("row0 + p * conv.dh", "row0 + p"),
        ("n * conv.H * conv.W * conv.x_pixel", "0"),
        ("row < 0 || row >= conv.H || column < 0 || column >= conv.W", "row < 0 || row >= conv.H || column < 0"),
    ])  # fmt: skip
    yield from header("conv.cuh", "Strided filters_of(", of_pixel, [
        ("{w, conv.O, ‹conv.depth()›", "conv.C"),
        ("{w, ‹conv.O›, conv.depth()", "conv.O - 1"),
    ])  # fmt: skip
    yield from header("common.cuh", "long long at(", [product("gemm_01_naive"), product("gemm_03_shared")], [
        ("(long long)i * row + (long long)j * col", "(long long)i * col + (long long)j * row"),
        ("(long long)i * row + (long long)j * col", "(long long)i * row + j"),
        ("(long long)i * row + (long long)j * col", "(long long)i + (long long)j * col"),
    ])  # fmt: skip
    yield from header("common.cuh", "real infinity()", [operation("softmax"), operation("log_softmax")], [
        ("__uint_as_float(0x7f800000u)", "real(0)"),
        ("__uint_as_float(0x7f800000u)", "real(-1e5)"),
    ])  # fmt: skip
