// C = A·B, one thread an element of C.
//
// What it shows   the arithmetic alone: K multiply-adds and 2K loads a thread.
// Its limit       neighbouring threads (threadIdx.x) compute neighbouring *rows* of C.  Each load of a warp touches 32
//                 distant lines of memory and uses 4 bytes of each.
// Registers       32; no shared memory; 8 blocks a multiprocessor.
#include "common.cuh"

// A (M, K), B (K, N) and C (M, N).  Element (i, j) of A is A[i * a_row + j * a_col], so exchanged strides transpose an
// operand.  C's rows are contiguous, c_row apart.  All kernels gemm_* but gemm_08 have the same arguments.
KERNEL(gemm_01_naive)(const real* A, const real* B, real* C, int M, int N, int K,
                      int a_row, int a_col, int b_row, int b_col, int c_row) {
    const int m = blockIdx.x * blockDim.x + threadIdx.x;
    const int n = blockIdx.y * blockDim.y + threadIdx.y;
    if (m >= M || n >= N) return;
    real sum = 0;
    for (int k = 0; k < K; k++) sum += A[at(m, a_row, k, a_col)] * B[at(k, b_row, n, b_col)];
    C[at(m, c_row, n, 1)] = sum;
}
