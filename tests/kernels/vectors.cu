// launch: block=(8,16) grid=(ceil(N/32), ceil(M/16)) shared=M*0+16*16*4
// A sound kernel: each thread computes four neighbours of C from float4s of B, and A goes through dynamic shared memory.
extern "C" __global__ void vectors(const float* A, const float* B, float* C, int M, int N, int K) {
    extern __shared__ float a[];
    const int m = blockIdx.y * 16 + threadIdx.y, n = (blockIdx.x * 8 + threadIdx.x) * 4;
    const bool whole = N % 4 == 0;
    float4 sum = make_float4(0, 0, 0, 0);
    for (int k0 = 0; k0 < K; k0 += 16) {
        for (int k = threadIdx.x; k < 16; k += 8)
            a[threadIdx.y * 16 + k] = m < M && k0 + k < K ? A[m * K + k0 + k] : 0;
        __syncthreads();
        for (int k = 0; k < min(16, K - k0); k++) {
            float4 b = make_float4(0, 0, 0, 0);
            const float* row = B + (k0 + k) * N;
            if (whole) {
                if (n < N) b = *reinterpret_cast<const float4*>(row + n);
            } else {
                b.x = n < N ? row[n] : 0;
                b.y = n + 1 < N ? row[n + 1] : 0;
                b.z = n + 2 < N ? row[n + 2] : 0;
                b.w = n + 3 < N ? row[n + 3] : 0;
            }
            const float left = a[threadIdx.y * 16 + k];
            sum.x += left * b.x, sum.y += left * b.y, sum.z += left * b.z, sum.w += left * b.w;
        }
        __syncthreads();
    }
    if (m >= M) return;
    const float sums[4] = {sum.x, sum.y, sum.z, sum.w};
    for (int i = 0; i < 4; i++)
        if (n + i < N) C[m * N + n + i] = sums[i];
}
