// Winograd's minimal filtering F(4×4, 3×3): 36 multiplications for the 16 outputs of a 3×3 filter, instead of 144.
//
// Overlapping 6×6 tiles d of the image and the filters g are transformed, multiplied element by element, and transformed
// back:  Y = Aᵀ [ (G g Gᵀ) ⊙ (Bᵀ d B) ] A   (Lavin and Gray, arXiv:1509.09308).  The channels are summed before the last
// transform, so ⊙ becomes 36 products of matrices, tiles × channels × filters.
//
// In one dimension, with the points p = 3/4 and q = 3/2, for four outputs of three taps from six numbers of the image:
//
//        ⎡ p²q²   0   −p²−q²   0    1  0 ⎤         ⎡  1/p²q²    0     0  ⎤         ⎡ 1  1  1  1  1  0 ⎤
//        ⎢  0   −pq²   −q²     p    1  0 ⎥         ⎢   1/P     p/P  p²/P ⎥         ⎢ 0  p −p  q −q  0 ⎥
//   Bᵀ = ⎢  0    pq²   −q²    −p    1  0 ⎥     G = ⎢   1/P    −p/P  p²/P ⎥    Aᵀ = ⎢ 0  p² p² q² q² 0 ⎥
//        ⎢  0   −qp²   −p²     q    1  0 ⎥         ⎢   1/Q     q/Q  q²/Q ⎥         ⎣ 0  p³−p³ q³−q³ 1 ⎦
//        ⎢  0    qp²   −p²    −q    1  0 ⎥         ⎢   1/Q    −q/Q  q²/Q ⎥
//        ⎣  0   p²q²    0   −p²−q²  0  1 ⎦         ⎣    0       0     1  ⎦    P = 2p²(p²−q²), Q = 2q²(q²−p²)
//
// The rows for p and −p have the same even and odd parts: their sum is one row, their difference the other.  The gradient
// of the image is again such a convolution (conv2d.h).  The gradient of the filters uses the transposed transforms.
//
// A transform evaluates a polynomial at five points and infinity.  The powers of 0, ±3/4, ±3/2 are exact in binary.  The
// error in norm is 1e-6; the usual points 0, ±1, ±2 give 2e-6 and a plain sum 4e-7 (float32, 128 channels).  float64 is
// never computed this way, because it is chosen for its digits.
//
// The error bound is (C + 31) · u · |Aᵀ| [ |G||g||Gᵀ| ⊙ |Bᵀ||d||B| ] |A|.  It covers whole tiles, while a plain sum's bound
// covers each output's window.  So a pixel of 3e4 among ones changes all outputs of its 6×6 tiles by up to 0.1, and a NaN
// or an infinity makes them NaN, even those that do not see the pixel.  MINIRES_WINOGRAD=0, or the backend's option
// winograd=False, computes every output from its own window.
#pragma once

#include "gemm.h"

namespace {

// Bytes of a group of tiles.  A group of one thread stays in its L2 cache, a group of all threads in the last-level cache.
// A group has at least WINOGRAD_LEAST tiles, because it reads all filters once.
constexpr long WINOGRAD_SMALL = 768 << 10, WINOGRAD_LARGE = 16 << 20, WINOGRAD_LEAST = 28;
constexpr long WINOGRAD_SUMS = 20 << 20;  // bytes: limit for the sums of all segments of a weight gradient
constexpr long POINTS = 36;
constexpr double POINT_P = 0.75, POINT_P2 = POINT_P * POINT_P, POINT_P3 = POINT_P2 * POINT_P;
constexpr double POINT_Q = 1.5, POINT_Q2 = POINT_Q * POINT_Q, POINT_Q3 = POINT_Q2 * POINT_Q;
// G's divisors: Π (point − other points)
constexpr double AT_0 = POINT_P2 * POINT_Q2;
constexpr double AT_P = 2 * POINT_P2 * (POINT_P2 - POINT_Q2), AT_Q = 2 * POINT_Q2 * (POINT_Q2 - POINT_P2);

// The values of polynomials at p, −p, q and −q from their even and odd parts.
template <typename V>
MINIRES_INLINE void for_both_signs(V even_p, V odd_p, V even_q, V odd_q, V* to, int step) {
    to[step] = even_p + odd_p;
    to[2 * step] = even_p - odd_p;
    to[3 * step] = even_q + odd_q;
    to[4 * step] = even_q - odd_q;
}

// Bᵀ d: six numbers of an image
template <typename T, typename V>
MINIRES_INLINE void transform_input(V d0, V d1, V d2, V d3, V d4, V d5, V* to, int step) {
    const V even_p = d4 - d2 * T(POINT_Q2), odd_p = (d3 - d1 * T(POINT_Q2)) * T(POINT_P);
    const V even_q = d4 - d2 * T(POINT_P2), odd_q = (d3 - d1 * T(POINT_P2)) * T(POINT_Q);
    to[0] = d0 * T(POINT_P2 * POINT_Q2) - d2 * T(POINT_P2 + POINT_Q2) + d4;
    for_both_signs(even_p, odd_p, even_q, odd_q, to, step);
    to[5 * step] = d1 * T(POINT_P2 * POINT_Q2) - d3 * T(POINT_P2 + POINT_Q2) + d5;
}

// Aᵀ m: four outputs
template <typename T, typename V>
MINIRES_INLINE void transform_output(const V* m, int step, V* to, int to_step) {
    const V sum_p = m[step] + m[2 * step], difference_p = m[step] - m[2 * step];
    const V sum_q = m[3 * step] + m[4 * step], difference_q = m[3 * step] - m[4 * step];
    to[0] = m[0] + sum_p + sum_q;
    to[to_step] = difference_p * T(POINT_P) + difference_q * T(POINT_Q);
    to[2 * to_step] = sum_p * T(POINT_P2) + sum_q * T(POINT_Q2);
    to[3 * to_step] = difference_p * T(POINT_P3) + difference_q * T(POINT_Q3) + m[5 * step];
}

// G g: three numbers of a filter
template <typename T, typename V>
MINIRES_INLINE void transform_filter(V g0, V g1, V g2, V* to, int step) {
    const V even_p = g0 * T(1 / AT_P) + g2 * T(POINT_P2 / AT_P), odd_p = g1 * T(POINT_P / AT_P);
    const V even_q = g0 * T(1 / AT_Q) + g2 * T(POINT_Q2 / AT_Q), odd_q = g1 * T(POINT_Q / AT_Q);
    to[0] = g0 * T(1 / AT_0);
    for_both_signs(even_p, odd_p, even_q, odd_q, to, step);
    to[5 * step] = g2;
}

// A y: the transpose of transform_output, for four gradients of outputs
template <typename T, typename V>
MINIRES_INLINE void transform_gradient(V y0, V y1, V y2, V y3, V* to, int step) {
    const V even_p = y0 + y2 * T(POINT_P2), odd_p = y1 * T(POINT_P) + y3 * T(POINT_P3);
    const V even_q = y0 + y2 * T(POINT_Q2), odd_q = y1 * T(POINT_Q) + y3 * T(POINT_Q3);
    to[0] = y0;
    for_both_signs(even_p, odd_p, even_q, odd_q, to, step);
    to[5 * step] = y3;
}

// Gᵀ u: the transpose of transform_filter
template <typename T, typename V>
MINIRES_INLINE void transform_filter_back(const V* u, int step, V* to, int to_step) {
    const V sum_p = u[step] + u[2 * step], difference_p = u[step] - u[2 * step];
    const V sum_q = u[3 * step] + u[4 * step], difference_q = u[3 * step] - u[4 * step];
    to[0] = u[0] * T(1 / AT_0) + sum_p * T(1 / AT_P) + sum_q * T(1 / AT_Q);
    to[to_step] = difference_p * T(POINT_P / AT_P) + difference_q * T(POINT_Q / AT_Q);
    to[2 * to_step] = sum_p * T(POINT_P2 / AT_P) + sum_q * T(POINT_Q2 / AT_Q) + u[5 * step];
}

// A 3×3 convolution of stride 1: C channels of H×W pixels to O channels of OH×OW, in tiles of 4×4 outputs.
struct Winograd {
    long N, C, H, W, O, OH, OW, padding_h, padding_w;

    long rows() const { return ceil_div(OH, 4); }
    long columns() const { return ceil_div(OW, 4); }
    long tiles() const { return N * rows() * columns(); }
};

// The place of tile t: the image, and the row and column of its first output.
struct TileAt {
    long n, h, w;
    TileAt(const Winograd& s, long t)
        : n(t / (s.rows() * s.columns())), h(t / s.columns() % s.rows() * 4), w(t % s.columns() * 4) {}
};

// Addresses of a SIZE×SIZE square of pixels, each of the first channel; `outside` for pixels outside of the image.
template <typename T, int SIZE>
MINIRES_INLINE void square(const T* image, long H, long W, long C, long top, long left, const T* outside,
                           const T* (&at)[SIZE][SIZE]) {
    for (long r = 0; r < SIZE; r++)
        for (long c = 0; c < SIZE; c++) {
            const long h = top + r, w = left + c;
            at[r][c] = h >= 0 && h < H && w >= 0 && w < W ? image + (h * W + w) * C : outside;
        }
}

// V[point][tile][channel] = Bᵀ d B of tiles first … first + count − 1; points are `plane` numbers apart
template <typename T>
void write_inputs(const Winograd& s, const T* x, long first, long count, const T* zeros, T* v, long pitch, long plane) {
    for_each(count, [&](long i) {
        const TileAt tile(s, first + i);
        const T* at[6][6];
        square<T, 6>(x + tile.n * s.H * s.W * s.C, s.H, s.W, s.C, tile.h - s.padding_h, tile.w - s.padding_w, zeros, at);
        T* out = v + i * pitch;
        for (long c = 0; c < s.C; c += LANES<T>) {
            const long tail = tail_of<T>(s.C - c, 0);
            Vec<T> half[6][6], line[6];
#pragma GCC unroll 6
            for (int k = 0; k < 6; k++)  // down the columns
                transform_input<T>(load(at[0][k] + c, tail), load(at[1][k] + c, tail), load(at[2][k] + c, tail),
                                   load(at[3][k] + c, tail), load(at[4][k] + c, tail), load(at[5][k] + c, tail), &half[0][k], 6);
#pragma GCC unroll 6
            for (int r = 0; r < 6; r++) {
                transform_input<T>(half[r][0], half[r][1], half[r][2], half[r][3], half[r][4], half[r][5], line, 1);
                for (int k = 0; k < 6; k++) store(out + (r * 6 + k) * plane + c, line[k]);
            }
        }
    });
}

// Z[point][tile][filter] = A g Aᵀ of the gradients g of the tiles' outputs
template <typename T>
void write_gradients(const Winograd& s, const T* g, long first, long count, const T* zeros, T* z, long pitch, long plane) {
    for_each(count, [&](long i) {
        const TileAt tile(s, first + i);
        const T* at[4][4];
        square<T, 4>(g + tile.n * s.OH * s.OW * s.O, s.OH, s.OW, s.O, tile.h, tile.w, zeros, at);
        T* out = z + i * pitch;
        for (long o = 0; o < s.O; o += LANES<T>) {
            const long tail = tail_of<T>(s.O - o, 0);
            Vec<T> half[6][4], line[6];
#pragma GCC unroll 4
            for (int k = 0; k < 4; k++)
                transform_gradient<T>(load(at[0][k] + o, tail), load(at[1][k] + o, tail), load(at[2][k] + o, tail),
                                      load(at[3][k] + o, tail), &half[0][k], 4);
#pragma GCC unroll 6
            for (int r = 0; r < 6; r++) {
                transform_gradient<T>(half[r][0], half[r][1], half[r][2], half[r][3], line, 1);
                for (int k = 0; k < 6; k++) store(out + (r * 6 + k) * plane + o, line[k]);
            }
        }
    });
}

// y of the tiles from M[point][tile][filter]
template <typename T>
void write_outputs(const Winograd& s, const T* m, long first, long count, long pitch, long plane, const T* bias,
                   const Epilogue<T>& epilogue, T* y) {
    for_each(count, [&](long i) {
        const TileAt tile(s, first + i);
        const T* in = m + i * pitch;
        const long height = min(4, s.OH - tile.h), width = min(4, s.OW - tile.w);
        T* const corner = y + ((tile.n * s.OH + tile.h) * s.OW + tile.w) * s.O;
        const long added = epilogue.added ? epilogue.added - y : 0;
        for (long o = 0; o < s.O; o += LANES<T>) {
            Vec<T> half[4][6], out[4][4], line[6];
#pragma GCC unroll 6
            for (int k = 0; k < 6; k++) {
                for (int r = 0; r < 6; r++) line[r] = load(in + (r * 6 + k) * plane + o);
                transform_output<T>(line, 1, &half[0][k], 6);
            }
#pragma GCC unroll 4
            for (int r = 0; r < 4; r++) transform_output<T>(half[r], 1, out[r], 1);
            const long tail = tail_of<T>(s.O - o, 0);
            const Vec<T> start = bias ? load(bias + o, tail) : Vec<T>{};
            Vec<T> mean{}, scale{}, shift{};
            if (epilogue.scale)
                mean = load(epilogue.mean + o, tail), scale = load(epilogue.scale + o, tail), shift = load(epilogue.shift + o, tail);
            for (long r = 0; r < height; r++)
                for (long k = 0; k < width; k++) {
                    T* to = corner + (r * s.OW + k) * s.O + o;
                    const Vec<T> sum = bias ? out[r][k] + start : out[r][k];
                    store(to, apply_epilogue<T>(sum, epilogue, mean, scale, shift, epilogue.added ? load(to + added, tail) : mean), tail);
                }
        }
    });
}

template <typename T>
long transformed_size(const Filters<T>& f) {
    return POINTS * round_up(f.count, TILE_COLUMNS<T>) * f.channels;
}

// U[point] = (G g Gᵀ)[point] in the layout of `pack` (gemm.h); f.tap holds the nine taps, row by row.
template <typename T>
void write_filters(const Filters<T>& f, T* packed) {
    constexpr long S = TILE_COLUMNS<T>, LINE = 16;
    const long plane = round_up(f.count, S) * f.channels;
    const long strips = ceil_div(f.count, S), pieces = ceil_div(f.channels, LINE);
    for_each(strips * pieces, [&](long task) {
        const long strip = task / pieces, first = task % pieces * LINE, last = min(first + LINE, f.channels);
        const long o = strip * S, n = min(S, f.count - o);
        T taps[LINE][9][S];  // read filter by filter, as they lie in memory
        for (long j = 0; j < S; j++) {
            const T* filter = f.w + (o + min(j, n - 1)) * f.filter;
            for (long i = first; i < last; i++)
                for (int t = 0; t < 9; t++) taps[i - first][t][j] = j < n ? filter[i * f.channel + f.tap[t]] : T(0);
        }
        for (long i = first; i < last; i++)
            for (long j = 0; j < S; j += LANES<T>) {
                Vec<T> g[9], half[6][3], line[6];
#pragma GCC unroll 9
                for (int t = 0; t < 9; t++) g[t] = load(&taps[i - first][t][j]);
#pragma GCC unroll 3
                for (int k = 0; k < 3; k++) transform_filter<T>(g[k], g[3 + k], g[6 + k], &half[0][k], 3);
#pragma GCC unroll 6
                for (int r = 0; r < 6; r++) {
                    transform_filter<T>(half[r][0], half[r][1], half[r][2], line, 1);
                    for (int k = 0; k < 6; k++)
                        store(packed + (r * 6 + k) * plane + (strip * f.channels + i) * S + j, line[k]);
                }
            }
    });
}

// body(begin, end) for groups of tiles.  One thread computes a small group, whose numbers stay in its L2 cache.  Fewer than
// eight small groups would not keep several threads busy; then all threads compute one large group after another.
template <typename Body>
void groups_of_tiles(const Winograd& s, long small, long large, Body&& body) {
    const long tiles = s.tiles();
    if (tiles >= 8 * small) {
        const long groups = ceil_div(tiles, small);
        for_each(groups, [&](long g) { body(tiles * g / groups, tiles * (g + 1) / groups); });
    } else {
        const long groups = ceil_div(tiles, large);
        for (long g = 0; g < groups; g++) body(tiles * g / groups, tiles * (g + 1) / groups);
    }
}

// The distance from point to point: a cache line more than the tiles need.  A transform writes 36 points at once, which
// would compete for one set of the cache if their distance were a power of two.
template <typename T>
long plane_of(long tiles, long pitch) {
    return tiles * pitch + 64 / sizeof(T);
}

// The tiles whose 36 points of C + O channels fill `bytes`; a multiple of TILE_ROWS.
template <typename T>
long tiles_in(long bytes, const Winograd& s) {
    const long fit = bytes / (POINTS * (s.C + s.O) * static_cast<long>(sizeof(T)));
    return max(fit / TILE_ROWS, 1) * TILE_ROWS;
}

template <typename T>
long small_group(const Winograd& s) {
    return max(min(tiles_in<T>(WINOGRAD_SMALL, s), 8 * TILE_ROWS), WINOGRAD_LEAST);
}

// The number of segments of the tiles.  Each has its own sum; the sums are added in a fixed order.
template <typename T>
long segments_of(const Winograd& s) {
    const long fitting = WINOGRAD_SUMS / (POINTS * s.O * s.C * static_cast<long>(sizeof(T)));
    return fitting >= 4 ? min(min(fitting, 8), max(s.tiles() / 64, 1)) : 1;
}

// An upper bound on the numbers that the three passes hold beside their arguments: filters or sums, and a group of tiles.
template <typename T>
long winograd_working_size(const Winograd& s, const Filters<T>& filters) {
    const long held = max(transformed_size(filters), segments_of<T>(s) * POINTS * s.O * s.C);
    const long tiles = min(s.tiles(), max(tiles_in<T>(WINOGRAD_LARGE, s), small_group<T>(s)));
    return held + POINTS * tiles * (pitch_of<T>(s.C) + pitch_of<T>(s.O));
}

template <typename T>
void winograd_forward(const Winograd& s, const T* x, const T* u, const T* bias, const Epilogue<T>& epilogue, T* y) {
    constexpr long S = TILE_COLUMNS<T>;
    const long u_plane = round_up(s.O, S) * s.C, v_pitch = pitch_of<T>(s.C), m_pitch = pitch_of<T>(s.O);
    Buffer<T> zeros(s.C);  // the pixel outside of the image
    zero(static_cast<T*>(zeros), s.C);
    const long strips = ceil_div(s.O, S), runs = ceil_div(s.C, RUN);
    const long small = small_group<T>(s);
    groups_of_tiles(s, small, max(tiles_in<T>(WINOGRAD_LARGE, s), small), [&](long begin, long end) {
        const long count = end - begin;
        const long v_plane = plane_of<T>(count, v_pitch), m_plane = plane_of<T>(count, m_pitch);
        T* v = static_cast<T*>(scratch(Scratch::left, POINTS * v_plane * sizeof(T)));
        T* m = static_cast<T*>(scratch(Scratch::right, POINTS * m_plane * sizeof(T)));
        write_inputs<T>(s, x, begin, count, zeros, v, v_pitch, v_plane);
        const long blocks = ceil_div(count, BLOCK_ROWS);
        for_each(POINTS * blocks, [&](long task) {
            const long point = task / blocks, block = task % blocks;
            const long top = count * block / blocks, bottom = count * (block + 1) / blocks;
            T* rows[BLOCK_ROWS];
            for (long t = top; t < bottom; t++) rows[t - top] = m + point * m_plane + t * m_pitch;
            for (long strip = 0; strip < strips; strip++)
                for (long run = 0; run < runs; run++) {
                    const long first = s.C * run / runs, last = s.C * (run + 1) / runs;
                    const long column = strip * S, n = min(S, s.O - column);
                    const T* right = u + point * u_plane + strip * S * s.C + first * S;
                    const TileOptions<T> options{nullptr, run > 0, nullptr, 0};
                    panels(bottom - top, [&](long row, long height) {
                        TILES<T, false>.of[height][n > LANES<T> ? 2 : 1](
                            last - first, v + point * v_plane + (top + row) * v_pitch + first, v_pitch, right, S,
                            rows + row, column, n, options);
                    });
                }
        });
        write_outputs<T>(s, m, begin, count, m_pitch, m_plane, bias, epilogue, y);
    });
}

// grad_w (O, C, 3, 3) = Gᵀ [ Σ over tiles (A grad_y Aᵀ) ⊙ (Bᵀ d B) ] G
template <typename T>
void winograd_backward_weight(const Winograd& s, const T* grad_y, const T* x, T* grad_w) {
    constexpr long S = TILE_COLUMNS<T>;
    const long v_pitch = pitch_of<T>(round_up(s.C, S)), z_pitch = pitch_of<T>(s.O), u_plane = s.O * s.C;
    const long tiles = s.tiles();
    const long segments = segments_of<T>(s);
    const long group = segments > 1 ? small_group<T>(s) : tiles_in<T>(WINOGRAD_LARGE, s);
    Buffer<T> sums(segments * POINTS * u_plane), zeros(max(s.C, s.O));
    zero(static_cast<T*>(zeros), max(s.C, s.O));
    for_each(segments, [&](long segment) {
        const long start = tiles * segment / segments, stop = tiles * (segment + 1) / segments;
        T* const u = sums + segment * POINTS * u_plane;
        for (long begin = start; begin < stop; begin += group) {
            const long count = min(group, stop - begin);
            const long v_plane = plane_of<T>(count, v_pitch), z_plane = plane_of<T>(count, z_pitch);
            T* v = static_cast<T*>(scratch(Scratch::left, (POINTS * v_plane + S) * sizeof(T)));
            T* z = static_cast<T*>(scratch(Scratch::right, POINTS * z_plane * sizeof(T)));
            write_inputs<T>(s, x, begin, count, zeros, v, v_pitch, v_plane);
            write_gradients<T>(s, grad_y, begin, count, zeros, z, z_pitch, z_plane);
            for_each(POINTS, [&](long point) {
                for (long column = 0; column < s.C; column += S) {
                    const long n = min(S, s.C - column);
                    panels(s.O, [&](long row, long height) {
                        T* rows[TILE_ROWS];
                        for (long o = 0; o < height; o++) rows[o] = u + point * u_plane + (row + o) * s.C;
                        TILES<T, true>.of[height][n > LANES<T> ? 2 : 1](
                            count, z + point * z_plane + row, z_pitch, v + point * v_plane + column, v_pitch, rows, column, n,
                            TileOptions<T>{nullptr, begin > start, nullptr, 0});
                    });
                }
            });
        }
    });
    for_each(s.O, [&](long o) {
        T line[9][LANES<T>];
        for (long c = 0; c < s.C; c += LANES<T>) {
            const long tail = tail_of<T>(s.C - c, 0);
            Vec<T> u[POINTS], half[3][6], g[3];
            for (long p = 0; p < POINTS; p++) {
                const T* from = sums + p * u_plane + o * s.C + c;
                u[p] = load(from, tail);
                for (long k = 1; k < segments; k++) u[p] += load(from + k * POINTS * u_plane, tail);
            }
#pragma GCC unroll 6
            for (int k = 0; k < 6; k++) transform_filter_back<T>(u + k, 6, &half[0][k], 6);
#pragma GCC unroll 3
            for (int r = 0; r < 3; r++) {
                transform_filter_back<T>(half[r], 1, g, 1);
                for (int k = 0; k < 3; k++) store(line[r * 3 + k], g[k]);
            }
            T* to = grad_w + (o * s.C + c) * 9;  // (…, channel, tap)
            for (long i = 0; i < min(LANES<T>, s.C - c); i++)
                for (int t = 0; t < 9; t++) to[i * 9 + t] = line[t][i];
        }
    });
}

}  // namespace
