// The arguments of a convolution, and its operands as matrices: channels-last memory, one group at a time.
//
//   y[n,i,j,o] = Σ_p,q,c  x[n, i·sh + p·dh − ph, j·sw + q·dw − pw, c] · w[o,p,q,c]
//
// x (N, H, W, x_pixel) and y (N, OH, OW, y_pixel) hold the channels of all groups.  The pointers begin at this group, which
// has C and O channels.  w is (O, KH, KW, C).  As a product of matrices: M = N·OH·OW pixels, N = O filters, K = KH·KW·C.
#pragma once
#include "common.cuh"

struct Conv {
    int N, H, W, C, x_pixel;
    int O, OH, OW, y_pixel;
    int KH, KW, sh, sw, ph, pw, dh, dw;

    __device__ int pixels() const { return N * OH * OW; }
    __device__ int depth() const { return KH * KW * C; }
};

// The arguments of every convolution kernel, and the struct of them.
#define CONV_ARGUMENTS                                                                                             \
    int N, int H, int W, int C, int x_pixel, int O, int OH, int OW, int y_pixel, int KH, int KW, int sh, int sw,   \
        int ph, int pw, int dh, int dw
#define CONV Conv{N, H, W, C, x_pixel, O, OH, OW, y_pixel, KH, KW, sh, sw, ph, pw, dh, dw}

// The elements of im2col's matrix, read from x: row = output pixel, k = (p, q, c).
struct Windows {
    const real* data;
    Conv conv;

    __device__ const real* address(int pixel, int k) const {
        if (pixel >= conv.pixels() || k >= conv.depth()) return nullptr;
        const int c = k % conv.C, tap = k / conv.C, q = tap % conv.KW, p = tap / conv.KW;
        const int j = pixel % conv.OW, i = pixel / conv.OW % conv.OH, n = pixel / (conv.OW * conv.OH);
        const int row = i * conv.sh + p * conv.dh - conv.ph, column = j * conv.sw + q * conv.dw - conv.pw;
        if (row < 0 || row >= conv.H || column < 0 || column >= conv.W) return nullptr;
        return data + (((long long)n * conv.H + row) * conv.W + column) * conv.x_pixel + c;
    }
};
