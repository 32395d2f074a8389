// C = A·B, a compact part of the tile for each warp, and neighbouring tiles for neighbouring blocks.
//
// What changed    a warp computes 64×32 of the tile (8×4 lanes) instead of two rows of squares.  Blocks are renumbered, so
//                 that blocks that run at the same time cover a compact region of C.
// Why faster      a warp reads 12 vectors per k from shared memory instead of 18.  Running blocks share rows of A and
//                 columns of B in L2.
// Its limit       few tiles (a small C with a large K) leave most multiprocessors idle.
// Registers       128; shared memory 16.5 KiB.  Needs sm_80.
#include "gemm_tile.cuh"

// The tile of this block: bands of 8 rows of tiles, column by column within a band.
__device__ __forceinline__ void tile_of_block(int& row, int& column) {
    const int band = 8, rows = gridDim.y, columns = gridDim.x;
    const int number = blockIdx.y * columns + blockIdx.x;
    const int first = number / (band * columns) * band, height = min(band, rows - first);
    const int within = number - first * columns;
    row = first + within % height;
    column = within / height;
}

KERNEL(gemm_07_warps)(const real* A, const real* B, real* C, int M, int N, int K,
                      int a_row, int a_col, int b_row, int b_col, int c_row) {
    __shared__ Tile a[2], b[2];
    int row, column;
    tile_of_block(row, column);
    const int m0 = row * TILE, n0 = column * TILE;
    const Squares squares = squares_of_warp();
    real sum[8][8] = {};
    accumulate_matrices(a, b, A, B, M, N, K, a_row, a_col, b_row, b_col, m0, n0, 0, K, squares, sum);
    store_sums(sum, squares, m0, n0, M, N, [&](int m, int n, real value) { C[at(m, c_row, n, 1)] = value; });
}
