// An implicit GEMM: windows of images times filters.  Each output pixel is a row; 1×1 windows are a plain matrix.
//
// A task computes some hundred windows and a range of filters.  It writes a block of their im2col rows, which stays in
// the L2 cache.  Then it multiplies the block by one strip of filters after another, two vectors wide.  A strip stays in
// the L1 cache.
#pragma once

#include "buffer.h"
#include "threads.h"
#include "tile.h"
#include "windows.h"

namespace {

using minires::threads::for_each;
using minires::threads::Scratch;
using minires::threads::scratch;

constexpr long BLOCK_ROWS = 8 * TILE_ROWS;  // windows of a task

// Filters to be packed for the tiles: strips of TILE_COLUMNS filters, in the order (strip, step of the reduction, filter).
// Filter o at the step of tap t and channel i is w[o · filter + i · channel + tap[t]].
template <typename T>
struct Filters {
    const T* w;
    long count, channels, taps;
    long filter, channel;
    const long* tap;

    long depth() const { return taps * channels; }
    long packed_size() const { return round_up(count, TILE_COLUMNS<T>) * depth(); }
};

template <typename T>
void pack(const Filters<T>& f, T* packed) {
    constexpr long S = TILE_COLUMNS<T>, PIECE = 64;
    const long strips = ceil_div(f.count, S), pieces = ceil_div(f.channels, PIECE);
    for_each(strips * pieces, [&](long task) {
        const long strip = task / pieces, first = task % pieces * PIECE;
        const long o = strip * S, n = min(S, f.count - o), last = min(first + PIECE, f.channels);
        const T* w = f.w + o * f.filter;
        T* strip_start = packed + strip * S * f.depth();
        if (f.filter < f.channel) {  // filters (and their taps) are neighbours in memory
            for (long i = first; i < last; i++)
                for (long t = 0; t < f.taps; t++) {
                    const T* from = w + i * f.channel + f.tap[t];
                    T* to = strip_start + (t * f.channels + i) * S;
                    if (f.filter == 1)
                        copy(to, from, n);
                    else
                        for (long j = 0; j < n; j++) to[j] = from[j * f.filter];
                    zero(to + n, S - n);
                }
            return;
        }
        // Channels are neighbours in memory.  Each line of a filter is read once, because filters whose distance is a
        // power of two share one set of the cache.
        constexpr long LINE = 16;
        T lines[LINE][S];
        for (long t = 0; t < f.taps; t++)
            for (long i = first; i < last; i += LINE) {
                const long m = min(LINE, last - i);
                for (long j = 0; j < n; j++) {
                    const T* from = w + j * f.filter + i * f.channel + f.tap[t];
                    for (long e = 0; e < m; e++) lines[e][j] = from[e * f.channel];
                }
                for (long e = 0; e < m; e++) {
                    T* to = strip_start + (t * f.channels + i + e) * S;
                    copy(to, lines[e], n);
                    zero(to + n, S - n);
                }
            }
    });
}

// The place of window (n, h, w)'s result: image n, row h · step_h + first_h, column w · step_w + first_w.
template <typename T>
struct Places {
    T* image;  // its first channel
    long H, W, pitch;
    long step_h = 1, step_w = 1, first_h = 0, first_w = 0;
};

template <typename T>
bool does_something(const Epilogue<T>& f) {
    return f.scale || f.added || f.relu;
}

template <typename T>
Epilogue<T> at_column(const Epilogue<T>& f, long column) {
    return f.scale ? Epilogue<T>{f.mean + column, f.scale + column, f.shift + column, f.added, f.relu} : f;
}

// Multiplies the windows of `images` images by `count` packed filters.  `bias` and the vectors of `epilogue` have `count`
// numbers.
template <typename T>
void multiply(const Windows<T>& windows, long images, const T* packed, long count, const T* bias,
              const Epilogue<T>& epilogue, const Places<T>& places) {
    constexpr long S = TILE_COLUMNS<T>;
    const long M = images * windows.out_h * windows.out_w, K = windows.depth();
    if (M == 0 || count == 0) return;
    const long strips = ceil_div(count, S);
    const long blocks = ceil_div(M, BLOCK_ROWS);
    // A small image has few blocks.  Then the filters are divided too, down to one strip a task; 16 tasks balance the load
    // of several threads.
    const long ranges = min(strips, ceil_div(16, blocks));
    const long runs = max(ceil_div(K, RUN), 1);
    // Windows that are the image's pixels need no copy, unless rows are 4 KB or more apart: the 14 rows of a tile would
    // compete for the eight ways of one set (92 instead of 117 GFLOP/s).
    const bool as_they_lie = windows.are_pixels() && windows.pitch * sizeof(T) < 4096;
    // Non-temporal stores of whole lines need not fetch a result that is larger than the caches.
    const bool streams = MINIRES_VECTOR_BYTES == 64 && runs == 1 && places.pitch == count && places.step_w == 1 &&
                         may_stream(places.image, M * count, count);
    const long pitch = as_they_lie ? windows.pitch : pitch_of<T>(min(K, RUN));

    for_each(blocks * ranges, [&](long task) {
        const long block = task / ranges, range = task % ranges;
        const long begin = M * block / blocks, end = M * (block + 1) / blocks;
        const long first_strip = strips * range / ranges, last_strip = strips * (range + 1) / ranges;
        T* rows[BLOCK_ROWS];
        for (long p = begin; p < end; p++) {
            const long w = p % windows.out_w, h = p / windows.out_w % windows.out_h, n = p / windows.out_w / windows.out_h;
            rows[p - begin] = places.image + ((n * places.H + h * places.step_h + places.first_h) * places.W +
                                              w * places.step_w + places.first_w) * places.pitch;
        }
        T* written = as_they_lie ? nullptr : static_cast<T*>(scratch(Scratch::left, BLOCK_ROWS * pitch * sizeof(T)));
        for (long run = 0; run < runs; run++) {
            const long first = K * run / runs, last = K * (run + 1) / runs;
            const T* left = as_they_lie ? windows.image + begin * pitch + first : written;
            if (!as_they_lie) write_windows(windows, begin, end, first, last, written, pitch);
            for (long strip = first_strip; strip < last_strip; strip++) {
                const long column = strip * S, n = min(S, count - column);
                const T* right = packed + strip * S * K + first * S;
                const Epilogue<T> here = at_column(epilogue, column);
                TileOptions<T> options{run == 0 && bias ? bias + column : nullptr, run > 0,
                                   run == runs - 1 && does_something(epilogue) ? &here : nullptr,
                             epilogue.added ? epilogue.added - places.image : 0, streams};
                const int vectors = n > LANES<T> ? 2 : 1;
                panels(end - begin, [&](long row, long height) {
                    if (as_they_lie) options.next = strip == first_strip ? left + (row + height) * pitch : nullptr;
                    TILES<T, false>.of[height][vectors](
                        last - first, left + row * pitch, pitch, right, S, rows + row, column, n, options);
                });
            }
        }
        if (streams) stream_fence();
    });
}

template <typename T>
void matmul(long M, long N, long K, const T* a, const T* b, bool transposed, const T* bias, T* c) {
    static const long here = 0;
    const Filters<T> filters{b, N, K, 1, transposed ? K : 1, transposed ? 1 : N, &here};
    Buffer<T> packed(filters.packed_size());
    pack<T>(filters, packed);
    const Windows<T> rows{a, 1, M, K, K, 1, 1, &here, &here, 1, 1, 1, M};
    multiply<T>(rows, 1, packed, N, bias, Epilogue<T>{}, Places<T>{c, 1, M, N});
}

}  // namespace
