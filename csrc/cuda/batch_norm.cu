// Batch normalisation of x (pixels, C), channels-last: statistics, forward, and backward.
//
// Technique   32 neighbouring threads read 32 neighbouring channels of a pixel (coalesced) and loop over the pixels.  The 8
//             rows of threads of a block are merged in shared memory.  A second kernel merges the blocks' parts in a fixed
//             order: the same bits in every run.
// Precision   Welford's update and Chan's merge, which subtract no large sums.
// Limit       memory: forward reads x twice and writes y once, backward reads grad and x twice and writes once.
#include "common.cuh"

constexpr int BN_ROWS = 8;  // rows of threads in a block of 32 × 8

struct Moments {
    real mean, squares, count;  // squares: Σ (x − mean)²
};

__device__ __forceinline__ void add_value(Moments& m, real x) {
    m.count += 1;
    const real before = x - m.mean;
    m.mean += before / m.count;
    m.squares += before * (x - m.mean);
}

// Merges the moments of two disjoint sets (Chan, Golub and LeVeque 1979).
__device__ __forceinline__ void merge(Moments& m, const Moments& other) {
    if (other.count == 0) return;
    const real count = m.count + other.count, apart = other.mean - m.mean;
    m.mean += apart * other.count / count;
    m.squares += other.squares + apart * apart * m.count * other.count / count;
    m.count = count;
}

// parts (blocks, C, 3): blockIdx.y computes `part` pixels
KERNEL(batch_norm_moments)(const real* x, real* parts, int pixels, int C, int part) {
    __shared__ real rows[BN_ROWS][32][3];
    const int c = blockIdx.x * 32 + threadIdx.x, begin = blockIdx.y * part, end = min(begin + part, pixels);
    Moments m = {0, 0, 0};
    if (c < C)
        for (int pixel = begin + threadIdx.y; pixel < end; pixel += BN_ROWS) add_value(m, x[(long long)pixel * C + c]);
    rows[threadIdx.y][threadIdx.x][0] = m.mean;
    rows[threadIdx.y][threadIdx.x][1] = m.squares;
    rows[threadIdx.y][threadIdx.x][2] = m.count;
    __syncthreads();
    if (threadIdx.y || c >= C) return;
    for (int row = 1; row < BN_ROWS; row++) {
        const real* other = rows[row][threadIdx.x];
        merge(m, {other[0], other[1], other[2]});
    }
    real* out = parts + ((long long)blockIdx.y * C + c) * 3;
    out[0] = m.mean, out[1] = m.squares, out[2] = m.count;
}

// mean (C,) and biased variance (C,) of all parts
KERNEL(batch_norm_merge)(const real* parts, real* mean, real* var, int blocks, int C) {
    const int c = blockIdx.x * blockDim.x + threadIdx.x;
    if (c >= C) return;
    Moments m = {0, 0, 0};
    for (int b = 0; b < blocks; b++) {
        const real* p = parts + ((long long)b * C + c) * 3;
        merge(m, {p[0], p[1], p[2]});
    }
    mean[c] = m.mean;
    var[c] = m.squares / m.count;
}

// y = max((x − mean) / √(var + eps) · weight + bias + residual, floor); floor: 0 for ReLU, −∞ without ReLU.
// weight, bias and residual may be null.
KERNEL(batch_norm_apply)(const real* x, const real* mean, const real* var, const real* weight, const real* bias,
                         const real* residual, real* y, int pixels, int C, real eps, real floor) {
    const int c = blockIdx.y * 32 + threadIdx.x;
    if (c >= C) return;
    const real scale = (weight ? weight[c] : real(1)) / sqrt(var[c] + eps), centre = mean[c];
    const real shift = bias ? bias[c] : real(0);
    for (int pixel = blockIdx.x * BN_ROWS + threadIdx.y; pixel < pixels; pixel += gridDim.x * BN_ROWS) {
        const long long place = (long long)pixel * C + c;
        real value = (x[place] - centre) * scale + shift;
        if (residual) value += residual[place];
        y[place] = value < floor ? floor : value;
    }
}

// parts (blocks, C, 2): Σ grad and Σ grad · (x − mean)
KERNEL(batch_norm_backward_sums)(const real* grad, const real* x, const real* mean, real* parts, int pixels, int C,
                                 int part) {
    __shared__ real rows[BN_ROWS][32][2];
    const int c = blockIdx.x * 32 + threadIdx.x, begin = blockIdx.y * part, end = min(begin + part, pixels);
    real sum = 0, product = 0;
    if (c < C) {
        const real centre = mean[c];
        for (int pixel = begin + threadIdx.y; pixel < end; pixel += BN_ROWS) {
            const long long place = (long long)pixel * C + c;
            sum += grad[place];
            product += grad[place] * (x[place] - centre);
        }
    }
    rows[threadIdx.y][threadIdx.x][0] = sum;
    rows[threadIdx.y][threadIdx.x][1] = product;
    __syncthreads();
    if (threadIdx.y || c >= C) return;
    for (int row = 1; row < BN_ROWS; row++) {
        sum += rows[row][threadIdx.x][0];
        product += rows[row][threadIdx.x][1];
    }
    real* out = parts + ((long long)blockIdx.y * C + c) * 2;
    out[0] = sum, out[1] = product;
}

// grad_weight (C,) = Σ grad · x̂ and grad_bias (C,) = Σ grad
KERNEL(batch_norm_backward_merge)(const real* parts, const real* var, real* grad_weight, real* grad_bias, int blocks,
                                  int C, real eps) {
    const int c = blockIdx.x * blockDim.x + threadIdx.x;
    if (c >= C) return;
    real sum = 0, product = 0;
    for (int b = 0; b < blocks; b++) {
        sum += parts[((long long)b * C + c) * 2];
        product += parts[((long long)b * C + c) * 2 + 1];
    }
    grad_weight[c] = product / sqrt(var[c] + eps);
    grad_bias[c] = sum;
}

// grad_x = weight · inv_std · (grad − mean(grad) − x̂ · mean(grad · x̂)).  With batch = 0 the statistics are constants
// (evaluation), and the two means are 0.
KERNEL(batch_norm_backward_input)(const real* grad, const real* x, const real* mean, const real* var,
                                  const real* weight, const real* grad_weight, const real* grad_bias, real* grad_x,
                                  int pixels, int C, real eps, int batch) {
    const int c = blockIdx.y * 32 + threadIdx.x;
    if (c >= C) return;
    const real inv_std = real(1) / sqrt(var[c] + eps), scale = (weight ? weight[c] : real(1)) * inv_std;
    const real centre = mean[c], M = pixels;
    const real offset = batch ? grad_bias[c] / M : real(0), slope = batch ? grad_weight[c] * inv_std / M : real(0);
    for (int pixel = blockIdx.x * BN_ROWS + threadIdx.y; pixel < pixels; pixel += gridDim.x * BN_ROWS) {
        const long long place = (long long)pixel * C + c;
        grad_x[place] = scale * (grad[place] - offset - (x[place] - centre) * slope);
    }
}
