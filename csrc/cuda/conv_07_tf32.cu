// Implicit GEMM on the tensor cores, operands rounded to tf32, sums in float.
//
// What changed    tiles in the layout of ldmatrix, multiplied by mma.sync.  A warp copies 16 channels of 8 pixels, 16 bytes a
//                 lane, if the channels are a multiple of four.
// Why faster      the tensor cores' rate.
// Its limit       mma.sync, as in gemm_09.
// Error           about 2^-11 of each operand.
// Registers       128; shared memory 34 KiB; 2 blocks a multiprocessor; 3 % multiply-adds.  Needs sm_80.
#include "conv_tile.cuh"
#include "tensor_tile.cuh"

#ifndef MINIRES_DOUBLE

// Copies the tiles of im2col's matrix one after another.
struct MmaWindowCopies {
    typedef MmaPart<true> Shares;
    Shares part;
    Gather<Shares::COUNT, Shares::LINES_APART, MMA_DEPTH> gather;

    __device__ MmaWindowCopies(const Taps& taps, const Origin (&origins)[TILE])
        : gather(taps, &origins[part.line], part.k) {}
    __device__ void operator()(MmaTile& tile) {
#pragma unroll
        for (int i = 0; i < part.COUNT; i++) part.copy(tile, i, gather.address(i), gather.inside(i));
        gather.advance();
    }
};

// The same one number at a time, for the image itself, whose three channels are no multiple of four.
struct MmaPixelCopies {
    MmaPart<false> part;
    WindowsOfPixel windows;
    int k0 = 0;

    __device__ MmaPixelCopies(const real* x, const Conv& conv, int m0) : windows(x, conv, m0 + part.line) {}
    __device__ void operator()(MmaTile& tile) {
#pragma unroll
        for (int i = 0; i < part.COUNT; i++) {
            const real* address = windows.address(0, k0 + part.k + i * part.K_APART);
            part.copy(tile, i, address ? address : windows.data, address != nullptr);
        }
        k0 += MMA_DEPTH;
    }
};

KERNEL(conv_07_tf32)(const real* x, const real* w, real* y, CONV_ARGUMENTS) {
    __shared__ MmaTile a[2], b[2];
    __shared__ Origin origins[TILE];
    const Conv conv = CONV;
    const int m0 = blockIdx.x * MMA_TILE, n0 = blockIdx.y * MMA_TILE;
    const int steps = (conv.depth() + MMA_DEPTH - 1) / MMA_DEPTH;
    fill_origins(origins, m0, conv);
    const Taps taps = taps_of(x, conv);
    const MmaWarp warp;
    MmaSums sum = {};
    with_mma_copies(filters_of(w, conv), n0, [&](const auto& copy_b) {
        if (channels_by_four(x, conv))
            accumulate_tf32<TF32>(a, b, MmaWindowCopies(taps, origins), copy_b, steps, warp, sum);
        else accumulate_tf32<TF32>(a, b, MmaPixelCopies(x, conv, m0), copy_b, steps, warp, sum);
    });
    store_mma(sum, warp, m0, n0, conv.pixels(), O, rows_by_four(y, O, y_pixel),
              [&](int m) { return y + (long long)m * y_pixel; });
}

#endif
