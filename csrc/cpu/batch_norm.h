// Batch normalisation.  Memory is the bottleneck, so each pass over the pixels computes as much as possible.
//
// The sums of a strip of channels stay in registers.  A block of pixels fits the L2 cache: its mean is summed first, then
// the squares about that mean.  Blocks are merged in order (Chan, Golub and LeVeque 1979).  The merge does not cancel
// digits if the mean is large, and the result does not depend on the number of threads.
#pragma once

#include <type_traits>

#include "buffer.h"
#include "simd.h"
#include "threads.h"

namespace {

constexpr long BLOCK_NUMBERS = 32768;  // in a block of pixels: 128 KB of float32
constexpr long STRIP = 4;              // vectors of channels

inline long pixels_of_block(long P, long C) {
    // At most 64 blocks, because one thread merges their sums.
    return max(ceil_div(P, 64), max(BLOCK_NUMBERS / max(C, 1), 1));
}

// body(first channel, number of vectors as a constant, tail of the last vector)
template <typename T, typename Body>
MINIRES_INLINE void strips(long C, Body&& body) {
    constexpr long L = LANES<T>;
    long c = 0;
    for (; c + STRIP * L <= C; c += STRIP * L) body(c, std::integral_constant<long, STRIP>(), 0);
    for (; c + L <= C; c += L) body(c, std::integral_constant<long, 1>(), 0);
    if (c < C) body(c, std::integral_constant<long, 1>(), C - c);
}

// Adds pixels begin … end − 1 to `total` by add(p, sum).  Each run has its own sums, because rounding errors grow with
// the number of successive additions.  Two sums alternate to hide the latency of an addition.
constexpr long RUN_OF_PIXELS = 64;
template <typename T, long N, typename Add>
MINIRES_INLINE void sum_in_runs(long begin, long end, Vec<T> (&total)[N], Add&& add) {
    for (long run = begin; run < end; run += RUN_OF_PIXELS) {
        const long stop = min(run + RUN_OF_PIXELS, end);
        Vec<T> sum[2][N] = {};
        long p = run;
        for (; p + 1 < stop; p += 2) add(p, sum[0]), add(p + 1, sum[1]);
        if (p < stop) add(p, sum[0]);
        for (long v = 0; v < N; v++) total[v] += sum[0][v] + sum[1][v];
    }
}

// mean (C) and biased variance (C) of P pixels
template <typename T>
void batch_norm_statistics(long P, long C, const T* x, T* mean, T* var) {
    const long block = pixels_of_block(P, C), blocks = ceil_div(P, block);
    Buffer<T> means(blocks * C), squares(blocks * C);
    for_each(blocks, [&](long b) {
        const long begin = b * block, end = min(begin + block, P);
        strips<T>(C, [&](long c, auto vectors, long tail) {
            constexpr long V = decltype(vectors)::value, L = LANES<T>;
            Vec<T> centre[V] = {}, square[V] = {};
            sum_in_runs<T>(begin, end, centre, [&](long p, Vec<T>* sum) {
#pragma GCC unroll 4
                for (long v = 0; v < V; v++) sum[v] += load(x + p * C + c + v * L, tail);
            });
            for (long v = 0; v < V; v++) {
                centre[v] /= T(end - begin);
                store(means + b * C + c + v * L, centre[v], tail);
            }
            sum_in_runs<T>(begin, end, square, [&](long p, Vec<T>* sum) {
#pragma GCC unroll 4
                for (long v = 0; v < V; v++) {
                    const Vec<T> d = load(x + p * C + c + v * L, tail) - centre[v];
                    sum[v] += d * d;
                }
            });
            for (long v = 0; v < V; v++) store(squares + b * C + c + v * L, square[v], tail);
        });
    });
    for (long c = 0; c < C; c++) {
        T total = means[c], spread = squares[c];
        for (long b = 1; b < blocks; b++) {
            const T before = T(b * block), here = T(min(block, P - b * block));
            const T d = means[b * C + c] - total;
            total += d * (here / (before + here));
            spread += squares[b * C + c] + d * d * (before * here / (before + here));
        }
        mean[c] = total;
        var[c] = spread / T(P);
    }
}

// y = (x − mean) · scale + bias (+ added), and ReLU of it if `relu`; bias and added may be null
template <typename T>
void batch_norm_apply(
    long P, long C, const T* x, const T* mean, const T* scale, const T* bias, const T* added, T* y, bool relu) {
    const long block = max(BLOCK_NUMBERS / max(C, 1), 1), blocks = ceil_div(P, block);
    const bool streams = may_stream(y, P * C, C);
    for_each(blocks, [&](long b) {
        const long begin = b * block, end = min(begin + block, P);
        strips<T>(C, [&](long c, auto vectors, long tail) {
            constexpr long V = decltype(vectors)::value, L = LANES<T>;
            Vec<T> m[V], s[V], d[V];
            for (long v = 0; v < V; v++) {
                m[v] = load(mean + c + v * L, tail), s[v] = load(scale + c + v * L, tail);
                d[v] = bias ? load(bias + c + v * L, tail) : Vec<T>{};
            }
            for (long p = begin; p < end; p++)
#pragma GCC unroll 4
                for (long v = 0; v < V; v++) {
                    const long at = p * C + c + v * L;
                    Vec<T> value = normalised(load(x + at, tail), m[v], s[v], d[v]);
                    if (added) value += load(added + at, tail);
                    if (relu) value = rectified(value);
                    streams ? stream(y + at, value) : store(y + at, value, tail);
                }
        });
        if (streams) stream_fence();
    });
}

// Σ g and Σ g · (x − mean) over the pixels.  If scale is given, the sums include the backward of a ReLU behind batch norm:
// g counts only where the output was positive.
template <typename T>
void batch_norm_sums(long P, long C, const T* g, const T* x, const T* mean, const T* scale, const T* bias, T* sum_g,
                     T* sum_g_centred) {
    const long block = pixels_of_block(P, C), blocks = ceil_div(P, block);
    Buffer<T> first(blocks * C), second(blocks * C);
    for_each(blocks, [&](long b) {
        const long begin = b * block, end = min(begin + block, P);
        strips<T>(C, [&](long c, auto vectors, long tail) {
            constexpr long V = decltype(vectors)::value, L = LANES<T>;
            Vec<T> total[2 * V] = {}, m[V], s[V], d[V];  // of g, then of g · (x − mean)
            for (long v = 0; v < V; v++) {
                m[v] = load(mean + c + v * L, tail);
                s[v] = scale ? load(scale + c + v * L, tail) : Vec<T>{};
                d[v] = bias ? load(bias + c + v * L, tail) : Vec<T>{};
            }
            sum_in_runs<T>(begin, end, total, [&](long p, Vec<T>* sum) {
#pragma GCC unroll 4
                for (long v = 0; v < V; v++) {
                    const long at = p * C + c + v * L;
                    Vec<T> grad = load(g + at, tail);
                    const Vec<T> value = load(x + at, tail);
                    if (scale) grad = normalised(value, m[v], s[v], d[v]) > T(0) ? grad : Vec<T>{};
                    sum[v] += grad;
                    sum[V + v] += grad * (value - m[v]);
                }
            });
            for (long v = 0; v < V; v++) {
                store(first + b * C + c + v * L, total[v], tail);
                store(second + b * C + c + v * L, total[V + v], tail);
            }
        });
    });
    for (long c = 0; c < C; c++) {
        T a = 0, b = 0;
        for (long i = 0; i < blocks; i++) a += first[i * C + c], b += second[i * C + c];
        sum_g[c] = a, sum_g_centred[c] = b;
    }
}

// grad_x = scale · (g − mean_g − (x − mean) · slope); with `relu`, g counts as in `batch_norm_sums`
template <typename T>
void batch_norm_input(long P, long C, const T* g, const T* x, const T* mean, const T* scale, const T* bias, bool relu,
                      const T* mean_g, const T* slope, T* grad_x) {
    const long block = max(BLOCK_NUMBERS / max(C, 1), 1), blocks = ceil_div(P, block);
    const bool streams = may_stream(grad_x, P * C, C);
    for_each(blocks, [&](long b) {
        const long begin = b * block, end = min(begin + block, P);
        strips<T>(C, [&](long c, auto vectors, long tail) {
            constexpr long V = decltype(vectors)::value, L = LANES<T>;
            Vec<T> m[V], s[V], o[V], k[V], d[V];
            for (long v = 0; v < V; v++) {
                m[v] = load(mean + c + v * L, tail), s[v] = load(scale + c + v * L, tail);
                o[v] = load(mean_g + c + v * L, tail), k[v] = load(slope + c + v * L, tail);
                d[v] = bias ? load(bias + c + v * L, tail) : Vec<T>{};
            }
            for (long p = begin; p < end; p++)
#pragma GCC unroll 4
                for (long v = 0; v < V; v++) {
                    const long at = p * C + c + v * L;
                    Vec<T> grad = load(g + at, tail);
                    const Vec<T> value = load(x + at, tail);
                    if (relu) grad = normalised(value, m[v], s[v], d[v]) > T(0) ? grad : Vec<T>{};
                    const Vec<T> result = s[v] * (grad - o[v] - (value - m[v]) * k[v]);
                    streams ? stream(grad_x + at, result) : store(grad_x + at, result, tail);
                }
        });
        if (streams) stream_fence();
    });
}

// (P, C) -> (C): the sum over the pixels, the gradient of a bias
template <typename T>
void sum_pixels(long P, long C, const T* g, T* sum) {
    const long block = pixels_of_block(P, C), blocks = ceil_div(P, block);
    Buffer<T> parts(max(blocks, 1) * C);
    for_each(blocks, [&](long b) {
        const long begin = b * block, end = min(begin + block, P);
        strips<T>(C, [&](long c, auto vectors, long tail) {
            constexpr long V = decltype(vectors)::value, L = LANES<T>;
            Vec<T> total[V] = {};
            sum_in_runs<T>(begin, end, total, [&](long p, Vec<T>* sum) {
#pragma GCC unroll 4
                for (long v = 0; v < V; v++) sum[v] += load(g + p * C + c + v * L, tail);
            });
            for (long v = 0; v < V; v++) store(parts + b * C + c + v * L, total[v], tail);
        });
    });
    for (long c = 0; c < C; c++) {
        T total = 0;
        for (long b = 0; b < blocks; b++) total += parts[b * C + c];
        sum[c] = total;
    }
}

}  // namespace
