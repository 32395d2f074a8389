// Implicit GEMM, copying the next tiles during a product.
//
// What changed    two pairs of tiles, filled by cp.async.  The tap and the channel are carried from tile to tile.  A
//                 second kernel has tiles of 128×64 for at most 64 filters.
// Why faster      arithmetic hides the latency of memory, and the loop has no division.  A warp copies 8 channels of 4
//                 pixels: 4 sectors a request instead of 16.  64 filters waste no half of the tile.
// Its limit       the rate of the CUDA cores.
// Registers       124; shared memory 18.5 KiB; 2 blocks a multiprocessor; 58 % multiply-adds.  Needs sm_80.
#include "conv_tile.cuh"

template <int FILTERS>
__device__ __forceinline__ void convolve(Tile (&a)[2], TileOf<FILTERS> (&b)[2], Origin (&origins)[TILE], const real* x,
                                         const real* w, real* y, const Conv& conv) {
    const int m0 = blockIdx.x * TILE, n0 = blockIdx.y * FILTERS;
    const Squares squares = squares_of_warp(FILTERS / 4);
    real sum[8][FILTERS / 16] = {};
    accumulate_conv(a, b, origins, x, w, conv, m0, n0, 0, conv.depth(), squares, sum);
    store_sums(sum, squares, m0, n0, conv.pixels(), conv.O, rows_by_four(y, conv.O, conv.y_pixel),
               [&](int m) { return y + (long long)m * conv.y_pixel; });
}

KERNEL(conv_06_async)(const real* x, const real* w, real* y, CONV_ARGUMENTS) {
    __shared__ Tile a[2], b[2];
    __shared__ Origin origins[TILE];
    convolve(a, b, origins, x, w, y, CONV);
}

KERNEL(conv_06_async_64)(const real* x, const real* w, real* y, CONV_ARGUMENTS) {
    __shared__ Tile a[2];
    __shared__ TileOf<64> b[2];
    __shared__ Origin origins[TILE];
    convolve(a, b, origins, x, w, y, CONV);
}
