// C = A·B, one thread an element of C, neighbouring threads along a row of C.
//
// What changed    threadIdx.x runs along n instead of m.  The 32 threads of a warp read one line of B, share one element
//                 of A and write one line of C.
// Why faster      a warp's load is one or four transactions instead of 32.
// Its limit       each element of A and B is still read from memory (or L2) by each thread that needs it.
// Registers       32; no shared memory; 2 blocks a multiprocessor.
#include "common.cuh"

KERNEL(gemm_02_coalesced)(const real* A, const real* B, real* C, int M, int N, int K,
                          int a_row, int a_col, int b_row, int b_col, int c_row) {
    const int n = blockIdx.x * blockDim.x + threadIdx.x;
    const int m = blockIdx.y * blockDim.y + threadIdx.y;
    if (m >= M || n >= N) return;
    real sum = 0;
    for (int k = 0; k < K; k++) sum += A[at(m, a_row, k, a_col)] * B[at(k, b_row, n, b_col)];
    C[at(m, c_row, n, 1)] = sum;
}
