// Implicit GEMM, the products of an output divided among several blocks.
//
// What changed    blockIdx.z computes partial outputs from its part of the taps and channels in a workspace.
//                 gemm_08_add_parts adds the parts in a fixed order.
// Why faster      a layer with few pixels (7×7 in small batches) has fewer tiles than a GPU has multiprocessors.
// Its limit       the partial outputs are written and read once more.
// Registers       124; shared memory 18.5 KiB; 2 blocks a multiprocessor; 72 % multiply-adds.  Needs sm_80.
#include "conv_tile.cuh"

// workspace (parts, N·OH·OW, O); `part` is a multiple of 8, the depth of a tile
KERNEL(conv_10_split_k)(const real* x, const real* w, real* workspace, int part, CONV_ARGUMENTS) {
    __shared__ Tile a[2], b[2];
    __shared__ Origin origins[TILE];
    const Conv conv = CONV;
    const int m0 = blockIdx.x * TILE, n0 = blockIdx.y * TILE;
    const int begin = blockIdx.z * part, end = min(begin + part, conv.depth());
    const Squares squares = squares_of_warp(TILE / 4);
    real sum[8][8] = {};
    accumulate_conv(a, b, origins, x, w, conv, m0, n0, begin, end, squares, sum);
    real* y = workspace + (long long)blockIdx.z * conv.pixels() * O;
    store_sums(sum, squares, m0, n0, conv.pixels(), O, rows_by_four(y, O, O),
               [&](int m) { return y + (long long)m * O; });
}
