// Implicit GEMM with a fused epilogue: y = max(conv(x) · scale + shift + residual, floor).
//
// What changed    the operations that follow a convolution in evaluation are computed on the sums in registers.
// Why faster      batch norm, skip-add and ReLU need no further pass over memory.
// Its limit       the rate of the CUDA cores.
// Registers       128; shared memory 18.5 KiB; 2 blocks a multiprocessor; 72 % multiply-adds.  Needs sm_80.
#include "conv_tile.cuh"

// scale, shift (O,): a batch norm with fixed statistics.  residual: in the layout of y, or null.  floor: 0 for ReLU,
// −∞ without ReLU.  NaN stays NaN.
KERNEL(conv_09_fused)(const real* x, const real* w, real* y, const real* scale, const real* shift,
                      const real* residual, real floor, CONV_ARGUMENTS) {
    __shared__ Tile a[2], b[2];
    __shared__ Origin origins[TILE];
    const Conv conv = CONV;
    const int m0 = blockIdx.x * TILE, n0 = blockIdx.y * TILE;
    const Squares squares = squares_of_warp(TILE / 4);
    real sum[8][8] = {};
    accumulate_conv(a, b, origins, x, w, conv, m0, n0, 0, conv.depth(), squares, sum);
    store_sums(
        sum, squares, m0, n0, conv.pixels(), O, rows_by_four(y, O, y_pixel),
        [&](int m) { return y + (long long)m * y_pixel; },
        [&](int m, int n, real value) {
            value = value * scale[n] + shift[n];
            if (residual) value += residual[(long long)m * y_pixel + n];
            return value <= floor ? floor : value;
        });
}
