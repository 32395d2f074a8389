// Implicit GEMM: tiles of im2col's matrix are gathered from x, without the matrix.
//
// What changed    for each of its four elements of a tile, a thread computes the pixel and the tap.
// Why faster      im2col's matrix is neither written nor read.
// Its limit       five divisions an element.
// Registers       119; shared memory 8.25 KiB; 2 blocks a multiprocessor; 39 % multiply-adds.
#include "conv_tile.cuh"

KERNEL(conv_04_implicit)(const real* x, const real* w, real* y, CONV_ARGUMENTS) {
    __shared__ Tile a, b;
    const Conv conv = CONV;
    const Windows windows{x, conv};
    const Strided filters = filters_of(w, conv);
    const int m0 = blockIdx.x * TILE, n0 = blockIdx.y * TILE;
    const Squares squares = squares_of_warp(TILE / 4);
    real sum[8][8] = {};
    for (int k0 = 0; k0 < conv.depth(); k0 += DEPTH) {
        load_tile<true>(a, windows, m0, k0, false);
        load_tile<true>(b, filters, n0, k0, false);
        __syncthreads();
        multiply_tiles(a, b, squares, sum);
        __syncthreads();
    }
    store_sums(sum, squares, m0, n0, conv.pixels(), O, rows_by_four(y, O, y_pixel),
               [&](int m) { return y + (long long)m * y_pixel; });
}
