// Pooling, channels-last, one thread an output (forward) or an input (backward).
//
// Technique   backward is a gather: each input adds the gradients of the windows that contain it, in a fixed order.  The
//             last bits of a scatter by atomicAdd would differ from run to run.
// Limit       memory bandwidth; overlapping windows are read from the cache.
#include "common.cuh"

struct Pool {
    int N, H, W, C, OH, OW, KH, KW, sh, sw, ph, pw, dh, dw;
};

#define POOL_ARGUMENTS                                                                                             \
    int N, int H, int W, int C, int OH, int OW, int KH, int KW, int sh, int sw, int ph, int pw, int dh, int dw
#define POOL Pool{N, H, W, C, OH, OW, KH, KW, sh, sw, ph, pw, dh, dw}

// The channel and the pixel of this thread.
#define CHANNEL_AND_PIXEL(c, pixel, pixels)                                                                \
    const int c = blockIdx.y * blockDim.x + threadIdx.x, pixel = blockIdx.x * blockDim.y + threadIdx.y;    \
    if (c >= C || pixel >= (pixels)) return

// Whether window o contains position x along one axis, and by which tap.
__device__ __forceinline__ bool tap_of(int x, int o, int stride, int padding, int dilation, int size, int& tap) {
    const int along = x + padding - o * stride;
    tap = along / dilation;
    return along >= 0 && along % dilation == 0 && tap < size;
}

// y, and the number of the maximum's tap: the first of equal maxima; a NaN is larger than any number
KERNEL(max_pool_forward)(const real* x, real* y, int* argmax, POOL_ARGUMENTS) {
    CHANNEL_AND_PIXEL(c, pixel, N * OH * OW);
    const int j = pixel % OW, i = pixel / OW % OH, n = pixel / (OW * OH);
    real best = 0;
    int tap = -1;
    for (int p = 0; p < KH; p++)
        for (int q = 0; q < KW; q++) {
            const int row = i * sh + p * dh - ph, column = j * sw + q * dw - pw;
            if (row < 0 || row >= H || column < 0 || column >= W) continue;
            const real value = x[(((long long)n * H + row) * W + column) * C + c];
            if (tap < 0 || (best == best && !(value <= best))) best = value, tap = p * KW + q;
        }
    const long long place = (long long)pixel * C + c;
    y[place] = tap < 0 ? -infinity() : best;  // a dilated window may miss a small image
    argmax[place] = tap;
}

KERNEL(max_pool_backward)(const real* grad, const int* argmax, real* grad_x, POOL_ARGUMENTS) {
    CHANNEL_AND_PIXEL(c, pixel, N * H * W);
    const int column = pixel % W, row = pixel / W % H, n = pixel / (W * H);
    real sum = 0;
    for (int i = max((row + ph - (KH - 1) * dh + sh - 1) / sh, 0); i < OH && i * sh <= row + ph; i++)
        for (int j = max((column + pw - (KW - 1) * dw + sw - 1) / sw, 0); j < OW && j * sw <= column + pw; j++) {
            int p, q;
            if (!tap_of(row, i, sh, ph, dh, KH, p) || !tap_of(column, j, sw, pw, dw, KW, q)) continue;
            const long long place = (((long long)n * OH + i) * OW + j) * C + c;
            if (argmax[place] == p * KW + q) sum += grad[place];
        }
    grad_x[(long long)pixel * C + c] = sum;
}

// The divisor of a window's sum along one axis: the padding counts if count_include_pad, ceil_mode's overhang never.
__device__ __forceinline__ int window_size(int o, int stride, int padding, int size, int length, int include) {
    int begin = o * stride - padding, end = min(begin + size, length + padding);
    if (!include) begin = max(begin, 0), end = min(end, length);
    return end - begin;
}

KERNEL(avg_pool_forward)(const real* x, real* y, int count_include_pad, POOL_ARGUMENTS) {
    CHANNEL_AND_PIXEL(c, pixel, N * OH * OW);
    const int j = pixel % OW, i = pixel / OW % OH, n = pixel / (OW * OH);
    real sum = 0;
    for (int row = max(i * sh - ph, 0); row < min(i * sh - ph + KH, H); row++)
        for (int column = max(j * sw - pw, 0); column < min(j * sw - pw + KW, W); column++)
            sum += x[(((long long)n * H + row) * W + column) * C + c];
    const int size = window_size(i, sh, ph, KH, H, count_include_pad) * window_size(j, sw, pw, KW, W, count_include_pad);
    y[(long long)pixel * C + c] = sum / size;
}

KERNEL(avg_pool_backward)(const real* grad, real* grad_x, int count_include_pad, POOL_ARGUMENTS) {
    CHANNEL_AND_PIXEL(c, pixel, N * H * W);
    const int column = pixel % W, row = pixel / W % H, n = pixel / (W * H);
    real sum = 0;
    for (int i = max((row + ph - KH + sh) / sh, 0); i < OH && i * sh <= row + ph; i++)
        for (int j = max((column + pw - KW + sw) / sw, 0); j < OW && j * sw <= column + pw; j++) {
            const int size =
                window_size(i, sh, ph, KH, H, count_include_pad) * window_size(j, sw, pw, KW, W, count_include_pad);
            sum += grad[(((long long)n * OH + i) * OW + j) * C + c] / size;
        }
    grad_x[(long long)pixel * C + c] = sum;
}

// Output i averages the inputs from ⌊i·H/OH⌋ up to ⌈(i+1)·H/OH⌉.
__device__ __forceinline__ int bin_begin(int i, int size, int bins) { return (int)((long long)i * size / bins); }
__device__ __forceinline__ int bin_end(int i, int size, int bins) {
    return (int)(((long long)(i + 1) * size + bins - 1) / bins);
}

KERNEL(adaptive_avg_pool_forward)(const real* x, real* y, int N, int H, int W, int C, int OH, int OW) {
    CHANNEL_AND_PIXEL(c, pixel, N * OH * OW);
    const int j = pixel % OW, i = pixel / OW % OH, n = pixel / (OW * OH);
    const int top = bin_begin(i, H, OH), bottom = bin_end(i, H, OH);
    const int left = bin_begin(j, W, OW), right = bin_end(j, W, OW);
    real sum = 0;
    for (int row = top; row < bottom; row++)
        for (int column = left; column < right; column++) sum += x[(((long long)n * H + row) * W + column) * C + c];
    y[(long long)pixel * C + c] = sum / ((bottom - top) * (right - left));
}

// Input h belongs to the bins from ⌊h·OH/H⌋ up to ⌈(h+1)·OH/H⌉, the forward rule with exchanged sizes.
KERNEL(adaptive_avg_pool_backward)(const real* grad, real* grad_x, int N, int H, int W, int C, int OH, int OW) {
    CHANNEL_AND_PIXEL(c, pixel, N * H * W);
    const int column = pixel % W, row = pixel / W % H, n = pixel / (W * H);
    real sum = 0;
    for (int i = bin_begin(row, OH, H); i < bin_end(row, OH, H); i++)
        for (int j = bin_begin(column, OW, W); j < bin_end(column, OW, W); j++) {
            const int height = bin_end(i, H, OH) - bin_begin(i, H, OH), width = bin_end(j, W, OW) - bin_begin(j, W, OW);
            sum += grad[(((long long)n * OH + i) * OW + j) * C + c] / (height * width);
        }
    grad_x[(long long)pixel * C + c] = sum;
}

#undef CHANNEL_AND_PIXEL
