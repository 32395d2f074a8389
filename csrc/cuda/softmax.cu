// Softmax, its logarithm and cross-entropy of x (rows, C): one warp a row.
//
// Technique   the lanes loop along the row and combine their results by __shfl_xor_sync, which exchanges registers: no
//             shared memory, no barrier.  The maximum is subtracted first, so that exp cannot overflow.
// Limit       memory bandwidth (the second and third pass over a row read from the cache).
#include "common.cuh"

#define ALL_LANES 0xffffffffu

__device__ __forceinline__ real sum_of_warp(real value) {
#pragma unroll
    for (int bits = 16; bits; bits /= 2) value += __shfl_xor_sync(ALL_LANES, value, bits);
    return value;
}

__device__ __forceinline__ real maximum_of_warp(real value) {
#pragma unroll
    for (int bits = 16; bits; bits /= 2) {
        const real other = __shfl_xor_sync(ALL_LANES, value, bits);
        value = other > value || other != other ? other : value;  // NaN stays
    }
    return value;
}

// log Σ exp(x) is largest + log(sum)
__device__ __forceinline__ void log_sum_exp(const real* x, int C, int lane, real& largest, real& sum) {
    largest = -infinity();
    for (int k = lane; k < C; k += 32) largest = x[k] > largest || x[k] != x[k] ? x[k] : largest;
    largest = maximum_of_warp(largest);
    sum = 0;
    for (int k = lane; k < C; k += 32) sum += exp(x[k] - largest);
    sum = sum_of_warp(sum);
}

// A block has 32 × (rows) threads.  Warps beyond the last row return as a whole.
#define ROW_OF_WARP(row, lane)                                                     \
    const int row = blockIdx.x * blockDim.y + threadIdx.y, lane = threadIdx.x;     \
    if (row >= rows) return

KERNEL(softmax_forward)(const real* x, real* y, int rows, int C) {
    ROW_OF_WARP(row, lane);
    x += (long long)row * C, y += (long long)row * C;
    real largest, sum;
    log_sum_exp(x, C, lane, largest, sum);
    for (int k = lane; k < C; k += 32) y[k] = exp(x[k] - largest) / sum;
}

// y · (g − Σ g·y)
KERNEL(softmax_backward)(const real* grad, const real* y, real* grad_x, int rows, int C) {
    ROW_OF_WARP(row, lane);
    grad += (long long)row * C, y += (long long)row * C, grad_x += (long long)row * C;
    real sum = 0;
    for (int k = lane; k < C; k += 32) sum += grad[k] * y[k];
    sum = sum_of_warp(sum);
    for (int k = lane; k < C; k += 32) grad_x[k] = y[k] * (grad[k] - sum);
}

KERNEL(log_softmax_forward)(const real* x, real* y, int rows, int C) {
    ROW_OF_WARP(row, lane);
    x += (long long)row * C, y += (long long)row * C;
    real largest, sum;
    log_sum_exp(x, C, lane, largest, sum);
    for (int k = lane; k < C; k += 32) y[k] = x[k] - largest - log(sum);
}

// g − softmax(x) · Σ g
KERNEL(log_softmax_backward)(const real* grad, const real* y, real* grad_x, int rows, int C) {
    ROW_OF_WARP(row, lane);
    grad += (long long)row * C, y += (long long)row * C, grad_x += (long long)row * C;
    real sum = 0;
    for (int k = lane; k < C; k += 32) sum += grad[k];
    sum = sum_of_warp(sum);
    for (int k = lane; k < C; k += 32) grad_x[k] = grad[k] - exp(y[k]) * sum;
}

// log_p (rows, C) and loss (rows,) = −Σ_k t_k · log_p_k,  t = (1 − s) · onehot(label) + s / C
KERNEL(cross_entropy_forward)(const real* x, const long long* labels, real* log_p, real* loss, int rows, int C,
                              real smoothing) {
    ROW_OF_WARP(row, lane);
    x += (long long)row * C, log_p += (long long)row * C;
    real largest, sum, total = 0;
    log_sum_exp(x, C, lane, largest, sum);
    const real log_sum = log(sum);
    const int label = (int)labels[row];
    for (int k = lane; k < C; k += 32) {
        const real value = x[k] - largest - log_sum;
        log_p[k] = value;
        const real target = (k == label ? 1 - smoothing : real(0)) + smoothing / C;
        if (target != 0) total -= target * value;  // avoids 0 · ∞
    }
    total = sum_of_warp(total);
    if (lane == 0) loss[row] = total;
}

// (softmax − target) · grad_loss
KERNEL(cross_entropy_backward)(const real* grad_loss, const real* log_p, const long long* labels, real* grad_x, int rows,
                               int C, real smoothing) {
    ROW_OF_WARP(row, lane);
    log_p += (long long)row * C, grad_x += (long long)row * C;
    const int label = (int)labels[row];
    for (int k = lane; k < C; k += 32) {
        const real target = (k == label ? 1 - smoothing : real(0)) + smoothing / C;
        grad_x[k] = (exp(log_p[k]) - target) * grad_loss[row];
    }
}
