// The 128×128 tile of C on the tensor cores: 8 warps of 64×32, each 4×4 products of 16×8.
//
// Both operands are stored as [line][k], k contiguous, as ldmatrix and mma.sync expect.
#pragma once
#include "ptx.cuh"
#include "tile.cuh"

#ifndef MINIRES_DOUBLE

constexpr int MMA_TILE = 128;
constexpr int MMA_DEPTH = 16;  // of K at a time in tf32; in bf16 twice as many

// 64 bytes a line (16 tf32 or 32 bf16), in four chunks of 16 bytes.  Chunks are exchanged such that the same chunk of
// eight neighbouring lines, and the eight chunks of two lines, lie in different banks.
struct alignas(128) MmaTile {
    unsigned char line[MMA_TILE][64];

    __device__ unsigned char* chunk(int number, int which) { return line[number] + ((number / 2) ^ which) % 4 * 16; }
    __device__ const unsigned char* chunk(int number, int which) const {
        return const_cast<MmaTile*>(this)->chunk(number, which);
    }
};

// Two neighbours, stored by one instruction.
template <class T>
struct alignas(8) Two {
    T x, y;
};

// A thread's sums, [16 rows][8 columns][register], in the layout of mma.sync.
typedef float MmaSums[4][4][4];

struct MmaWarp {
    int row, column, lane;

    __device__ MmaWarp() : row(threadIdx.x / 32 / 4 * 64), column(threadIdx.x / 32 % 4 * 32), lane(threadIdx.x % 32) {}
};

// Loads a fragment of A, 16 lines × 32 bytes, as four matrices: lines 0–7 and 8–15, of the first chunk and the second.
__device__ __forceinline__ void load_fragment_a(unsigned (&a)[4], const MmaTile& tile, int line, int chunk, int lane) {
    ldmatrix_x4(a, tile.chunk(line + lane % 16, chunk + lane / 16));
}

// Loads the fragments of B of two adjacent products: lines 0–7 (both halves of k), then lines 8–15.
__device__ __forceinline__ void load_fragments_b(unsigned (&b)[4], const MmaTile& tile, int line, int chunk, int lane) {
    ldmatrix_x4(b, tile.chunk(line + lane / 16 * 8 + lane % 8, chunk + lane / 8 % 2));
}

enum Precision { TF32, BF16, TF32_THRICE };

// Splits floats into the nearest tf32 and what is left of them, rounded to tf32 too: 22 bits together.
template <int COUNT>
__device__ __forceinline__ void split_tf32(unsigned (&number)[COUNT], unsigned (&rest)[COUNT]) {
#pragma unroll
    for (int i = 0; i < COUNT; i++) {
        const float whole = __uint_as_float(number[i]);
        number[i] = to_tf32(whole);
        rest[i] = to_tf32(whole - __uint_as_float(number[i]));
    }
}

template <Precision PRECISION>
__device__ __forceinline__ void multiply_mma(const MmaTile& a, const MmaTile& b, const MmaWarp& warp, MmaSums& sum) {
#pragma unroll
    for (int chunk = 0; chunk < 4; chunk += 2) {  // 8 tf32 or 16 bf16 at a time
        unsigned right[4][2], right_rest[4][2];
#pragma unroll
        for (int j = 0; j < 4; j += 2) {
            unsigned two[4];
            load_fragments_b(two, b, warp.column + 8 * j, chunk, warp.lane);
            right[j][0] = two[0], right[j][1] = two[1], right[j + 1][0] = two[2], right[j + 1][1] = two[3];
        }
#pragma unroll
        for (int j = 0; j < 4; j++) {
            if (PRECISION == TF32_THRICE) split_tf32(right[j], right_rest[j]);
            if (PRECISION == TF32)
                for (unsigned& number : right[j]) number = to_tf32(__uint_as_float(number));
        }
#pragma unroll
        for (int i = 0; i < 4; i++) {
            unsigned left[4], left_rest[4];
            load_fragment_a(left, a, warp.row + 16 * i, chunk, warp.lane);
            if (PRECISION == TF32_THRICE) split_tf32(left, left_rest);
            if (PRECISION == TF32)
                for (unsigned& number : left) number = to_tf32(__uint_as_float(number));
#pragma unroll
            for (int j = 0; j < 4; j++) {
                if (PRECISION == TF32_THRICE) {  // the small products first; rest · rest is below float's precision
                    mma_m16n8k8_tf32(sum[i][j], left_rest, right[j]);
                    mma_m16n8k8_tf32(sum[i][j], left, right_rest[j]);
                }
                if (PRECISION == BF16) mma_m16n8k16_bf16(sum[i][j], left, right[j]);
                else mma_m16n8k8_tf32(sum[i][j], left, right[j]);
            }
        }
    }
}

// Stores the thread's sums inside of M × N, two neighbours at a time with `by_two`.  row_of(m) is the address of row m.
template <class RowOf>
__device__ __forceinline__ void store_mma(const MmaSums& sum, const MmaWarp& warp, int m0, int n0, int M, int N,
                                          bool by_two, RowOf row_of) {
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int m = m0 + warp.row + 16 * i + warp.lane / 4 + half * 8;
            if (m >= M) continue;
            float* row = row_of(m);
#pragma unroll
            for (int j = 0; j < 4; j++) {
                const int n = n0 + warp.column + 8 * j + warp.lane % 4 * 2;
                const Two<float> two{sum[i][j][2 * half], sum[i][j][2 * half + 1]};
                if (by_two && n < N) *reinterpret_cast<Two<float>*>(row + n) = two;
                else {
                    if (n < N) row[n] = two.x;
                    if (n + 1 < N) row[n + 1] = two.y;
                }
            }
        }
}

// How a block copies a tile of 16 floats a line by cp.async: a thread copies COUNT times.
//
// by_four     16 bytes along k: a warp reads 64 bytes of 8 lines, 16 sectors
// otherwise   one number; a warp reads 32 lines of one k, 4 sectors if the lines are contiguous
template <bool BY_FOUR>
struct MmaPart {
    static constexpr int COUNT = BY_FOUR ? 2 : 8, LINES_APART = BY_FOUR ? 64 : 0, K_APART = BY_FOUR ? 0 : 2;
    int line, k;

    __device__ MmaPart() {
        line = BY_FOUR ? threadIdx.x / 4 : threadIdx.x % 128;
        k = BY_FOUR ? threadIdx.x % 4 * 4 : threadIdx.x / 128;
    }
    __device__ void copy(MmaTile& tile, int i, const float* from, bool inside) const {
        const int place = k + i * K_APART;
        unsigned char* to = tile.chunk(line + i * LINES_APART, place / 4) + place % 4 * 4;
        if (BY_FOUR) cp_async_16(to, from, inside ? 16 : 0);
        else cp_async_4(to, from, inside ? 4 : 0);
    }
};

// Copies the tiles of a matrix one after another.
template <bool BY_FOUR>
struct MmaCopies {
    const MmaPart<BY_FOUR> part;
    const float* from;
    long long apart, step;
    int lines, depth;  // how many are left from this thread's first one on

    __device__ MmaCopies(const Strided& operand, int line0)
        : from(operand.data + at(line0 + part.line, operand.line_step, part.k, operand.depth_step)),
          apart(at(part.LINES_APART, operand.line_step, part.K_APART, operand.depth_step)),
          step((long long)MMA_DEPTH * operand.depth_step),
          lines(operand.lines - line0 - part.line),
          depth(operand.depth - part.k) {}

    __device__ void operator()(MmaTile& tile) {
#pragma unroll
        for (int i = 0; i < part.COUNT; i++)
            part.copy(tile, i, from + i * apart, i * part.K_APART < depth && i * part.LINES_APART < lines);
        from += step;
        depth -= MMA_DEPTH;
    }
};

// Calls use(copies) with the copies that suit the operand.
template <class Use>
__device__ __forceinline__ void with_mma_copies(const Strided& operand, int line0, Use use) {
    if (operand.depth_by_four()) use(MmaCopies<true>(operand, line0));
    else use(MmaCopies<false>(operand, line0));
}

// Fills a tile with 32 bf16 a line, rounded from the floats of the operand, which are read two at a time: neighbours along
// k by two threads a line, or neighbouring lines by neighbouring threads.
template <class Operand>
__device__ __forceinline__ void load_mma_bf16(MmaTile& tile, const Operand& operand, int line0, int k0, bool along_k) {
    const int t = threadIdx.x, line = along_k ? t / 2 : t % 128, k = (along_k ? t % 2 : t / 128) * 16;
#pragma unroll
    for (int i = 0; i < 16; i += 2) {
        const float* low = operand.address(line0 + line, k0 + k + i);
        const float* high = operand.address(line0 + line, k0 + k + i + 1);
        *reinterpret_cast<unsigned*>(tile.chunk(line, (k + i) / 8) + i % 8 * 2) =
            to_bf16_pair(low ? *low : 0, high ? *high : 0);
    }
}

// A thread's part of such a tile if four neighbours along k are contiguous: a warp reads 128 bytes of 4 lines.  address(i)
// is that of line `line` + 32 · i, or null outside.
template <class Address>
__device__ __forceinline__ void load_mma_bf16_by_four(MmaTile& tile, int line, int k, Address address) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const float* from = address(i);
        const real4 four = from ? *reinterpret_cast<const real4*>(from) : real4{0, 0, 0, 0};
        *reinterpret_cast<Two<unsigned>*>(tile.chunk(line + 32 * i, k / 8) + k % 8 * 2) =
            Two<unsigned>{to_bf16_pair(four.x, four.y), to_bf16_pair(four.z, four.w)};
    }
}

// sum += Σ_k a(m, k) · b(n, k) in tf32 over `steps` pairs of tiles, double-buffered like `accumulate` of tile.cuh.
template <Precision PRECISION, class CopyA, class CopyB>
__device__ __forceinline__ void accumulate_tf32(MmaTile (&a)[2], MmaTile (&b)[2], CopyA copy_a, CopyB copy_b, int steps,
                                                const MmaWarp& warp, MmaSums& sum) {
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
        multiply_mma<PRECISION>(a[stage], b[stage], warp, sum);
        stage ^= 1;
    }
}

// The same for two matrices.
template <Precision PRECISION>
__device__ __forceinline__ void accumulate_matrices_tf32(MmaTile (&a)[2], MmaTile (&b)[2], const Strided& rows,
                                                         const Strided& columns, int m0, int n0, const MmaWarp& warp,
                                                         MmaSums& sum) {
    const int steps = (rows.depth + MMA_DEPTH - 1) / MMA_DEPTH;
    with_mma_copies(rows, m0, [&](const auto& copy_a) {
        with_mma_copies(columns, n0, [&](const auto& copy_b) {
            accumulate_tf32<PRECISION>(a, b, copy_a, copy_b, steps, warp, sum);
        });
    });
}

#endif
