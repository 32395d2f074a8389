// launch: block=(32) grid=(ceil(N/32), M)
// A sound kernel: the next row of B is under way by cp.async while this one is multiplied.
#include "ptx.cuh"

extern "C" __global__ void pipeline(const float* A, const float* B, float* C, int M, int N, int K) {
    __shared__ float row[2][32];
    const int n = blockIdx.x * 32 + threadIdx.x, neighbour = threadIdx.x ^ 1;
    const auto load = [&](int k) { cp_async_4(&row[k % 2][threadIdx.x], n < N ? &B[k * N + n] : B, n < N ? 4 : 0); };
    load(0);
    cp_async_commit();
    float sum = 0;
    for (int k = 0; k < K; k++) {
        if (k + 1 < K) load(k + 1);
        cp_async_commit();
        cp_async_wait(1);
        __syncthreads();  // the row is complete
        sum += A[blockIdx.y * K + k] * row[k % 2][neighbour];
        __syncthreads();  // all threads have read it
    }
    const int m = blockIdx.y, to = blockIdx.x * 32 + neighbour;
    if (to < N) C[m * N + to] = sum;
}
