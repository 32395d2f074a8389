// C = A·B on the tensor cores, operands rounded to tf32 (10 bits of mantissa), sums in float.
//
// What changed    ldmatrix loads 16×8 and 8×8 fragments into registers, without bank conflicts.  mma.sync multiplies them:
//                 1,024 multiply-adds by one instruction of a warp.
// Why faster      the tensor cores' rate is several times that of the CUDA cores.
// Its limit       mma.sync does not reach the rate of Hopper's wgmma.
// Error           about 2^-11 of each operand.
// Registers       128; shared memory 32 KiB; 2 blocks a multiprocessor; 10 % multiply-adds.  Needs sm_80.
#include "tensor_tile.cuh"

#ifndef MINIRES_DOUBLE

KERNEL(gemm_09_tf32)(const real* A, const real* B, real* C, int M, int N, int K,
                     int a_row, int a_col, int b_row, int b_col, int c_row) {
    __shared__ MmaTile a[2], b[2];
    const int m0 = blockIdx.y * MMA_TILE, n0 = blockIdx.x * MMA_TILE;
    const Strided rows{A, M, a_row, K, a_col}, columns{B, N, b_col, K, b_row};
    const MmaWarp warp;
    MmaSums sum = {};
    accumulate_matrices_tf32<TF32>(a, b, rows, columns, m0, n0, warp, sum);
    store_mma(sum, warp, m0, n0, M, N, rows_by_four(C, N, c_row), [&](int m) { return C + at(m, c_row, 0, 1); });
}

#endif
