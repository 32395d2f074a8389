// C = A·B, copying the next tiles during a product.
//
// What changed    two pairs of tiles.  cp.async copies into one pair while the other pair is multiplied.
// Why faster      arithmetic hides the latency of memory, and the copies need no registers.
// Its limit       for each k a warp reads 2 rows of squares and all 16 columns from shared memory.
// Registers       127; shared memory 16.5 KiB; 2 blocks a multiprocessor; 84 % multiply-adds.  Needs sm_80.
#include "gemm_tile.cuh"

KERNEL(gemm_06_async)(const real* A, const real* B, real* C, int M, int N, int K,
                      int a_row, int a_col, int b_row, int b_col, int c_row) {
    __shared__ Tile a[2], b[2];
    const int m0 = blockIdx.y * TILE, n0 = blockIdx.x * TILE;
    const Squares squares = squares_of_block();
    const Strided rows{A, M, a_row, K, a_col}, columns{B, N, b_col, K, b_row};
    real sum[8][8] = {};
    accumulate_matrices(a, b, rows, columns, m0, n0, 0, squares, sum);
    store_sums(sum, squares, m0, n0, M, N, rows_by_four(C, N, c_row), [&](int m) { return C + at(m, c_row, 0, 1); });
}
