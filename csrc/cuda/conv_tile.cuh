// Shared by the implicit GEMMs: tiles of windows.  From conv_06 on their places are carried along without divisions.
#pragma once
#include "conv.cuh"
#include "tile.cuh"

// Windows of one pixel, whose place is computed once: fewer divisions for each k.
struct WindowsOfPixel {
    const real* data;
    const Conv& conv;
    const real* image;  // null beyond the last pixel
    int row0, column0;

    __device__ WindowsOfPixel(const real* data, const Conv& conv, int pixel) : data(data), conv(conv) {
        const int j = pixel % conv.OW, i = pixel / conv.OW % conv.OH, n = pixel / (conv.OW * conv.OH);
        image = pixel < conv.pixels() ? data + (long long)n * conv.H * conv.W * conv.x_pixel : nullptr;
        row0 = i * conv.sh - conv.ph;
        column0 = j * conv.sw - conv.pw;
    }
    __device__ const real* address(int, int k) const {
        if (!image || k >= conv.depth()) return nullptr;
        const int tap = k / conv.C, c = k - tap * conv.C, p = tap / conv.KW, q = tap - p * conv.KW;
        const int row = row0 + p * conv.dh, column = column0 + q * conv.dw;
        if (row < 0 || row >= conv.H || column < 0 || column >= conv.W) return nullptr;
        return image + (row * conv.W + column) * conv.x_pixel + c;
    }
};

__device__ __forceinline__ Strided filters_of(const real* w, const Conv& conv) {
    return {w, conv.O, conv.depth(), conv.depth(), 1};
}

// Whether four neighbours along c belong to one tap, contiguous and aligned.
__device__ __forceinline__ bool channels_by_four(const real* x, const Conv& conv) {
    return is_aligned(x) && conv.C % 4 == 0 && conv.x_pixel % 4 == 0;
}

__device__ __forceinline__ bool filters_by_four(const real* w, const Conv& conv) {
    return is_aligned(w) && conv.C % 4 == 0;
}

// An image that is seen through windows: P × Q taps, `dh` rows and `dw` columns apart (backwards if negative).
struct Taps {
    const real* data;
    int H, W, C, pixel;  // `pixel`: numbers from one pixel to the next
    int P, Q, dh, dw;
};

// The place of a window's first tap: the number of its image's first pixel, the row and the column.
struct alignas(16) Origin {
    int image, row, column;
};

constexpr int OUTSIDE = -(1 << 30);  // a row outside of each image

// Computes the block's origins once: origin_of(m) is the place of window m.
template <class OriginOf>
__device__ __forceinline__ void fill_origins(Origin (&origins)[TILE], int m0, int windows, OriginOf origin_of) {
    if (threadIdx.x < TILE) {
        const int m = m0 + threadIdx.x;
        origins[threadIdx.x] = m < windows ? origin_of(m) : Origin{0, OUTSIDE, 0};
    }
    __syncthreads();
}

// The origins of a convolution's windows, one for each output pixel.
__device__ __forceinline__ void fill_origins(Origin (&origins)[TILE], int m0, const Conv& conv) {
    fill_origins(origins, m0, conv.pixels(), [&](int pixel) {
        const int j = pixel % conv.OW, i = pixel / conv.OW % conv.OH, n = pixel / (conv.OW * conv.OH);
        return Origin{n * conv.H * conv.W, i * conv.sh - conv.ph, j * conv.sw - conv.pw};
    });
}

__device__ __forceinline__ Taps taps_of(const real* x, const Conv& conv) {
    return {x, conv.H, conv.W, conv.C, conv.x_pixel, conv.KH, conv.KW, conv.dh, conv.dw};
}

// The elements (p, q, c) of COUNT windows, APART apart, one after another in steps of STEP.  The tap changes only when c
// has passed the last channel; between taps an address is an addition.
template <int COUNT, int APART, int STEP>
struct Gather {
    Taps taps;
    const Origin* origins;  // of the first window
    int pixel[COUNT];       // of the image, −1 outside
    int p = 0, q = 0, c;

    // k: the first element, counted over taps and channels
    __device__ Gather(const Taps& taps, const Origin* origins, int k) : taps(taps), origins(origins), c(k) {
        if (k >= taps.C && taps.C > 0 && taps.P > 0) {
            const int tap = k / taps.C;
            c = k - tap * taps.C, p = tap / taps.Q, q = tap % taps.Q;
        }
        enter_tap();
    }
    __device__ void enter_tap() {
        while (c >= taps.C && p < taps.P) {
            c -= taps.C;
            if (++q == taps.Q) q = 0, p++;
        }
#pragma unroll
        for (int i = 0; i < COUNT; i++) {
            const Origin at = origins[i * APART];
            const int row = at.row + p * taps.dh, column = at.column + q * taps.dw;
            const bool inside = p < taps.P && row >= 0 && row < taps.H && column >= 0 && column < taps.W;
            pixel[i] = inside ? at.image + row * taps.W + column : -1;
        }
    }
    __device__ bool inside(int i) const { return pixel[i] >= 0; }
    __device__ const real* address(int i) const { return taps.data + ((long long)pixel[i] * taps.pixel + c); }
    __device__ void advance() {
        c += STEP;
        if (c >= taps.C) enter_tap();
    }
};

// Copies the tiles of im2col's matrix one after another: a warp reads 8 channels of 4 pixels.
struct WindowCopies {
    typedef Part<false, TILE> Shares;
    Shares part;
    Gather<Shares::COUNT, Shares::APART, DEPTH> gather;

    __device__ WindowCopies(const Taps& taps, const Origin (&origins)[TILE], int k0)
        : part(true), gather(taps, &origins[part.line], k0 + part.k) {}
    __device__ void operator()(Tile& tile) {
#pragma unroll
        for (int i = 0; i < part.COUNT; i++) part.copy(tile, i, gather.address(i), gather.inside(i));
        gather.advance();
    }
};

// sum += the terms begin … end − 1 of each output: 128 pixels from m0 on, FILTERS filters from n0 on.  `begin` is a
// multiple of 8.
template <int FILTERS, int COLUMNS>
__device__ __forceinline__ void accumulate_conv(Tile (&a)[2], TileOf<FILTERS> (&b)[2], Origin (&origins)[TILE],
                                                const real* x, const real* w, const Conv& conv, int m0, int n0,
                                                int begin, int end, const Squares& squares,
                                                real (&sum)[8][COLUMNS]) {
    fill_origins(origins, m0, conv);
    const Strided filters{w, conv.O, conv.depth(), end, 1};
    accumulate(a, b, WindowCopies(taps_of(x, conv), origins, begin), Copies<false, FILTERS>(filters, n0, begin),
               (end - begin + DEPTH - 1) / DEPTH, squares, sum);
}
