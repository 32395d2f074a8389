// Convolution by its definition, one thread an output.
//
// What it shows   seven loops; four of them are the threads.
// Its limit       each output reads its whole window and its whole filter from memory or cache.
// Registers       32; no shared memory; 8 blocks a multiprocessor.
#include "conv.cuh"

KERNEL(conv_01_direct)(const real* x, const real* w, real* y, CONV_ARGUMENTS) {
    const Conv conv = CONV;
    const int o = blockIdx.y * blockDim.x + threadIdx.x;  // neighbouring threads read neighbouring filters
    const int pixel = blockIdx.x * blockDim.y + threadIdx.y;
    if (pixel >= conv.pixels() || o >= O) return;
    const int j = pixel % OW, i = pixel / OW % OH, n = pixel / (OW * OH);
    real sum = 0;
    for (int p = 0; p < KH; p++)
        for (int q = 0; q < KW; q++) {
            const int row = i * sh + p * dh - ph, column = j * sw + q * dw - pw;
            if (row < 0 || row >= H || column < 0 || column >= W) continue;
            const real* seen = x + (((long long)n * H + row) * W + column) * x_pixel;
            const real* filter = w + (((long long)o * KH + p) * KW + q) * C;
            for (int c = 0; c < C; c++) sum += seen[c] * filter[c];
        }
    y[(long long)pixel * y_pixel + o] = sum;
}
