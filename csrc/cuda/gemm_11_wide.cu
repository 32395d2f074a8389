// C = A·B, 8×16 sums a thread: a 128×256 tile for each block.
//
// What changed    a thread multiplies 8 numbers of A and 16 of B for each k, and one block of 256 threads fills the
//                 registers of a multiprocessor.  (In double, twice as wide, the sums are 8×8.)
// Why faster      24 numbers from shared memory feed 128 multiply-adds instead of 16 that feed 64, so of the loop's
//                 instructions more are multiply-adds.  A tile needs a quarter less traffic from L2 for each sum.
// Its limit       only 8 warps hide latency, and a small C has too few tiles: gemm_07 is better there.
// Registers       255; shared memory 24.5 KiB; 1 block a multiprocessor; 88 % multiply-adds.  Needs sm_80.
#include "gemm_tile.cuh"

#undef BOUNDS
#define BOUNDS __launch_bounds__(THREADS, 1)

constexpr int WIDE = 64 / sizeof(real);  // sums of a thread in a row: 16, in double 8

KERNEL(gemm_11_wide)(const real* A, const real* B, real* C, int M, int N, int K,
                     int a_row, int a_col, int b_row, int b_col, int c_row) {
    __shared__ Tile a[2];
    __shared__ TileOf<16 * WIDE> b[2];
    int row, column;
    tile_of_block(row, column);
    const int m0 = row * TILE, n0 = column * 16 * WIDE;
    const Squares squares = squares_of_warp(4 * WIDE);
    const Strided rows{A, M, a_row, K, a_col}, columns{B, N, b_col, K, b_row};
    real sum[8][WIDE] = {};
    accumulate_matrices(a, b, rows, columns, m0, n0, 0, squares, sum);
    store_sums(sum, squares, m0, n0, M, N, rows_by_four(C, N, c_row), [&](int m) { return C + at(m, c_row, 0, 1); });
}
