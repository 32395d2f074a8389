// C = A·B, a compact part of the tile for each warp, and neighbouring tiles for neighbouring blocks.
//
// What changed    a warp computes 64×32 of the tile (8×4 lanes), lanes interleaved such that neighbours read the same
//                 numbers.  Blocks are renumbered: those that run at the same time cover a compact region of C.
// Why faster      8 wavefronts of shared memory for each k and warp instead of 12.  Running blocks share rows of A and
//                 columns of B in L2.
// Its limit       few tiles (a small C with a large K) leave most multiprocessors idle.
// Registers       123; shared memory 16.5 KiB; 2 blocks a multiprocessor; 84 % multiply-adds.  Needs sm_80.
#include "gemm_tile.cuh"

KERNEL(gemm_07_warps)(const real* A, const real* B, real* C, int M, int N, int K,
                      int a_row, int a_col, int b_row, int b_col, int c_row) {
    __shared__ Tile a[2], b[2];
    int row, column;
    tile_of_block(row, column);
    const int m0 = row * TILE, n0 = column * TILE;
    const Squares squares = squares_of_warp(TILE / 4);
    const Strided rows{A, M, a_row, K, a_col}, columns{B, N, b_col, K, b_row};
    real sum[8][8] = {};
    accumulate_matrices(a, b, rows, columns, m0, n0, 0, squares, sum);
    store_sums(sum, squares, m0, n0, M, N, rows_by_four(C, N, c_row), [&](int m) { return C + at(m, c_row, 0, 1); });
}
