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

typedef real Tile[DEPTH][TILE + PADDING];

// The place of a thread's 8×8 sums in the tile: four 4×4 squares, `row_step` and `column_step` apart.
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

// Each warp computes 64×32 of the tile.  It reads 8 · 4 rows and 4 · 4 columns at once, fewer in total.
__device__ __forceinline__ Squares squares_of_warp() {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    return {warp / 4 * 64 + lane / 4 * 4, 32, warp % 4 * 32 + lane % 4 * 4, 16};
}

__device__ __forceinline__ void multiply_tiles(const Tile& a, const Tile& b, const Squares& at, real (&sum)[8][8]) {
#pragma unroll
    for (int k = 0; k < DEPTH; k++) {
        real4 left[2], right[2];
#pragma unroll
        for (int half = 0; half < 2; half++) {
            left[half] = *reinterpret_cast<const real4*>(&a[k][at.row + half * at.row_step]);
            right[half] = *reinterpret_cast<const real4*>(&b[k][at.column + half * at.column_step]);
        }
        const real u[8] = {left[0].x, left[0].y, left[0].z, left[0].w, left[1].x, left[1].y, left[1].z, left[1].w};
        const real v[8] = {right[0].x, right[0].y, right[0].z, right[0].w,
                           right[1].x, right[1].y, right[1].z, right[1].w};
#pragma unroll
        for (int i = 0; i < 8; i++)
#pragma unroll
            for (int j = 0; j < 8; j++) sum[i][j] += u[i] * v[j];
    }
}

// Calls store(line of A, line of B, sum) for each of the thread's sums inside of M × N.
template <class Store>
__device__ __forceinline__ void store_sums(const real (&sum)[8][8], const Squares& at, int m0, int n0, int M, int N,
                                           Store store) {
#pragma unroll
    for (int i = 0; i < 8; i++)
#pragma unroll
        for (int j = 0; j < 8; j++) {
            const int m = m0 + at.row_of(i), n = n0 + at.column_of(j);
            if (m < M && n < N) store(m, n, sum[i][j]);
        }
}

// An operand that is a matrix in memory.  `address(line, k)` is the address of an element, or null outside of the matrix.
struct Strided {
    const real* data;
    int lines, line_step, depth, depth_step;

    __device__ const real* address(int line, int k) const {
        return line < lines && k < depth ? data + at(line, line_step, k, depth_step) : nullptr;
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
        for (int i = 0; i < 4; i++) tile[share.k + i][share.line] = value[i];  // transposed on the way
    } else {
        *reinterpret_cast<real4*>(&tile[share.k][share.line]) = real4{value[0], value[1], value[2], value[3]};
    }
}

// Like load_tile, but by cp.async: the tile is complete after cp_async_wait and a barrier.
template <bool ALONG_K, class Operand>
__device__ __forceinline__ void load_tile_async(Tile& tile, const Operand& operand, int line0, int k0, bool by_four) {
    const Share<ALONG_K> share;
    const real* anywhere = operand.data;  // a valid address for copies of zero bytes
    if (by_four) {
        const real* address = operand.address(line0 + share.line, k0 + share.k);
        const real* from = address ? address : anywhere;
        if (ALONG_K) {
#pragma unroll
            for (int i = 0; i < 4; i++)
                cp_async_one(&tile[share.k + i][share.line], address ? from + i : from, address != nullptr);
        } else {
#pragma unroll
            for (int part = 0; part < 4; part += 16 / sizeof(real))
                cp_async_16(&tile[share.k][share.line + part], address ? from + part : from, address ? 16 : 0);
        }
        return;
    }
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const real* address = operand.address(line0 + share.line_of(i), k0 + share.k_of(i));
        cp_async_one(&tile[share.k_of(i)][share.line_of(i)], address ? address : anywhere, address != nullptr);
    }
}

// Whether a matrix can be read by fours along its contiguous dimension.
__device__ __forceinline__ bool by_four_along(const real* data, int contiguous_size, int other_step) {
    return is_aligned(data) && contiguous_size % 4 == 0 && other_step % 4 == 0;
}

// sum += Σ_k a(m, k) · b(n, k) for k in [begin, end), double-buffered: the next pair of tiles is copied while one pair is
// multiplied.  All threads call load_a(tile, k0) and load_b(tile, k0), which use cp.async.
template <class LoadA, class LoadB>
__device__ __forceinline__ void accumulate(Tile (&a)[2], Tile (&b)[2], LoadA load_a, LoadB load_b, int begin, int end,
                                           const Squares& at, real (&sum)[8][8]) {
    int stage = 0;
    if (begin < end) {
        load_a(a[0], begin);
        load_b(b[0], begin);
    }
    cp_async_commit();
    for (int k0 = begin; k0 < end; k0 += DEPTH) {
        if (k0 + DEPTH < end) {
            load_a(a[stage ^ 1], k0 + DEPTH);
            load_b(b[stage ^ 1], k0 + DEPTH);
        }
        cp_async_commit();
        cp_async_wait(1);  // this thread's copies of this stage have arrived
        __syncthreads();   // the other threads' copies too
        multiply_tiles(a[stage], b[stage], at, sum);
        __syncthreads();  // before the tiles are overwritten
        stage ^= 1;
    }
}
