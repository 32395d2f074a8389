// launch: block=(16,16) grid=(ceil(N/16), ceil(M/16))
extern "C" __global__ void mine(const float* A, const float* B, float* C, int M, int N, int K) {
    __shared__ float a[16][16], b[16][16];
    const int row = threadIdx.y, column = threadIdx.x;
    const int m = blockIdx.y * 16 + row, n = blockIdx.x * 16 + column;
    float sum = 0;
    for (int k0 = 0; k0 < K; k0 += 16) {
        a[row][column] = m < M && k0 + column < K ? A[m * K + k0 + column] : 0;
        b[row][column] = k0 + row < K && n < N ? B[(k0 + row) * N + n] : 0;
        __syncthreads();  // the tiles are complete
        for (int k = 0; k < 16; k++) sum += a[row][k] * b[k][column];
        __syncthreads();  // all threads have read them
    }
    if (m < M && n < N) C[m * N + n] = sum;
}
