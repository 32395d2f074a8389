// launch: block=(16,16) grid=(ceil(N/16), ceil(M/16))
// A sound kernel; test_check.py plants faults in it.
#include <cuda_runtime.h>

#define TILE 16

extern "C" __global__ void tile(const float* A, const float* B, float* C, int M, int N, int K) {
    __shared__ float a[TILE][TILE], b[TILE][TILE];
    const int row = threadIdx.y, column = threadIdx.x;
    const int m = blockIdx.y * TILE + row, n = blockIdx.x * TILE + column;
    float sum = 0.0f;
    for (int k0 = 0; k0 < K; k0 += TILE) {
        a[row][column] = m < M && k0 + column < K ? A[m * K + k0 + column] : 0.0f;
        b[row][column] = n < N && k0 + row < K ? B[(k0 + row) * N + n] : 0.0f;
        __syncthreads();  // the tiles are complete
        for (int k = 0; k < TILE; k++) sum += a[row][k] * b[k][column];
        __syncthreads();  // all threads have read them
    }
    if (m < M && n < N) C[m * N + n] = sum;
}
