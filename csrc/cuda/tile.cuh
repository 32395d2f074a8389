// The 128×128 tile of C that a block of 256 threads computes through shared memory.
//
// Both operands are stored as [k][line], where a line is a row of A or a column of B.  For each k a thread reads
// neighbours, four at a time.  The padding spreads the columns of a transposed store over the banks.
#pragma once
#include "common.cuh"
#include "ptx.cuh"

constexpr int TILE = 128;    // lines of A and of B in a tile
constexpr int DEPTH = 8;     // of K at a time
constexpr int PADDING = 4;
constexpr int THREADS = 256;

#undef BOUNDS
#define BOUNDS TWO_BLOCKS

template <int LINES>
struct alignas(16) TileOf {
    real row[DEPTH][LINES + PADDING];
};
typedef TileOf<TILE> Tile;

// The place of a thread's sums in the tile: 4×4 squares, two down and one or more across, `row_step` and `column_step`
// apart.
struct Squares {
    int row, row_step, column, column_step;

    __device__ int row_of(int i) const { return row + i / 4 * row_step + i % 4; }
    __device__ int column_of(int j) const { return column + j / 4 * column_step + j % 4; }
};

// 16×16 threads over the whole tile.  A warp reads 2 · 4 rows and 16 · 4 columns at once, without bank conflicts.
__device__ __forceinline__ Squares squares_of_block() {
    const int t = threadIdx.x;
    return {t / 16 * 4, 64, t % 16 * 4, 64};
}

// Each warp computes 64 rows of the tile and `columns` columns, a quarter of the tile's width: 8×4 lanes.  Lanes l and
// l + 1 (l even) read the same row, lanes l and l + 2 mostly the same column.  Then a warp's 16-byte read costs two
// wavefronts instead of four.
__device__ __forceinline__ Squares squares_of_warp(int columns) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    return {warp / 4 * 64 + lane / 2 % 8 * 4, 32, warp % 4 * columns + (lane % 2 + lane / 16 * 2) * 4, 16};
}

// The numbers of one k that a thread multiplies.
template <int COUNT, int WIDTH>
__device__ __forceinline__ void load_fragment(real (&fragment)[COUNT], const real (&row)[WIDTH], int first, int step) {
#pragma unroll
    for (int i = 0; i < COUNT; i += 4) {
        const real4 four = *reinterpret_cast<const real4*>(&row[first + i / 4 * step]);
        fragment[i] = four.x, fragment[i + 1] = four.y, fragment[i + 2] = four.z, fragment[i + 3] = four.w;
    }
}

// The fragments of the next k are loaded before those of this k are multiplied.
template <class TileB, int COLUMNS>
__device__ __forceinline__ void multiply_tiles(const Tile& a, const TileB& b, const Squares& at,
                                               real (&sum)[8][COLUMNS]) {
    real left[2][8], right[2][COLUMNS];
    load_fragment(left[0], a.row[0], at.row, at.row_step);
    load_fragment(right[0], b.row[0], at.column, at.column_step);
#pragma unroll
    for (int k = 0; k < DEPTH; k++) {
        if (k + 1 < DEPTH) {
            load_fragment(left[(k + 1) % 2], a.row[k + 1], at.row, at.row_step);
            load_fragment(right[(k + 1) % 2], b.row[k + 1], at.column, at.column_step);
        }
#pragma unroll
        for (int i = 0; i < 8; i++)
#pragma unroll
            for (int j = 0; j < COLUMNS; j++) sum[i][j] += left[k % 2][i] * right[k % 2][j];
    }
}

// Whether rows of N numbers, `row` apart, can be stored by fours.
__device__ __forceinline__ bool rows_by_four(const real* first, int N, long long row) {
    return is_aligned(first) && N % 4 == 0 && row % 4 == 0;
}

struct Unchanged {
    __device__ real operator()(int, int, real value) const { return value; }
};

// Stores finish(line of A, line of B, sum) of the thread's sums inside of M × N.  row_of(m) is the address of row m.
template <int COLUMNS, class RowOf, class Finish = Unchanged>
__device__ __forceinline__ void store_sums(const real (&sum)[8][COLUMNS], const Squares& at, int m0, int n0, int M,
                                           int N, bool by_four, RowOf row_of, Finish finish = {}) {
#pragma unroll
    for (int i = 0; i < 8; i++) {
        const int m = m0 + at.row_of(i);
        if (m >= M) continue;
        real* row = row_of(m);
#pragma unroll
        for (int j = 0; j < COLUMNS; j += 4) {
            const int n = n0 + at.column_of(j);
            if (by_four && n < N) {
                *reinterpret_cast<real4*>(row + n) = {finish(m, n, sum[i][j]), finish(m, n + 1, sum[i][j + 1]),
                                                      finish(m, n + 2, sum[i][j + 2]), finish(m, n + 3, sum[i][j + 3])};
                continue;
            }
#pragma unroll
            for (int c = 0; c < 4; c++)
                if (n + c < N) row[n + c] = finish(m, n + c, sum[i][j + c]);
        }
    }
}

// An operand that is a matrix in memory.  `address(line, k)` is the address of an element, or null outside of the matrix.
struct Strided {
    const real* data;
    int lines, line_step, depth, depth_step;

    __device__ const real* address(int line, int k) const {
        return line < lines && k < depth ? data + at(line, line_step, k, depth_step) : nullptr;
    }
    // Whether neighbours lie along k, not along the lines.
    __device__ bool along_k() const { return depth_step == 1 && line_step != 1; }
    // Whether four neighbours along k are contiguous, aligned, and all inside if the first is.
    __device__ bool depth_by_four() const {
        return depth_step == 1 && is_aligned(data) && depth % 4 == 0 && line_step % 4 == 0;
    }
    // Whether four neighbouring lines are contiguous, aligned, and all inside if the first is.
    __device__ bool lines_by_four() const {
        return line_step == 1 && is_aligned(data) && lines % 4 == 0 && depth_step % 4 == 0;
    }
};

// The four elements of a tile that a thread loads: neighbours along k (two threads a line) or along the lines.
template <bool ALONG_K>
struct Share {
    int line, k;

    __device__ Share()
        : line(ALONG_K ? threadIdx.x / 2 : threadIdx.x % 32 * 4), k(ALONG_K ? threadIdx.x % 2 * 4 : threadIdx.x / 32) {}
    __device__ int line_of(int i) const { return ALONG_K ? line : line + i; }
    __device__ int k_of(int i) const { return ALONG_K ? k + i : k; }
};

// Fills a tile through registers.  With `by_four` a share is one load: its four elements are contiguous, aligned, and all
// inside of the operand if the first is.
template <bool ALONG_K, class Operand>
__device__ __forceinline__ void load_tile(Tile& tile, const Operand& operand, int line0, int k0, bool by_four) {
    const Share<ALONG_K> share;
    real value[4];
    if (by_four) {
        const real* address = operand.address(line0 + share.line, k0 + share.k);
        const real4 four = address ? *reinterpret_cast<const real4*>(address) : real4{0, 0, 0, 0};
        value[0] = four.x, value[1] = four.y, value[2] = four.z, value[3] = four.w;
    } else {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const real* address = operand.address(line0 + share.line_of(i), k0 + share.k_of(i));
            value[i] = address ? *address : 0;
        }
    }
    if (ALONG_K) {
#pragma unroll
        for (int i = 0; i < 4; i++) tile.row[share.k + i][share.line] = value[i];  // transposed on the way
    } else {
        *reinterpret_cast<real4*>(&tile.row[share.k][share.line]) = real4{value[0], value[1], value[2], value[3]};
    }
}

// How a block copies a tile by cp.async: a thread copies COUNT times, from lines APART apart, all of the same k.
//
// by_four     16 bytes along the lines: a warp reads 512 contiguous bytes, 16 sectors of 32 bytes
// along_k     one number; a warp reads 8 of k from 4 lines, 4 sectors
// otherwise   one number; a warp reads 32 lines of one k, 4 sectors
template <bool BY_FOUR, int LINES>
struct Part {
    static constexpr int APART = THREADS / DEPTH * (BY_FOUR ? 4 : 1);
    static constexpr int COUNT = LINES / APART;
    int line, k;

    __device__ explicit Part(bool along_k) {
        const int t = threadIdx.x;
        line = BY_FOUR ? t % (APART / 4) * 4 : along_k ? t / DEPTH : t % APART;
        k = BY_FOUR ? t / (APART / 4) : along_k ? t % DEPTH : t / APART;
    }
    __device__ void copy(TileOf<LINES>& tile, int i, const real* from, bool inside) const {
        real* to = &tile.row[k][line + i * APART];
        if (!BY_FOUR) cp_async_one(to, from, inside);
        else
#pragma unroll
            for (int part = 0; part < 4; part += 16 / sizeof(real)) cp_async_16(to + part, from + part, inside ? 16 : 0);
    }
};

// Copies the tiles of a matrix one after another, from k0 on.  A copy from outside of the matrix writes zeros and reads
// nothing.
template <bool BY_FOUR, int LINES>
struct Copies {
    const Part<BY_FOUR, LINES> part;
    const real* from;
    long long apart, step;
    int lines, depth;  // how many are left from this thread's first one on

    __device__ Copies(const Strided& operand, int line0, int k0)
        : part(operand.along_k()),
          from(operand.data + at(line0 + part.line, operand.line_step, k0 + part.k, operand.depth_step)),
          apart((long long)part.APART * operand.line_step),
          step((long long)DEPTH * operand.depth_step),
          lines(operand.lines - line0 - part.line),
          depth(operand.depth - k0 - part.k) {}

    __device__ void operator()(TileOf<LINES>& tile) {
#pragma unroll
        for (int i = 0; i < part.COUNT; i++) part.copy(tile, i, from + i * apart, depth > 0 && i * part.APART < lines);
        from += step;
        depth -= DEPTH;
    }
};

// sum += Σ_k a(m, k) · b(n, k) over `steps` pairs of tiles.  The next pair is copied while one pair is multiplied.  All
// threads call copy_a(tile) and copy_b(tile), which use cp.async and go on to the next tile.
template <class TileB, class CopyA, class CopyB, int COLUMNS>
__device__ __forceinline__ void accumulate(Tile (&a)[2], TileB (&b)[2], CopyA copy_a, CopyB copy_b, int steps,
                                           const Squares& at, real (&sum)[8][COLUMNS]) {
    if (steps > 0) {
        copy_a(a[0]);
        copy_b(b[0]);
    }
    cp_async_commit();
    int stage = 0;
    for (int step = 1; step <= steps; step++) {
        cp_async_wait(0);  // this thread's copies of this stage have arrived
        __syncthreads();   // the other threads' copies too, and no thread reads the other stage any more
        if (step < steps) {
            copy_a(a[stage ^ 1]);
            copy_b(b[stage ^ 1]);
        }
        cp_async_commit();
        multiply_tiles(a[stage], b[stage], at, sum);
        stage ^= 1;
    }
}
