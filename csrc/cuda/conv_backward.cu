// The gradients of a convolution as implicit GEMMs.
//
// Data gradient   each pixel of x gathers from the outputs that see it.  With stride s only every s-th tap of a pixel
//                 belongs to an output.  These taps depend only on the pixel's row and column modulo s.  Each of these
//                 parity classes is a dense product, without multiplications by zero.
// Weight gradient the sum over all pixels is divided among blocks (split-K), whose parts are added in a fixed order.
// Registers       data 122, weight 115; shared memory 16.5 KiB.  Needs sm_80.
#include "conv.cuh"

// One parity class: the pixels (row0 + i · sh, column0 + j · sw), and the taps p0 + i · p_step, q0 + j · q_step.
struct ParityClass {
    int row0, rows, column0, columns;
    int p0, p_step, ps, q0, q_step, qs;
};

// Row = pixel of the class, k = (tap of the class, o).
struct Outputs {
    const real* data;
    const Conv& conv;
    const ParityClass& part;
    const real* image;
    int row, column;

    __device__ Outputs(const real* data, const Conv& conv, const ParityClass& part, int pixel)
        : data(data), conv(conv), part(part) {
        const int j = pixel % part.columns, i = pixel / part.columns % part.rows, n = pixel / (part.columns * part.rows);
        row = part.row0 + i * conv.sh;
        column = part.column0 + j * conv.sw;
        image = n < conv.N ? data + (long long)n * conv.OH * conv.OW * conv.y_pixel : nullptr;
    }
    __device__ const real* address(int, int k) const {
        if (!image || k >= part.ps * part.qs * conv.O) return nullptr;
        const int tap = k / conv.O, o = k - tap * conv.O;
        const int p = part.p0 + tap / part.qs * part.p_step, q = part.q0 + tap % part.qs * part.q_step;
        const int down = row + conv.ph - p * conv.dh, right = column + conv.pw - q * conv.dw;  // multiples of the stride
        if (down < 0 || right < 0) return nullptr;
        const int i = down / conv.sh, j = right / conv.sw;
        if (i >= conv.OH || j >= conv.OW) return nullptr;
        return image + (i * conv.OW + j) * conv.y_pixel + o;
    }
};

// Line = channel c, k = (tap of the class, o).
struct FiltersOfClass {
    const real* data;
    const Conv& conv;
    const ParityClass& part;

    __device__ const real* address(int c, int k) const {
        if (c >= conv.C || k >= part.ps * part.qs * conv.O) return nullptr;
        const int tap = k / conv.O, o = k - tap * conv.O;
        const int p = part.p0 + tap / part.qs * part.p_step, q = part.q0 + tap % part.qs * part.q_step;
        return data + (((long long)o * conv.KH + p) * conv.KW + q) * conv.C + c;
    }
};

KERNEL(conv_backward_data)(const real* grad_y, const real* w, real* grad_x, int row0, int rows, int column0,
                           int columns, int p0, int p_step, int ps, int q0, int q_step, int qs, CONV_ARGUMENTS) {
    __shared__ Tile a[2], b[2];
    const Conv conv = CONV;
    const ParityClass part{row0, rows, column0, columns, p0, p_step, ps, q0, q_step, qs};
    const int m0 = blockIdx.x * TILE, n0 = blockIdx.y * TILE, pixels = N * rows * columns;
    const Outputs outputs(grad_y, conv, part, m0 + Share<true>().line);
    const FiltersOfClass filters{w, conv, part};
    const bool y_by_four = is_aligned(grad_y) && O % 4 == 0 && y_pixel % 4 == 0;
    const bool w_by_four = filters_by_four(w, conv);
    const Squares squares = squares_of_warp();
    real sum[8][8] = {};
    accumulate(
        a, b, [&](Tile& tile, int k0) { load_tile_async<true>(tile, outputs, m0, k0, y_by_four); },
        [&](Tile& tile, int k0) { load_tile_async<false>(tile, filters, n0, k0, w_by_four); }, 0, ps * qs * O, squares,
        sum);
    store_sums(sum, squares, m0, n0, pixels, C, [&](int m, int c, real value) {
        const int j = m % columns, i = m / columns % rows, n = m / (columns * rows);
        grad_x[(((long long)n * H + row0 + i * sh) * W + column0 + j * sw) * x_pixel + c] = value;
    });
}

// Line = (p, q, c), k = output pixel: im2col's matrix, transposed.
struct WindowsTransposed {
    const real* data;
    Windows windows;

    __device__ const real* address(int line, int pixel) const { return windows.address(pixel, line); }
};

// workspace (parts, O, KH·KW·C): blockIdx.z sums `part` output pixels, a multiple of 8; gemm_08_add_parts adds the parts
KERNEL(conv_backward_weight)(const real* grad_y, const real* x, real* workspace, int part, CONV_ARGUMENTS) {
    __shared__ Tile a[2], b[2];
    const Conv conv = CONV;
    const int m0 = blockIdx.y * TILE, n0 = blockIdx.x * TILE, depth = conv.depth();
    const int begin = blockIdx.z * part, end = min(begin + part, conv.pixels());
    const Strided outputs{grad_y, O, 1, end, y_pixel};
    const WindowsTransposed windows{x, {x, conv}};
    const bool y_by_four = is_aligned(grad_y) && O % 4 == 0 && y_pixel % 4 == 0;
    const bool x_by_four = channels_by_four(x, conv);
    const Squares squares = squares_of_warp();
    real sum[8][8] = {};
    accumulate(
        a, b, [&](Tile& tile, int k0) { load_tile_async<false>(tile, outputs, m0, k0, y_by_four); },
        [&](Tile& tile, int k0) { load_tile_async<false>(tile, windows, n0, k0, x_by_four); }, begin, end, squares, sum);
    real* grad_w = workspace + (long long)blockIdx.z * O * depth;
    store_sums(sum, squares, m0, n0, O, depth, [&](int m, int n, real value) { grad_w[(long long)m * depth + n] = value; });
}
