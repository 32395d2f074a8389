// launch: block=(64) grid=(ceil(N/2), M)
// A sound kernel: a warp computes one element of C by shuffles, through shared memory that only its own lanes use.  Each
// factor `right` is 1 if the emulator's functions are right.
extern "C" __global__ void warp(const float* A, const float* B, float* C, int M, int N, int K) {
    __shared__ float partial[2][32];
    __shared__ int count, largest;
    const unsigned all = 0xffffffffu;
    const int lane = threadIdx.x % warpSize, mine = threadIdx.x / warpSize, n = blockIdx.x * 2 + mine;
    if (threadIdx.x == 0) count = largest = 0;
    __syncthreads();
    atomicAdd(&count, 1);
    atomicMax(&largest, (int)threadIdx.x);
    float sum = 0;
    for (int k = lane; k < K && n < N; k += 32) sum = __fmaf_rn(__ldg(&A[blockIdx.y * K + k]), B[k * N + n], sum);
    partial[mine][lane] = sum;
    __syncwarp();
    sum = partial[mine][31 - lane];
    for (int by = 16; by; by /= 2) sum += __shfl_down_sync(all, sum, by);
    const int left = __shfl_up_sync(all, lane, 1), part = __shfl_xor_sync(all, lane, 3, 8);
    bool right = __popc(__ballot_sync(all, lane < 5)) == 5 && __any_sync(all, lane == 7) && !__all_sync(all, lane < 31);
    right = right && left == max(lane - 1, 0) && part == (lane ^ 3) && __shfl_sync(all, lane, 2, 8) == lane / 8 * 8 + 2;
    right = __all_sync(all, right);
    __syncthreads();
    right = right && count == 64 && largest == 63 && min(3u, 4) == 3;
    if (lane == 0 && n < N) C[blockIdx.y * N + n] = right ? sum : -1;
}
