// C = A·B on the tensor cores, operands rounded to bf16 (7 bits of mantissa), sums in float.
//
// What changed    operands are rounded before they are stored in shared memory, 32 in a line of 64 bytes.  One mma.sync
//                 multiplies 16×16 by 16×8.
// Why faster      twice the rate of tf32, and half the traffic of shared memory.
// Its limit       rounding needs registers, so the copies are not asynchronous.  The loop contains the loads of every
//                 layout: the model (minires kernels --table) puts it behind tf32.
// Error           about 2^-8 of each operand.
// Registers       128; shared memory 16 KiB; 2 blocks a multiprocessor; 3 % multiply-adds.  Needs sm_80.
#include "tensor_tile.cuh"

#ifndef MINIRES_DOUBLE

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1000  // there the compiler would spill at 128 registers
#undef BOUNDS
#define BOUNDS __launch_bounds__(THREADS)
#endif

// Reads a matrix by fours along k where that is possible, else two numbers at a time.
__device__ __forceinline__ void load_matrix_bf16(MmaTile& tile, const Strided& operand, int line0, int k0,
                                                 bool by_four) {
    const int line = threadIdx.x / 8, k = threadIdx.x % 8 * 4;
    if (by_four) {
        load_mma_bf16_by_four(tile, line, k, [&](int i) { return operand.address(line0 + line + 32 * i, k0 + k); });
    } else {
        load_mma_bf16(tile, operand, line0, k0, operand.along_k());
    }
}

KERNEL(gemm_10_bf16)(const real* A, const real* B, real* C, int M, int N, int K,
                     int a_row, int a_col, int b_row, int b_col, int c_row) {
    __shared__ MmaTile a, b;
    const int m0 = blockIdx.y * MMA_TILE, n0 = blockIdx.x * MMA_TILE;
    const Strided rows{A, M, a_row, K, a_col}, columns{B, N, b_col, K, b_row};
    const bool a_by_four = rows.depth_by_four(), b_by_four = columns.depth_by_four();
    const MmaWarp warp;
    MmaSums sum = {};
    for (int k0 = 0; k0 < K; k0 += 2 * MMA_DEPTH) {
        load_matrix_bf16(a, rows, m0, k0, a_by_four);
        load_matrix_bf16(b, columns, n0, k0, b_by_four);
        __syncthreads();
        multiply_mma<BF16>(a, b, warp, sum);
        __syncthreads();
    }
    store_mma(sum, warp, m0, n0, M, N, rows_by_four(C, N, c_row), [&](int m) { return C + at(m, c_row, 0, 1); });
}

#endif
