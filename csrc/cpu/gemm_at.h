// aᵀ · windows: the gradient of a convolution's filters, a sum over all pixels.
//
// The result is small and the sum is long.  A task keeps its part of the result in the L2 cache and loops over the pixels.
// If there are few tasks, each is divided into segments of pixels, whose sums are added in order.  The number of segments
// depends on the shape alone, so any number of threads gives the same bits.
#pragma once

#include "gemm.h"

namespace {

constexpr long SUM_ROWS = 192 / TILE_ROWS * TILE_ROWS;  // of a task's part of the result
constexpr long SUM_COLUMNS = 256;
constexpr long SUM_DEPTH = 128;  // pixels between two updates of the result
constexpr long RIGHT = 128;      // columns of the windows that are written at a time
template <typename T>
constexpr long SLOT = (TILE_ROWS + LANES<T> - 1) / LANES<T> * LANES<T>;  // one pixel of a panel, rounded up to whole vectors
constexpr long SUM_TASKS = 32;  // fewer tasks are divided into segments

template <typename T>
MINIRES_INLINE void fetch(const T* from, long n) {
    for (long i = 0; i < n; i += 64 / sizeof(T)) __builtin_prefetch(from + i, 0, 2);
}

// c[o · K + k] = Σ_p a[p · a_pitch + o] · window[p][k], o < count
template <typename T>
void multiply_transposed(const T* a, long a_pitch, long count, const Windows<T>& windows, long images, T* c) {
    constexpr long S = TILE_COLUMNS<T>;
    const long M = images * windows.out_h * windows.out_w, K = windows.depth();
    if (count == 0 || K == 0) return;
    const long numbers = (M - 1) * a_pitch + count;  // of a that may be read
    const long row_blocks = ceil_div(count, SUM_ROWS), column_blocks = ceil_div(K, SUM_COLUMNS);
    const long blocks = row_blocks * column_blocks;
    const long segments = max(min(ceil_div(SUM_TASKS, blocks), M / SUM_DEPTH), 1);
    Buffer<T> sums(segments > 1 ? segments * count * K : 1);
    T* const out = segments > 1 ? static_cast<T*>(sums) : c;

    for_each(segments * blocks, [&](long task) {
        const long segment = task / blocks, block = task % blocks;
        const long row_block = block / column_blocks, column_block = block % column_blocks;
        const long top = count * row_block / row_blocks, bottom = count * (row_block + 1) / row_blocks;
        const long first = column_block * SUM_COLUMNS, last = min(first + SUM_COLUMNS, K);
        const long begin = M * segment / segments, end = M * (segment + 1) / segments;
        T* rows[SUM_ROWS];
        for (long o = top; o < bottom; o++) {
            rows[o - top] = out + (segment * count + o) * K;
            if (begin == end) zero(rows[o - top] + first, last - first);
        }
        constexpr long right_pitch = pitch_of<T>(RIGHT);
        T* left = static_cast<T*>(scratch(Scratch::left, SUM_DEPTH * SLOT<T> * ceil_div(SUM_ROWS, TILE_ROWS) * sizeof(T)));
        T* right = static_cast<T*>(scratch(Scratch::right, SUM_DEPTH * right_pitch * sizeof(T)));
        for (long p = begin; p < end; p += SUM_DEPTH) {
            const long depth = min(SUM_DEPTH, end - p);
            // Packs each panel of rows, one slot a pixel, so that it takes a small part of the L1 cache.
            T* slots = left;
            panels(bottom - top, [&](long row, long height) {
                const T* from = a + p * a_pitch + top + row;
                for (long i = 0; i < depth; i++, from += a_pitch, slots += SLOT<T>)
                    if ((p + i) * a_pitch + top + row + SLOT<T> <= numbers)  // a whole slot may be read
                        for (long v = 0; v < SLOT<T>; v += LANES<T>) store(slots + v, load(from + v));
                    else
                        for (long o = 0; o < height; o++) slots[o] = from[o];
            });
            // Prefetches the next pixels, a few before each tile.
            const long tiles = ceil_div(bottom - top, TILE_ROWS) * ceil_div(last - first, S);
            long tile_number = 0;
            auto fetch_ahead = [&] {
                const long ahead = p + SUM_DEPTH;
                for (long i = SUM_DEPTH * tile_number / tiles; i < SUM_DEPTH * (tile_number + 1) / tiles && ahead + i < end; i++) {
                    fetch(a + (ahead + i) * a_pitch + top, bottom - top);
                    if (windows.are_pixels()) fetch(windows.image + (ahead + i) * windows.pitch + first, last - first);
                }
                tile_number++;
            };
            for (long k = first; k < last; k += RIGHT) {
                const long width = min(RIGHT, last - k);
                write_windows(windows, p, p + depth, k, k + width, right, right_pitch);
                for (long j = 0; j < width; j += S) {
                    const long n = min(S, width - j);
                    const int vectors = n > LANES<T> ? 2 : 1;
                    const T* slots_of_panel = left;
                    panels(bottom - top, [&](long row, long height) {
                        fetch_ahead();
                        TILES<T, true>.of[height][vectors](depth, slots_of_panel, SLOT<T>, right + j, right_pitch,
                                                           rows + row, k + j, n, TileOptions<T>{nullptr, p > begin, nullptr, 0});
                        slots_of_panel += depth * SLOT<T>;
                    });
                }
            }
        }
    });
    if (segments == 1) return;
    const long pieces = ceil_div(count * K, 4096);
    for_each(pieces, [&](long piece) {
        const long last = min((piece + 1) * 4096, count * K);
        for (long i = piece * 4096; i < last; i++) {
            T sum = out[i];
            for (long s = 1; s < segments; s++) sum += out[s * count * K + i];
            c[i] = sum;
        }
    });
}

template <typename T>
void matmul_at(long M, long N, long K, const T* a, const T* b, T* c) {
    static const long here = 0;
    const Windows<T> rows{b, 1, K, N, N, 1, 1, &here, &here, 1, 1, 1, K};
    multiply_transposed<T>(a, M, M, rows, 1, c);
}

}  // namespace
