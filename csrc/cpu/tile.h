// The innermost product.  A tile of c stays in registers during the reduction.
//
// With AVX-512 the tile has 14 rows of two vectors, 14 × 32 float32.  Each step of the reduction multiplies one number of
// a for each row with two vectors of b: 28 fused multiply-adds and 16 loads, so the multipliers are the bottleneck.
// With AVX2 and the portable vectors 6 rows fill the 16 registers.
#pragma once

#include "kernels.h"
#include "simd.h"

namespace {

using minires::cpu::Epilogue;

constexpr long RUN = 192;  // steps of the reduction between two updates of c: this much of b fits the L1 cache

// The pitch of rows of `width` numbers: an odd number of cache lines, because rows whose distance is a power of two share
// a few sets of the cache.
template <typename T>
MINIRES_INLINE constexpr long pitch_of(long width) {
    constexpr long LINE = 64 / sizeof(T);
    return ((width + LINE - 1) / LINE | 1) * LINE;
}

template <typename T>
constexpr long TILE_COLUMNS = 2 * LANES<T>;

// The initial value of a tile of c, and what follows its sum.  Null: none.
template <typename T>
struct TileOptions {
    const T* bias;                // n numbers, added to c
    bool accumulate;              // add to the c in memory
    const Epilogue<T>* epilogue;  // its vectors and `bias` begin at this tile's first column
    long added;                   // the offset from a number of c to its number of epilogue->added
    bool streams = false;         // write c by non-temporal stores
    const T* next = nullptr;      // the next tile's a, to be prefetched
};

template <typename T, typename V>
MINIRES_INLINE V apply_epilogue(V v, const Epilogue<T>& f, V mean, V scale, V shift, V added) {
    if (f.scale) v = normalised(v, mean, scale, shift);
    if (f.added) v += added;
    return f.relu ? rectified(v) : v;
}

// The tail (simd.h) of vector j of n numbers.
template <typename T>
MINIRES_INLINE long tail_of(long n, long j) {
    return n - j * LANES<T> < LANES<T> ? n - j * LANES<T> : 0;
}

// c[i][0 … n − 1] (+)= Σ_k a(i, k) · b[k][…], where row i of c begins at rows[i] + column.
//
// a(i, k) is a[i · a_pitch + k], or a[k · a_pitch + i] if TRANSPOSED.  b[k] begins at b + k · b_pitch, and whole vectors
// of it are read.
template <typename T, int ROWS, int VECTORS, bool TRANSPOSED>
void tile(long depth, const T* a, long a_pitch, const T* b, long b_pitch, T* const* rows, long column, long n,
          const TileOptions<T>& options) {
    constexpr long L = LANES<T>;
    // Fetches c while the product is computed.
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
    // Three rows of a share a pointer, because x86 addresses base, base + pitch and base + 2 · pitch in one instruction.
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

// of[rows][vectors]: the function for a tile of that shape.
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

// Divides rows of c into panels of nearly equal height, at most TILE_ROWS: body(first row, height).
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
