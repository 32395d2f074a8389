// C = A·B, K divided among several blocks for each tile of C.
//
// What changed    blockIdx.z computes a partial C from its part of K in a workspace.  A second kernel adds the parts in a
//                 fixed order, so the result does not depend on the order of the blocks.
// Why faster      a small C with a large K (a weight gradient) keeps every multiprocessor busy.
// Its limit       the partial sums are written and read once more, which is slow for a large C.
// Registers       127; shared memory 16.5 KiB; 2 blocks a multiprocessor; 84 % multiply-adds.  Needs sm_80.
#include "gemm_tile.cuh"

// workspace (parts, M, N); `part` is a multiple of 8, the depth of a tile
KERNEL(gemm_08_split_k)(const real* A, const real* B, real* workspace, int M, int N, int K,
                        int a_row, int a_col, int b_row, int b_col, int part) {
    __shared__ Tile a[2], b[2];
    const int m0 = blockIdx.y * TILE, n0 = blockIdx.x * TILE;
    const int begin = blockIdx.z * part, end = min(begin + part, K);
    const Squares squares = squares_of_warp(TILE / 4);
    const Strided rows{A, M, a_row, end, a_col}, columns{B, N, b_col, end, b_row};
    real sum[8][8] = {};
    accumulate_matrices(a, b, rows, columns, m0, n0, begin, squares, sum);
    real* C = workspace + (long long)blockIdx.z * M * N;
    store_sums(sum, squares, m0, n0, M, N, rows_by_four(C, N, N), [&](int m) { return C + at(m, N, 0, 1); });
}

// C[m, n] = Σ_z workspace[z, m, n], z ascending
KERNEL(gemm_08_add_parts)(const real* workspace, real* C, int parts, int M, int N, int c_row) {
    const int n = blockIdx.x * blockDim.x + threadIdx.x, m = blockIdx.y * blockDim.y + threadIdx.y;
    if (m >= M || n >= N) return;
    real sum = 0;
    for (int z = 0; z < parts; z++) sum += workspace[((long long)z * M + m) * N + n];
    C[at(m, c_row, n, 1)] = sum;
}
