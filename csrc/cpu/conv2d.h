// Convolution and its two gradients, all three as implicit GEMMs.
#pragma once

#include "gemm.h"
#include "gemm_at.h"
#include "kernels.h"
#include "winograd.h"

namespace {

using minires::cpu::Conv2d;

// Whether Winograd's algorithm can compute c and is likely faster: the channels fill at least half of the vectors, the
// outputs at least half of the tiles, and there are enough tiles to pay for the transform of the filters.
template <typename T>
bool suits_winograd(const Conv2d& c, bool allowed) {
    const bool possible = allowed && sizeof(T) == 4 && c.KH == 3 && c.KW == 3 && c.groups == 1 && c.stride_h == 1 &&
                          c.stride_w == 1 && c.dilation_h == 1 && c.dilation_w == 1 && c.padding_h <= 2 &&
                          c.padding_w <= 2 && c.C >= 8 && c.O >= 8;
    if (!possible) return false;
    const long tiles = ceil_div(c.OH, 4) * ceil_div(c.OW, 4);
    return c.N * tiles >= 16 && 16 * tiles <= 2 * c.OH * c.OW;
}

// The filters of one group, (O/G, C/G, KH, KW).
template <typename T>
Filters<T> filters_of_group(const Conv2d& c, const T* w, const long* tap) {
    const long C = c.C / c.groups, taps = c.KH * c.KW;
    return {w, c.O / c.groups, C, taps, taps * C, taps, tap};
}

template <typename T>
long conv2d_filters_size(const Conv2d& c, bool winograd) {
    const Filters<T> one = filters_of_group<T>(c, nullptr, nullptr);
    return suits_winograd<T>(c, winograd) ? transformed_size(one) : c.groups * one.packed_size();
}

// An upper bound on the numbers that a training step holds beside its arrays.
template <typename T>
long conv2d_working_size(const Conv2d& c, bool winograd) {
    const Filters<T> one = filters_of_group<T>(c, nullptr, nullptr);
    if (!suits_winograd<T>(c, winograd)) return c.groups * one.packed_size();
    return winograd_working_size(Winograd{c.N, c.C, c.H, c.W, c.O, c.OH, c.OW, c.padding_h, c.padding_w}, one);
}

template <typename T>
void conv2d_filters(const Conv2d& c, const T* w, T* filters, bool winograd) {
    Buffer<long> tap(c.KH * c.KW);
    for (long t = 0; t < c.KH * c.KW; t++) tap[t] = t;
    if (suits_winograd<T>(c, winograd)) return write_filters<T>(filters_of_group<T>(c, w, tap), filters);
    for (long g = 0; g < c.groups; g++) {
        const Filters<T> group = filters_of_group<T>(c, w + g * (c.O / c.groups) * (c.C / c.groups) * c.KH * c.KW, tap);
        pack<T>(group, filters + g * group.packed_size());
    }
}

template <typename T>
void conv2d_forward(
    const Conv2d& c, const T* x, const T* filters, const T* bias, const Epilogue<T>& epilogue, T* y, bool winograd) {
    if (suits_winograd<T>(c, winograd)) {
        const Winograd s{c.N, c.C, c.H, c.W, c.O, c.OH, c.OW, c.padding_h, c.padding_w};
        return winograd_forward<T>(s, x, filters, bias, epilogue, y);
    }
    const long C = c.C / c.groups, O = c.O / c.groups;
    Buffer<long> row(c.KH), column(c.KW);
    for (long r = 0; r < c.KH; r++) row[r] = r * c.dilation_h - c.padding_h;
    for (long s = 0; s < c.KW; s++) column[s] = s * c.dilation_w - c.padding_w;
    for (long g = 0; g < c.groups; g++) {
        const T* packed = filters + g * filters_of_group<T>(c, nullptr, nullptr).packed_size();
        const Windows<T> windows{x + g * C, c.H, c.W, C, c.C, c.KH, c.KW, row, column, c.stride_h, c.stride_w, c.OH, c.OW};
        Epilogue<T> here = at_column(epilogue, g * O);
        if (here.added) here.added += g * O;
        multiply<T>(windows, c.N, packed, O, bias ? bias + g * O : nullptr, here, Places<T>{y + g * O, c.OH, c.OW, c.O});
    }
}

// The taps by which outputs see the input pixels first + q · stride along one axis.  The output that sees pixel q by
// tap[i] is q + distance[i].  Descending taps give ascending outputs.  Returns the number of taps.
inline long taps_of(long first, long K, long stride, long padding, long dilation, long* tap, long* distance) {
    long found = 0;
    for (long k = K - 1; k >= 0; k--) {
        const long at = first + padding - k * dilation;
        if (at % stride != 0) continue;
        tap[found] = k, distance[found] = at / stride;
        found++;
    }
    return found;
}

// Each input pixel gathers from the outputs that see it.  With a stride, pixels of different parity are seen by different
// taps.  Each parity is then a dense convolution of the gradient with some of the taps, without zeros between strides.
template <typename T>
void conv2d_backward_input(const Conv2d& c, const T* grad_y, const T* w, T* grad_x, bool winograd) {
    // With stride 1 the gradient is a convolution of grad_y with flipped filters.
    if (suits_winograd<T>(Conv2d{c.N, c.O, c.OH, c.OW, c.C, c.KH, c.KW, c.H, c.W, c.stride_h, c.stride_w, 2 - c.padding_h,
                                 2 - c.padding_w, c.dilation_h, c.dilation_w, c.groups},
                          winograd && c.padding_h <= 2 && c.padding_w <= 2)) {
        const long tap[9] = {8, 7, 6, 5, 4, 3, 2, 1, 0};
        const Filters<T> filters{w, c.C, c.O, 9, 9, 9 * c.C, tap};
        const Winograd s{c.N, c.O, c.OH, c.OW, c.C, c.H, c.W, 2 - c.padding_h, 2 - c.padding_w};
        Buffer<T> u(transformed_size(filters));
        write_filters<T>(filters, u);
        return winograd_forward<T>(s, grad_y, u, nullptr, Epilogue<T>{}, grad_x);
    }
    const long C = c.C / c.groups, O = c.O / c.groups, taps = c.KH * c.KW;
    Buffer<long> row_tap(c.KH), row(c.KH), column_tap(c.KW), column(c.KW), tap(taps);
    for (long a = 0; a < min(c.stride_h, c.H); a++)
        for (long b = 0; b < min(c.stride_w, c.W); b++) {
            const long rows = taps_of(a, c.KH, c.stride_h, c.padding_h, c.dilation_h, row_tap, row);
            const long columns = taps_of(b, c.KW, c.stride_w, c.padding_w, c.dilation_w, column_tap, column);
            const long H = ceil_div(c.H - a, c.stride_h), W = ceil_div(c.W - b, c.stride_w);
            if (rows * columns == 0 || c.OH * c.OW == 0) {  // no output sees these pixels
                for_each(c.N * H, [&](long nh) {
                    const long n = nh / H, h = nh % H * c.stride_h + a;
                    for (long v = 0; v < W; v++) zero(grad_x + ((n * c.H + h) * c.W + v * c.stride_w + b) * c.C, c.C);
                });
                continue;
            }
            for (long r = 0; r < rows; r++)
                for (long s = 0; s < columns; s++) tap[r * columns + s] = row_tap[r] * c.KW + column_tap[s];
            for (long g = 0; g < c.groups; g++) {
                const Filters<T> filters{w + g * O * C * taps, C, O, rows * columns, taps, C * taps, tap};
                Buffer<T> packed(filters.packed_size());
                pack<T>(filters, packed);
                const Windows<T> windows{grad_y + g * O, c.OH, c.OW, O, c.O, rows, columns, row, column, 1, 1, H, W};
                const Places<T> places{grad_x + g * C, c.H, c.W, c.C, c.stride_h, c.stride_w, a, b};
                multiply<T>(windows, c.N, packed, C, nullptr, Epilogue<T>{}, places);
            }
        }
}

template <typename T>
void conv2d_backward_weight(const Conv2d& c, const T* grad_y, const T* x, T* grad_w, bool winograd) {
    if (suits_winograd<T>(c, winograd))
        return winograd_backward_weight<T>(Winograd{c.N, c.C, c.H, c.W, c.O, c.OH, c.OW, c.padding_h, c.padding_w}, grad_y,
                                           x, grad_w);
    const long C = c.C / c.groups, O = c.O / c.groups, taps = c.KH * c.KW;
    Buffer<long> row(c.KH), column(c.KW);
    for (long r = 0; r < c.KH; r++) row[r] = r * c.dilation_h - c.padding_h;
    for (long s = 0; s < c.KW; s++) column[s] = s * c.dilation_w - c.padding_w;
    Buffer<T> sums(taps > 1 ? O * taps * C : 1);
    for (long g = 0; g < c.groups; g++) {
        const Windows<T> windows{x + g * C, c.H, c.W, C, c.C, c.KH, c.KW, row, column, c.stride_h, c.stride_w, c.OH, c.OW};
        T* const out = grad_w + g * O * C * taps;
        T* const found = taps > 1 ? static_cast<T*>(sums) : out;
        multiply_transposed<T>(grad_y + g * O, c.O, O, windows, c.N, found);
        if (taps > 1)  // (O, KH, KW, C) -> (O, C, KH, KW)
            for_each(O, [&](long o) {
                const T* from = found + o * taps * C;
                T* to = out + o * taps * C;
                for (long i = 0; i < C; i++)
                    for (long t = 0; t < taps; t++) to[i * taps + t] = from[t * C + i];
            });
    }
}

}  // namespace
