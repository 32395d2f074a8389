// Implicit GEMM, copying the next tiles during a product; and the same with a fused epilogue.
//
// What changed    two pairs of tiles, filled by cp.async.
// Why faster      arithmetic hides the latency of memory.
// Its limit       the rate of the CUDA cores.
// Registers       124; shared memory 16.5 KiB.  Needs sm_80.
#include "conv.cuh"

__device__ __forceinline__ void accumulate_conv(Tile (&a)[2], Tile (&b)[2], const real* x, const real* w,
                                                const Conv& conv, int m0, int n0, const Squares& squares,
                                                real (&sum)[8][8]) {
    const WindowsOfPixel windows(x, conv, m0 + Share<true>().line);
    const Strided filters = filters_of(w, conv);
    const bool x_by_four = channels_by_four(x, conv), w_by_four = filters_by_four(w, conv);
    accumulate(
        a, b, [&](Tile& tile, int k0) { load_tile_async<true>(tile, windows, m0, k0, x_by_four); },
        [&](Tile& tile, int k0) { load_tile_async<true>(tile, filters, n0, k0, w_by_four); }, 0, conv.depth(), squares,
        sum);
}

KERNEL(conv_06_async)(const real* x, const real* w, real* y, CONV_ARGUMENTS) {
    __shared__ Tile a[2], b[2];
    const Conv conv = CONV;
    const int m0 = blockIdx.x * TILE, n0 = blockIdx.y * TILE;
    const Squares squares = squares_of_warp();
    real sum[8][8] = {};
    accumulate_conv(a, b, x, w, conv, m0, n0, squares, sum);
    store_sums(sum, squares, m0, n0, conv.pixels(), O,
               [&](int m, int n, real value) { y[(long long)m * y_pixel + n] = value; });
}

// conv_09: y = max(conv(x) · scale + shift + residual, floor), with the operations that follow a convolution in evaluation.
// scale, shift (O,): a batch norm with fixed statistics.  residual: in the layout of y, or null.  floor: 0 for ReLU,
// −∞ without ReLU.
KERNEL(conv_09_fused)(const real* x, const real* w, real* y, const real* scale, const real* shift,
                      const real* residual, real floor, CONV_ARGUMENTS) {
    __shared__ Tile a[2], b[2];
    const Conv conv = CONV;
    const int m0 = blockIdx.x * TILE, n0 = blockIdx.y * TILE;
    const Squares squares = squares_of_warp();
    real sum[8][8] = {};
    accumulate_conv(a, b, x, w, conv, m0, n0, squares, sum);
    store_sums(sum, squares, m0, n0, conv.pixels(), O, [&](int m, int n, real value) {
        const long long place = (long long)m * y_pixel + n;
        value = value * scale[n] + shift[n];
        if (residual) value += residual[place];
        y[place] = value > floor ? value : floor;
    });
}
