// Shared by gemm_06 to gemm_08: one block's tile of a product of two matrices in memory, double-buffered.
#pragma once
#include "tile.cuh"

// sum += the terms begin … end − 1 of K; m0, n0: the tile's first row and column.
__device__ __forceinline__ void accumulate_matrices(Tile (&a)[2], Tile (&b)[2], const real* A, const real* B, int M,
                                                    int N, int K, int a_row, int a_col, int b_row, int b_col, int m0,
                                                    int n0, int begin, int end, const Squares& squares,
                                                    real (&sum)[8][8]) {
    const Strided rows{A, M, a_row, end < K ? end : K, a_col}, columns{B, N, b_col, end < K ? end : K, b_row};
    const bool a_along_k = a_col == 1, b_along_k = b_row == 1 && b_col != 1;
    const bool whole = (begin % 4 == 0) && (end % 4 == 0 || end >= K);
    const bool a_by_four = a_along_k ? whole && by_four_along(A, K, a_row) : a_row == 1 && by_four_along(A, M, a_col);
    const bool b_by_four = b_along_k ? whole && by_four_along(B, K, b_col) : b_col == 1 && by_four_along(B, N, b_row);
    accumulate(
        a, b,
        [&](Tile& tile, int k0) {
            if (a_along_k) load_tile_async<true>(tile, rows, m0, k0, a_by_four);
            else load_tile_async<false>(tile, rows, m0, k0, a_by_four);
        },
        [&](Tile& tile, int k0) {
            if (b_along_k) load_tile_async<true>(tile, columns, n0, k0, b_by_four);
            else load_tile_async<false>(tile, columns, n0, k0, b_by_four);
        },
        begin, end, squares, sum);
}
