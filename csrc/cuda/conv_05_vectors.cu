// Implicit GEMM, four channels at a time.
//
// What changed    a thread fills the same row of every tile, so it computes its pixel's place once, before the loop.  One
//                 16-byte load reads four neighbouring channels of a tap.
// Why faster      two divisions for four elements instead of twenty.
// Its limit       the block waits for each pair of tiles.
// Registers       121; shared memory 8.25 KiB; 2 blocks a multiprocessor; 48 % multiply-adds.
#include "conv_tile.cuh"

KERNEL(conv_05_vectors)(const real* x, const real* w, real* y, CONV_ARGUMENTS) {
    __shared__ Tile a, b;
    const Conv conv = CONV;
    const int m0 = blockIdx.x * TILE, n0 = blockIdx.y * TILE;
    const WindowsOfPixel windows(x, conv, m0 + Share<true>().line);
    const Strided filters = filters_of(w, conv);
    const bool x_by_four = channels_by_four(x, conv), w_by_four = filters_by_four(w, conv);
    const Squares squares = squares_of_warp(TILE / 4);
    real sum[8][8] = {};
    for (int k0 = 0; k0 < conv.depth(); k0 += DEPTH) {
        load_tile<true>(a, windows, m0, k0, x_by_four);
        load_tile<true>(b, filters, n0, k0, w_by_four);
        __syncthreads();
        multiply_tiles(a, b, squares, sum);
        __syncthreads();
    }
    store_sums(sum, squares, m0, n0, conv.pixels(), O, rows_by_four(y, O, y_pixel),
               [&](int m) { return y + (long long)m * y_pixel; });
}
