// Implicit GEMM on the tensor cores, operands rounded to bf16 (7 bits of mantissa), sums in float.
//
// What changed    as in gemm_10, operands are rounded on their way into shared memory.
// Why faster      twice the rate of tf32.
// Its limit       rounding needs registers, so the copies are not asynchronous.
// Error           about 2^-8 of each operand.
// Registers       128; shared memory 18 KiB; 2 blocks a multiprocessor; 1 % multiply-adds.  Needs sm_80.
#include "conv_tile.cuh"
#include "tensor_tile.cuh"

#ifndef MINIRES_DOUBLE

KERNEL(conv_07_bf16)(const real* x, const real* w, real* y, CONV_ARGUMENTS) {
    __shared__ MmaTile a, b;
    __shared__ Origin origins[TILE];
    const Conv conv = CONV;
    const int m0 = blockIdx.x * MMA_TILE, n0 = blockIdx.y * MMA_TILE;
    const int line = threadIdx.x / 8, k = threadIdx.x % 8 * 4;
    const Strided filters = filters_of(w, conv);
    const MmaWarp warp;
    MmaSums sum = {};
    if (channels_by_four(x, conv) && filters_by_four(w, conv)) {
        fill_origins(origins, m0, conv);
        Gather<4, 32, 2 * MMA_DEPTH> windows(taps_of(x, conv), &origins[line], k);
        for (int k0 = 0; k0 < conv.depth(); k0 += 2 * MMA_DEPTH) {
            load_mma_bf16_by_four(a, line, k,
                                  [&](int i) { return windows.inside(i) ? windows.address(i) : nullptr; });
            load_mma_bf16_by_four(b, line, k, [&](int i) { return filters.address(n0 + line + 32 * i, k0 + k); });
            windows.advance();
            __syncthreads();
            multiply_mma<BF16>(a, b, warp, sum);
            __syncthreads();
        }
    } else {  // the image itself, whose three channels are no multiple of four
        const WindowsOfPixel windows(x, conv, m0 + threadIdx.x / 2);
        for (int k0 = 0; k0 < conv.depth(); k0 += 2 * MMA_DEPTH) {
            load_mma_bf16(a, windows, m0, k0, true);
            load_mma_bf16(b, filters, n0, k0, true);
            __syncthreads();
            multiply_mma<BF16>(a, b, warp, sum);
            __syncthreads();
        }
    }
    store_mma(sum, warp, m0, n0, conv.pixels(), O, rows_by_four(y, O, y_pixel),
              [&](int m) { return y + (long long)m * y_pixel; });
}

#endif
