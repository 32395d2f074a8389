// C = A·B on the tensor cores, nearly in float's precision: three products in tf32.
//
// What changed    each number is split into its nearest tf32 and the nearest tf32 of what is left, 22 bits together.
//                 a·b is the sum of rest·whole, whole·rest and whole·whole.
// Why faster      three products of the tensor cores take less time than one of the CUDA cores.
// Its limit       a third of tf32's rate, and the splitting.  An infinity gives NaN.
// Error           about 2^-21 of each product, and the rounding of the sums, which tensor cores truncate.
// Registers       155; shared memory 32 KiB; 1 block a multiprocessor; 14 % multiply-adds.  Needs sm_80.
#include "tensor_tile.cuh"

#ifndef MINIRES_DOUBLE

#undef BOUNDS
#define BOUNDS __launch_bounds__(THREADS, 1)

KERNEL(gemm_12_3xtf32)(const real* A, const real* B, real* C, int M, int N, int K,
                       int a_row, int a_col, int b_row, int b_col, int c_row) {
    __shared__ MmaTile a[2], b[2];
    const int m0 = blockIdx.y * MMA_TILE, n0 = blockIdx.x * MMA_TILE;
    const Strided rows{A, M, a_row, K, a_col}, columns{B, N, b_col, K, b_row};
    const MmaWarp warp;
    MmaSums sum = {};
    accumulate_matrices_tf32<TF32_THRICE>(a, b, rows, columns, m0, n0, warp, sum);
    store_mma(sum, warp, m0, n0, M, N, rows_by_four(C, N, c_row), [&](int m) { return C + at(m, c_row, 0, 1); });
}

#endif
