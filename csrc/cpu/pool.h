// Pooling of rows of channels.
#pragma once

#include <type_traits>

#include "kernels.h"
#include "simd.h"
#include "threads.h"

namespace {

using minires::cpu::Average2d;
using minires::cpu::Pool2d;

// The taps first … last − 1 of the window at `start` lie inside of 0 … size − 1.
inline void inside(long start, long size, long kernel, long dilation, long& first, long& last) {
    first = start < 0 ? min(ceil_div(-start, dilation), kernel) : 0;
    last = size > start ? min(ceil_div(size - start, dilation), kernel) : 0;
    last = max(last, first);
}

constexpr long PIECE_OF_CHANNELS = 64;
template <typename T>
using Index = std::conditional_t<sizeof(T) == 4, int, long>;

// The first of equal maxima counts.  A NaN is larger than any number.  argmax holds the number of the tap.
template <typename T, typename Tap>
void max_pool2d_forward_of(const Pool2d& s, const T* x, T* y, Tap* argmax) {
    for_each(s.N * s.OH, [&](long nh) {
        const long n_image = nh / s.OH, top = nh % s.OH * s.stride_h - s.padding_h;
        long r0, r1;
        inside(top, s.H, s.kernel_h, s.dilation_h, r0, r1);
        for (long ow = 0; ow < s.OW; ow++) {
            const long left = ow * s.stride_w - s.padding_w;
            long c0, c1;
            inside(left, s.W, s.kernel_w, s.dilation_w, c0, c1);
            // The maxima of a piece of the channels stay in the L1 cache.
            for (long first = 0; first < s.C; first += PIECE_OF_CHANNELS) {
                const long n = min(PIECE_OF_CHANNELS, s.C - first);
                T best[PIECE_OF_CHANNELS];
                Index<T> tap_of_best[PIECE_OF_CHANNELS];  // as wide as T, so that the compiler vectorises
                for (long c = 0; c < n; c++) best[c] = -__builtin_huge_val(), tap_of_best[c] = Index<T>(r0 * s.kernel_w + c0);
                for (long r = r0; r < r1; r++)
                    for (long q = c0; q < c1; q++) {
                        const T* in = x + ((n_image * s.H + top + r * s.dilation_h) * s.W + left + q * s.dilation_w) * s.C + first;
                        const Index<T> tap = Index<T>(r * s.kernel_w + q);
                        for (long c = 0; c < n; c++) {
                            const bool better = !(in[c] <= best[c]) & (best[c] == best[c]);
                            tap_of_best[c] = better ? tap : tap_of_best[c];
                            best[c] = better ? in[c] : best[c];
                        }
                    }
                const long at = (nh * s.OW + ow) * s.C + first;
                for (long c = 0; c < n; c++) y[at + c] = best[c], argmax[at + c] = static_cast<Tap>(tap_of_best[c]);
            }
        }
    });
}

template <typename T, typename Tap>
void max_pool2d_backward_of(const Pool2d& s, const T* grad_y, const Tap* argmax, T* grad_x) {
    for_each(s.N * s.H, [&](long nh) {  // gathers, so that no two threads write to one number
        const long n = nh / s.H, h = nh % s.H;
        T* row = grad_x + nh * s.W * s.C;
        zero(row, s.W * s.C);
        const long below = h + s.padding_h;  // taps r with 0 ≤ below − r · dilation ≤ (OH − 1) · stride
        const long first_r = max(ceil_div(below - (s.OH - 1) * s.stride_h, s.dilation_h), 0);
        for (long r = first_r; r < min(s.kernel_h, below / s.dilation_h + 1); r++) {
            const long at = below - r * s.dilation_h;
            if (at % s.stride_h != 0) continue;
            const long from = (n * s.OH + at / s.stride_h) * s.OW;
            for (long ow = 0; ow < s.OW; ow++) {
                const long left = ow * s.stride_w - s.padding_w;
                long first_q, last_q;
                inside(left, s.W, s.kernel_w, s.dilation_w, first_q, last_q);
                for (long q = first_q; q < last_q; q++) {
                    const long w = left + q * s.dilation_w;
                    const T* g = grad_y + (from + ow) * s.C;
                    const Tap* arg = argmax + (from + ow) * s.C;
                    const Tap tap = static_cast<Tap>(r * s.kernel_w + q);
                    T* out = row + w * s.C;
                    for (long c = 0; c < s.C; c++) out[c] += arg[c] == tap ? g[c] : T(0);
                }
            }
        }
    });
}

template <typename T>
void max_pool2d_forward(const Pool2d& s, const T* x, T* y, unsigned char* argmax, int* argmax_large) {
    argmax ? max_pool2d_forward_of(s, x, y, argmax) : max_pool2d_forward_of(s, x, y, argmax_large);
}

template <typename T>
void max_pool2d_backward(
    const Pool2d& s, const T* grad_y, const unsigned char* argmax, const int* argmax_large, T* grad_x) {
    argmax ? max_pool2d_backward_of(s, grad_y, argmax, grad_x) : max_pool2d_backward_of(s, grad_y, argmax_large, grad_x);
}

template <typename T>
void average2d_forward(const Average2d<T>& s, const T* x, T* y) {
    for_each(s.N * s.OH, [&](long nh) {
        const long n = nh / s.OH, oh = nh % s.OH;
        for (long ow = 0; ow < s.OW; ow++) {
            for (long first = 0; first < s.C; first += PIECE_OF_CHANNELS) {
                const long count = min(PIECE_OF_CHANNELS, s.C - first);
                double sum[PIECE_OF_CHANNELS] = {};  // a float sum of ones stops at 2^24
                for (long h = s.h_begin[oh]; h < s.h_end[oh]; h++)
                    for (long w = s.w_begin[ow]; w < s.w_end[ow]; w++) {
                        const T* in = x + ((n * s.H + h) * s.W + w) * s.C + first;
                        for (long c = 0; c < count; c++) sum[c] += in[c];
                    }
                T* out = y + (nh * s.OW + ow) * s.C + first;
                for (long c = 0; c < count; c++) out[c] = T(sum[c] / s.size[oh * s.OW + ow]);
            }
        }
    });
}

template <typename T>
void average2d_backward(const Average2d<T>& s, const T* grad_y, T* grad_x) {
    for_each(s.N * s.H, [&](long nh) {
        const long n = nh / s.H, h = nh % s.H;
        T* row = grad_x + nh * s.W * s.C;
        zero(row, s.W * s.C);
        for (long oh = 0; oh < s.OH; oh++) {
            if (h < s.h_begin[oh] || h >= s.h_end[oh]) continue;
            for (long ow = 0; ow < s.OW; ow++) {
                const T* g = grad_y + ((n * s.OH + oh) * s.OW + ow) * s.C;
                const T size = s.size[oh * s.OW + ow];
                for (long w = s.w_begin[ow]; w < s.w_end[ow]; w++)
                    for (long c = 0; c < s.C; c++) row[w * s.C + c] += g[c] / size;
            }
        }
    });
}

}  // namespace
