// C = A·B, tiles filled four elements at a time.
//
// What changed    a thread loads 4 neighbours of A and of B with one 16-byte load each.  A is stored transposed in shared
//                 memory, so that two 16-byte reads load the 8 numbers of a column.  Rows are padded by 4.
// Why faster      a quarter of the load and store instructions, and no bank conflicts.
// Its limit       the block waits for each pair of tiles before it multiplies.
// Registers       115; shared memory 8.25 KiB; 2 blocks a multiprocessor; 57 % multiply-adds.
#include "tile.cuh"

KERNEL(gemm_05_vectors)(const real* A, const real* B, real* C, int M, int N, int K,
                        int a_row, int a_col, int b_row, int b_col, int c_row) {
    __shared__ Tile a, b;
    const int m0 = blockIdx.y * TILE, n0 = blockIdx.x * TILE;
    const Strided rows{A, M, a_row, K, a_col}, columns{B, N, b_col, K, b_row};
    // Reads each operand by fours along its contiguous dimension, which is k or the lines.
    const bool a_along_k = rows.along_k(), b_along_k = columns.along_k();
    const bool a_by_four = a_along_k ? rows.depth_by_four() : rows.lines_by_four();
    const bool b_by_four = b_along_k ? columns.depth_by_four() : columns.lines_by_four();
    const Squares squares = squares_of_block();
    real sum[8][8] = {};
    for (int k0 = 0; k0 < K; k0 += DEPTH) {
        if (a_along_k) load_tile<true>(a, rows, m0, k0, a_by_four);
        else load_tile<false>(a, rows, m0, k0, a_by_four);
        if (b_along_k) load_tile<true>(b, columns, n0, k0, b_by_four);
        else load_tile<false>(b, columns, n0, k0, b_by_four);
        __syncthreads();
        multiply_tiles(a, b, squares, sum);
        __syncthreads();
    }
    store_sums(sum, squares, m0, n0, M, N, rows_by_four(C, N, c_row), [&](int m) { return C + at(m, c_row, 0, 1); });
}
