// Implicit GEMM on the tensor cores, operands rounded to tf32, sums in float.
//
// What changed    tiles in the layout of ldmatrix, multiplied by mma.sync.
// Why faster      the tensor cores' rate.
// Its limit       mma.sync, as in gemm_09.
// Error           about 2^-11 of each operand.
// Registers       160; shared memory 40 KiB.  Needs sm_80.
#include "conv.cuh"
#include "tensor_tile.cuh"

#ifndef MINIRES_DOUBLE

KERNEL(conv_07_tf32)(const real* x, const real* w, real* y, CONV_ARGUMENTS) {
    __shared__ MmaTile a[2], b[2];
    const Conv conv = CONV;
    const int m0 = blockIdx.x * MMA_TILE, n0 = blockIdx.y * MMA_TILE;
    const WindowsOfPixel windows(x, conv, m0 + threadIdx.x / 2);
    const Strided filters = filters_of(w, conv);
    const bool x_by_four = channels_by_four(x, conv), w_by_four = filters_by_four(w, conv);
    const MmaWarp warp;
    MmaSums sum = {};
    accumulate_tf32(
        a, b, [&](MmaTile& tile, int k0) { load_mma_async(tile, windows, m0, k0, x_by_four); },
        [&](MmaTile& tile, int k0) { load_mma_async(tile, filters, n0, k0, w_by_four); }, conv.depth(), warp, sum);
    store_mma(sum, warp, m0, n0, conv.pixels(), O,
              [&](int m, int n, float value) { y[(long long)m * y_pixel + n] = value; });
}

// conv_07 in bf16 (7 bits of mantissa): twice the rate, an error of about 2^-8 of each operand.
KERNEL(conv_07_bf16)(const real* x, const real* w, real* y, CONV_ARGUMENTS) {
    __shared__ MmaTile a, b;
    const Conv conv = CONV;
    const int m0 = blockIdx.x * MMA_TILE, n0 = blockIdx.y * MMA_TILE;
    const WindowsOfPixel windows(x, conv, m0 + threadIdx.x / 2);
    const Strided filters = filters_of(w, conv);
    const MmaWarp warp;
    MmaSums sum = {};
    for (int k0 = 0; k0 < conv.depth(); k0 += 32) {
        load_mma_bf16(a, windows, m0, k0);
        load_mma_bf16(b, filters, n0, k0);
        __syncthreads();
        multiply_mma<true>(a, b, warp, sum);
        __syncthreads();
    }
    store_mma(sum, warp, m0, n0, conv.pixels(), O,
              [&](int m, int n, float value) { y[(long long)m * y_pixel + n] = value; });
}

#endif
