"""The bugs in the gemm ladder."""

from __future__ import annotations

from collections.abc import Iterator

from ..bug import Bug, inside
from .builders import kernel, product


def bugs() -> Iterator[Bug]:
    yield from kernel("gemm_01_naive", "gemm_01_naive.cu", [product("gemm_01_naive")], [
        ("m >= M || n >= N", "m >= M"),
        ("m >= M || n >= N", "n >= N"),
        ("k < K", "k < K - 1"),
        ("at(m, a_row, k, a_col)", "at(k, a_row, m, a_col)"),
        ("at(k, b_row, n, b_col)", "at(k, b_col, n, b_row)"),
        ("at(m, c_row, n, 1)", "at(n, c_row, m, 1)"),
    ])  # fmt: skip
    yield from kernel("gemm_02_coalesced", "gemm_02_coalesced.cu", [product("gemm_02_coalesced")], [
        ("m >= M || n >= N", "m > M || n >= N"),
        ("m >= M || n >= N", "m >= M || n > N"),
        ("k < K", "k < K / 2"),
        ("at(m, a_row, k, a_col)", "at(m, a_row, k, 1)"),
        ("at(k, b_row, n, b_col)", "at(k, b_row, m, b_col)"),
        ("blockIdx.y * blockDim.y + threadIdx.y", "threadIdx.y"),
    ])  # fmt: skip
    yield from kernel("gemm_03_shared", "gemm_03_shared.cu", [product("gemm_03_shared")], [
        ("m < M && ka < K", "m < M"),
        ("kb < K && n < N", "n < N && kb <= K"),
        ("tile_b[k][column]", "tile_b[column][k]"),
        ("k < TILE", "k < TILE - 1"),
        ("‹__syncthreads();›  // the tiles are complete", ""),
        ("‹__syncthreads();›  // all threads have read them", ""),
        ("if (‹m < M && n < N›) C", "m < M"),
    ])  # fmt: skip
    yield from kernel("gemm_04_registers", "gemm_04_registers.cu", [product("gemm_04_registers")], [
        ("threadIdx.x / 16 * 8", "threadIdx.x / 16 * 4"),
        ("m < M && k < K", "m < M"),
        ("k < K && n < N", "k < K || n < N"),
        ("tile_a[row + i][k]", "tile_a[row + i][7 - k]"),
        ("tile_b[k][column + j]", "tile_b[k][column]"),
        ("a[i] * b[j]", "a[j] * b[i]"),
        ("m0 + row + i < M && n0 + column + j < N", "m0 + row + i < M && n0 + column < N"),
    ])  # fmt: skip
    yield from kernel("gemm_05_vectors", "gemm_05_vectors.cu", [product("gemm_05_vectors")], [
        ("rows{A, M, ‹a_row›, K, a_col}", "a_row + 1"),
        ("columns{B, ‹N›, b_col, K, b_row}", "N - 1"),
        ("load_tile<true>(a, rows, ‹m0›, k0", "n0"),
        ("load_tile<false>(b, columns, n0, ‹k0›", "0"),
        ("multiply_tiles(a, b, squares, sum);", "multiply_tiles(b, a, squares, sum);"),
        ("‹__syncthreads();›\n        multiply_tiles", ""),
        ("at(m, c_row, 0, 1)", "at(m, N, 0, 1)"),
    ])  # fmt: skip
    for name in ("gemm_06_async", "gemm_07_warps", "gemm_11_wide"):
        yield from kernel(name, f"{name}.cu", [product(name)], [
            ("rows{A, M, a_row, ‹K›, a_col}", "K - 1"),
            ("rows{A, M, ‹a_row›, K, a_col}", "a_col"),
            ("columns{B, N, b_col, K, ‹b_row›}", "b_col"),
            ("m0, n0, ‹0›, squares", "8"),
            ("store_sums(sum, squares, m0, n0, ‹M›, N", "M - 1"),
            ("at(m, c_row, 0, 1)", "at(m, N, 0, 1)"),
        ])  # fmt: skip
    yield from kernel("gemm_11_wide", "gemm_11_wide.cu", [product("gemm_11_wide")], [
        ("n0 = ‹column * 16 * WIDE›", "column * 16"),
        ("squares_of_warp(‹4 * WIDE›)", "2 * WIDE"),
    ])  # fmt: skip
    yield from kernel("gemm_08_split_k", "gemm_08_split_k.cu", [product("gemm_08_split_k")], [
        ("min(begin + part, K)", "K"),
        ("min(begin + part, K)", "min(begin + part - 1, K)"),
        ("blockIdx.z * part", "0"),
        ("(long long)blockIdx.z * M * N", "0"),
        ("at(m, N, 0, 1)", "at(m, M, 0, 1)"),
        ("blockIdx.z * part", "blockIdx.z * (part - 8)"),
        ("m0, n0, ‹begin›, squares", "0"),
    ])  # fmt: skip
    yield from kernel("gemm_08_add_parts", "gemm_08_split_k.cu", [product("gemm_08_split_k")], [
        ("m >= M || n >= N", "n >= N"),
        ("m >= M || n >= N", "m >= M"),
        ("int z = ‹0›", "1"),
        ("z < parts", "z < 1"),
        ("((long long)z * M + m) * N + n", "((long long)z * N + m) * N + n"),
        ("at(m, c_row, n, 1)", "at(m, M, n, 1)"),
    ])  # fmt: skip
    for name in ("gemm_09_tf32", "gemm_12_3xtf32"):
        yield from kernel(name, f"{name}.cu", [product(name)], [
            ("rows{A, M, a_row, ‹K›, a_col}", "K - 1"),
            ("columns{B, N, b_col, K, ‹b_row›}", "b_col"),
            ("columns, ‹m0›, n0, warp", "n0"),
            ("columns, m0, ‹n0›, warp", "0"),
            ("store_mma(sum, warp, m0, n0, M, ‹N›", "N + 1"),
            ("at(m, c_row, 0, 1)", "at(m, N, 0, 1)"),
        ])  # fmt: skip
    yield from kernel("gemm_10_bf16", "gemm_10_bf16.cu", [product("gemm_10_bf16")], [
        ("rows{A, M, ‹a_row›, K, a_col}", "a_col"),
        ("k0 < K", "k0 < K - 1"),
        ("load_matrix_bf16(a, rows, m0, ‹k0›, a_by_four);", "0"),
        ("load_matrix_bf16(b, columns, ‹n0›, k0, b_by_four);", "m0"),
        ("‹__syncthreads();›\n        multiply_mma", ""),
        ("multiply_mma<BF16>(a, b, warp, sum);\n        ‹__syncthreads();›", ""),
        ("at(m, c_row, 0, 1)", "at(m, N, 0, 1)"),
    ])  # fmt: skip
    by_four = "void load_matrix_bf16("
    yield from inside("gemm_10_bf16", "cuda/gemm_10_bf16.cu", by_four, [product("gemm_10_bf16")], [
        ("line0 + line + 32 * i", "line0 + line"),
        ("32 * i, ‹k0 + k›", "k0"),
    ])  # fmt: skip
