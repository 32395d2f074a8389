// The innermost product: a tile of c stays in registers while the reduction runs past it.
//
// With AVX-512 it has 14 rows of two vectors, 14 × 32 float32: each step of the reduction multiplies 14 numbers of a, one
// a row, with two vectors of b, 28 fused multiply-adds for 16 loads, so that the multipliers, not the loads, set the pace.
// With AVX2 and the portable vectors 6 rows fill the 16 registers.
#pragma once

#include "kernels.h"
#include "simd.h"

namespace {

using minires::cpu::Epilogue;

constexpr long RUN = 192;  // the longest run of the reduction between two visits of c: so much of b stays in the
                           // first-level cache

// From row to row of `width` numbers that rows of c are computed from: an odd number of cache lines, since rows a power
// of two apart share a few sets of the cache.
template <typename T>
MINIRES_INLINE constexpr long pitch_of(long width) {
    constexpr long LINE = 64 / sizeof(T);
    return ((width + LINE - 1) / LINE | 1) * LINE;
}

template <typename T>
constexpr long TILE_COLUMNS = 2 * LANES<T>;

// What a tile of c starts from, and what follows its sum.
template <typename T>
struct TileOptions {
    const T* bias;         // n numbers that c begins as (the bias), or null: it begins as zero
    bool accumulate;       // add to what stands in c
    const Epilogue<T>* epilogue;  // its vectors, like `start`, from this tile's first column on; null: nothing
    long added;            // from a number of c to the one of epilogue->added
    bool streams = false;     // c goes past the caches to memory
    const T* next = nullptr;  // the a of the next tile: it comes from memory while this one is multiplied; null: it is near
};

template <typename T, typename V>
MINIRES_INLINE V apply_epilogue(V v, const Epilogue<T>& f, V mean, V scale, V shift, V added) {
    if (f.scale) v = normalised(v, mean, scale, shift);
    if (f.added) v += added;
    return f.relu ? rectified(v) : v;
}

// The tail (simd.h) of vector number j of n numbers.
template <typename T>
MINIRES_INLINE long tail_of(long n, long j) {
    return n - j * LANES<T> < LANES<T> ? n - j * LANES<T> : 0;
}

// c[i][0 … n − 1] (+)= Σ_k a(i, k) · b[k][…], rows of c at rows[i] + column.
//
// a(i, k) is a[i · a_pitch + k], or a[k · a_pitch + i] if TRANSPOSED; b[k] begins at b + k · b_pitch and can be read up to
// a whole number of vectors.
template <typename T, int ROWS, int VECTORS, bool TRANSPOSED>
void tile(long depth, const T* a, long a_pitch, const T* b, long b_pitch, T* const* rows, long column, long n,
          const TileOptions<T>& options) {
    constexpr long L = LANES<T>;
    // c is on its way from memory while the product is computed.
    if (!options.streams)
#pragma GCC unroll 16
        for (int i = 0; i < ROWS; i++)
#pragma GCC unroll 2
            for (int j = 0; j < VECTORS; j++) __builtin_prefetch(rows[i] + column + j * L, 1);
    Vec<T> c[ROWS][VECTORS];
#pragma GCC unroll 2
    for (int j = 0; j < VECTORS; j++) {
        const Vec<T> first = options.bias && j * L < n ? load(options.bias + j * L, tail_of<T>(n, j)) : Vec<T>{};
#pragma GCC unroll 16
        for (int i = 0; i < ROWS; i++) c[i][j] = first;
    }
    // Three rows of a share a pointer: base, base + pitch and base + 2 · pitch are addresses of one instruction.
    constexpr int BASES = (ROWS + 2) / 3;
    const char* base[BASES];
    const long pitch = a_pitch * static_cast<long>(sizeof(T));
#pragma GCC unroll 8
    for (int g = 0; g < BASES; g++) base[g] = reinterpret_cast<const char*>(TRANSPOSED ? a : a + 3 * g * a_pitch);
    const long LINE = TRANSPOSED ? depth : 64 / sizeof(T);
    for (long line = 0; line < depth; line += LINE) {
        if (!TRANSPOSED && options.next)
#pragma GCC unroll 16
            for (int i = 0; i < ROWS; i++) __builtin_prefetch(options.next + i * a_pitch + line, 0, 2);
        for (long k = line; k < min(line + LINE, depth); k++, b += b_pitch) {
            Vec<T> right[VECTORS];
#pragma GCC unroll 2
            for (int j = 0; j < VECTORS; j++) right[j] = load(b + j * L);
#pragma GCC unroll 16
            for (int i = 0; i < ROWS; i++) {
                const char* from = TRANSPOSED ? base[0] + i * sizeof(T) : base[i / 3] + (i % 3) * pitch;
                Vec<T> left = splat(*reinterpret_cast<const T*>(from));
#pragma GCC unroll 2
                for (int j = 0; j < VECTORS; j++) c[i][j] += left * right[j];
            }
#pragma GCC unroll 8
            for (int g = 0; g < (TRANSPOSED ? 1 : BASES); g++)
                base[g] += TRANSPOSED ? pitch : static_cast<long>(sizeof(T));
        }
    }
    const Epilogue<T>* f = options.epilogue;
#pragma GCC unroll 2
    for (int j = 0; j < VECTORS; j++) {
        if (j * L >= n) break;
        const long tail = tail_of<T>(n, j);
        Vec<T> mean{}, scale{}, shift{};
        if (f && f->scale)
            mean = load(f->mean + j * L, tail), scale = load(f->scale + j * L, tail), shift = load(f->shift + j * L, tail);
#pragma GCC unroll 16
        for (int i = 0; i < ROWS; i++) {
            T* to = rows[i] + column + j * L;
            if (options.accumulate) c[i][j] += load(to, tail);
            if (f) c[i][j] = apply_epilogue<T>(c[i][j], *f, mean, scale, shift, f->added ? load(to + options.added, tail) : mean);
            options.streams ? stream(to, c[i][j]) : store(to, c[i][j], tail);
        }
    }
}

template <typename T>
using Tile = void (*)(long, const T*, long, const T*, long, T* const*, long, long, const TileOptions<T>&);

// tiles<…>(rows, vectors): the tile of that shape.
template <typename T, bool TRANSPOSED>
struct Tiles {
    Tile<T> of[TILE_ROWS + 1][3];

    template <int ROWS>
    constexpr void fill() {
        of[ROWS][1] = tile<T, ROWS, 1, TRANSPOSED>;
        of[ROWS][2] = tile<T, ROWS, 2, TRANSPOSED>;
        if constexpr (ROWS > 1) fill<ROWS - 1>();
    }
    constexpr Tiles() : of{} { fill<TILE_ROWS>(); }
};

template <typename T, bool TRANSPOSED>
constexpr Tiles<T, TRANSPOSED> TILES{};

// Rows of c in panels of nearly equal height, none above TILE_ROWS: calls body(first row, how many).
template <typename Body>
MINIRES_INLINE void panels(long rows, Body&& body) {
    long count = ceil_div(rows, TILE_ROWS), done = 0;
    for (long i = 0; i < count; i++) {
        long end = rows * (i + 1) / count;
        body(done, end - done);
        done = end;
    }
}

}  // namespace
