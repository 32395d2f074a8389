// The gradients of a convolution as implicit GEMMs.
//
// Data gradient   each pixel of x gathers from the outputs that see it.  With stride s only every s-th tap of a pixel
//                 belongs to an output.  These taps depend only on the pixel's row and column modulo s.  Each of these
//                 parity classes is a dense product, without multiplications by zero.  Taps are carried as in conv_06.
// Weight gradient the sum over all pixels is divided among blocks (split-K), whose parts are added in a fixed order.
// Registers       128; shared memory 18.5 KiB; 2 blocks a multiprocessor; 67 % multiply-adds.  Needs sm_80.
#include "conv_tile.cuh"
#include "gemm_tile.cuh"

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1000  // there the compiler would spill at 128 registers
#undef BOUNDS
#define BOUNDS __launch_bounds__(THREADS)
#endif

// One parity class: the pixels (row0 + i · sh, column0 + j · sw), and the taps p0 + i · p_step, q0 + j · q_step.
struct ParityClass {
    int row0, rows, column0, columns;
    int p0, p_step, ps, q0, q_step, qs;
};

// Copies the tiles of the filters: line = channel c, k = (tap of the class, o), carried from tile to tile.
template <bool BY_FOUR>
struct FilterCopies {
    const Part<BY_FOUR, TILE> part;
    const real* data;
    const Conv& conv;
    const ParityClass& of;
    const real* from;
    int p = 0, q = 0, o, c;

    __device__ FilterCopies(const real* data, const Conv& conv, const ParityClass& of, int c0)
        : part(false), data(data), conv(conv), of(of), o(part.k), c(c0 + part.line) {
        enter_tap();
    }
    __device__ void enter_tap() {
        while (o >= conv.O && p < of.ps) {
            o -= conv.O;
            if (++q == of.qs) q = 0, p++;
        }
        const int down = of.p0 + p * of.p_step, right = of.q0 + q * of.q_step;
        from = data + (((long long)o * conv.KH + down) * conv.KW + right) * conv.C + c;
    }
    __device__ void operator()(Tile& tile) {
#pragma unroll
        for (int i = 0; i < part.COUNT; i++)
            part.copy(tile, i, from + i * part.APART, p < of.ps && c + i * part.APART < conv.C);
        o += DEPTH;
        from += (long long)DEPTH * conv.KH * conv.KW * conv.C;
        if (o >= conv.O) enter_tap();
    }
};

// A pixel of a class gathers from the outputs through a window of the class's taps, which runs backwards: the first tap
// meets output (row + ph − p0 · dh) / sh, the next one p_step · dh / sh less.  Both divisions are exact.
KERNEL(conv_backward_data)(const real* grad_y, const real* w, real* grad_x, int row0, int rows, int column0,
                           int columns, int p0, int p_step, int ps, int q0, int q_step, int qs, CONV_ARGUMENTS) {
    __shared__ Tile a[2], b[2];
    __shared__ Origin origins[TILE];
    if (qs == 0) ps = 0;  // no tap at all
    const Conv conv = CONV;
    const ParityClass of{row0, rows, column0, columns, p0, p_step, ps, q0, q_step, qs};
    const int m0 = blockIdx.x * TILE, n0 = blockIdx.y * TILE, pixels = N * rows * columns;
    const int first_i = (row0 + ph - p0 * dh) / sh, first_j = (column0 + pw - q0 * dw) / sw;
    fill_origins(origins, m0, pixels, [&](int pixel) {
        const int j = pixel % columns, i = pixel / columns % rows, n = pixel / (columns * rows);
        return Origin{n * OH * OW, first_i + i, first_j + j};
    });
    const Taps taps{grad_y, OH, OW, O, y_pixel, ps, qs, -(p_step * dh / sh), -(q_step * dw / sw)};
    const WindowCopies outputs(taps, origins, 0);
    const int steps = (ps * qs * O + DEPTH - 1) / DEPTH;
    const Squares squares = squares_of_warp(TILE / 4);
    real sum[8][8] = {};
    if (filters_by_four(w, conv)) accumulate(a, b, outputs, FilterCopies<true>(w, conv, of, n0), steps, squares, sum);
    else accumulate(a, b, outputs, FilterCopies<false>(w, conv, of, n0), steps, squares, sum);
    store_sums(sum, squares, m0, n0, pixels, C, rows_by_four(grad_x, C, x_pixel), [&](int m) {
        const int j = m % columns, i = m / columns % rows, n = m / (columns * rows);
        return grad_x + (((long long)n * H + row0 + i * sh) * W + column0 + j * sw) * x_pixel;
    });
}

// Copies the tiles of im2col's matrix, transposed: line = (p, q, c), k = output pixel, carried from tile to tile.
template <bool BY_FOUR>
struct PixelCopies {
    typedef Part<BY_FOUR, TILE> Shares;
    const Shares part;
    const real* data;
    const Conv& conv;
    int row[Shares::COUNT], column[Shares::COUNT], c[Shares::COUNT];  // of this thread's lines, from the window's corner
    int n, i, j, left;                                                // the output pixel, and how many are left from it on

    __device__ PixelCopies(const real* data, const Conv& conv, int line0, int begin, int end)
        : part(false), data(data), conv(conv), left(end - begin - part.k) {
        const int pixel = begin + part.k;
        j = pixel % conv.OW, i = pixel / conv.OW % conv.OH, n = pixel / (conv.OW * conv.OH);
#pragma unroll
        for (int copy = 0; copy < part.COUNT; copy++) {
            const int line = line0 + part.line + copy * part.APART, tap = line / conv.C;
            c[copy] = line - tap * conv.C;
            row[copy] = line < conv.depth() ? tap / conv.KW * conv.dh - conv.ph : OUTSIDE;
            column[copy] = tap % conv.KW * conv.dw - conv.pw;
        }
    }
    __device__ void operator()(Tile& tile) {
#pragma unroll
        for (int copy = 0; copy < part.COUNT; copy++) {
            const int down = i * conv.sh + row[copy], right = j * conv.sw + column[copy];
            const bool inside = left > 0 && down >= 0 && down < conv.H && right >= 0 && right < conv.W;
            const int pixel = inside ? (n * conv.H + down) * conv.W + right : 0;
            part.copy(tile, copy, data + (long long)pixel * conv.x_pixel + c[copy], inside);
        }
        left -= DEPTH;
        j += DEPTH;
        while (j >= conv.OW) {
            j -= conv.OW;
            if (++i == conv.OH) i = 0, n++;
        }
    }
};

// workspace (parts, O, KH·KW·C): blockIdx.z sums `part` output pixels, a multiple of 8; gemm_08_add_parts adds the parts
KERNEL(conv_backward_weight)(const real* grad_y, const real* x, real* workspace, int part, CONV_ARGUMENTS) {
    __shared__ Tile a[2], b[2];
    const Conv conv = CONV;
    const int m0 = blockIdx.y * TILE, n0 = blockIdx.x * TILE, depth = conv.depth();
    const int begin = blockIdx.z * part, end = min(begin + part, conv.pixels());
    const Strided outputs{grad_y, O, 1, end, y_pixel};
    const int steps = (end - begin + DEPTH - 1) / DEPTH;
    const Squares squares = squares_of_warp(TILE / 4);
    real sum[8][8] = {};
    with_copies<TILE>(outputs, m0, begin, [&](const auto& copy_a) {
        if (channels_by_four(x, conv))
            accumulate(a, b, copy_a, PixelCopies<true>(x, conv, n0, begin, end), steps, squares, sum);
        else accumulate(a, b, copy_a, PixelCopies<false>(x, conv, n0, begin, end), steps, squares, sum);
    });
    real* grad_w = workspace + (long long)blockIdx.z * O * depth;
    store_sums(sum, squares, m0, n0, O, depth, rows_by_four(grad_w, depth, depth),
               [&](int m) { return grad_w + (long long)m * depth; });
}
