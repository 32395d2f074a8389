// The 128×128 tile of C on the tensor cores: 8 warps of 64×32, each 4×4 products of 16×8.
//
// Both operands are stored as [line][k], k contiguous, as ldmatrix and mma.sync expect.  A row has 80 bytes, so the eight
// rows of a matrix are in different banks.
#pragma once
#include "common.cuh"
#include "ptx.cuh"

#ifndef MINIRES_DOUBLE

constexpr int MMA_TILE = 128;
constexpr int ROW_BYTES = 80;  // 64 of numbers (16 tf32 or 32 bf16), 16 of padding

struct alignas(16) MmaTile {
    unsigned char row[MMA_TILE][ROW_BYTES];
};

// A thread's sums, [16 rows][8 columns][register], in the layout of mma.sync.
typedef float MmaSums[4][4][4];

struct MmaWarp {
    int row, column, lane;

    __device__ MmaWarp() : row(threadIdx.x / 32 / 4 * 64), column(threadIdx.x / 32 % 4 * 32), lane(threadIdx.x % 32) {}
};

// Loads a fragment of A, 16 lines × 32 bytes, as four matrices: lines 0–7 and 8–15, of the first 16 bytes and the second.
__device__ __forceinline__ void load_fragment_a(unsigned (&a)[4], const MmaTile& tile, int line, int byte, int lane) {
    ldmatrix_x4(a, &tile.row[line + lane % 16][byte + lane / 16 * 16]);
}

// Loads the fragments of B of two adjacent products: lines 0–7 (both halves of k), then lines 8–15.
__device__ __forceinline__ void load_fragments_b(unsigned (&b)[4], const MmaTile& tile, int line, int byte, int lane) {
    ldmatrix_x4(b, &tile.row[line + lane / 16 * 8 + lane % 8][byte + lane / 8 % 2 * 16]);
}

template <bool BF16>
__device__ __forceinline__ void multiply_mma(const MmaTile& a, const MmaTile& b, const MmaWarp& warp, MmaSums& sum) {
#pragma unroll
    for (int byte = 0; byte < 64; byte += 32) {  // 8 tf32 or 16 bf16 at a time
        unsigned left[4][4], right[4][2];
#pragma unroll
        for (int i = 0; i < 4; i++) load_fragment_a(left[i], a, warp.row + 16 * i, byte, warp.lane);
#pragma unroll
        for (int j = 0; j < 4; j += 2) {
            unsigned two[4];
            load_fragments_b(two, b, warp.column + 8 * j, byte, warp.lane);
            right[j][0] = two[0], right[j][1] = two[1], right[j + 1][0] = two[2], right[j + 1][1] = two[3];
        }
        if (!BF16) {  // to the nearest tf32, because the tensor core truncates
#pragma unroll
            for (int i = 0; i < 4; i++) {
#pragma unroll
                for (int r = 0; r < 4; r++) left[i][r] = to_tf32(__uint_as_float(left[i][r]));
#pragma unroll
                for (int r = 0; r < 2; r++) right[i][r] = to_tf32(__uint_as_float(right[i][r]));
            }
        }
#pragma unroll
        for (int i = 0; i < 4; i++)
#pragma unroll
            for (int j = 0; j < 4; j++) {
                if (BF16) mma_m16n8k16_bf16(sum[i][j], left[i], right[j]);
                else mma_m16n8k8_tf32(sum[i][j], left[i], right[j]);
            }
    }
}

template <class Store>
__device__ __forceinline__ void store_mma(const MmaSums& sum, const MmaWarp& warp, int m0, int n0, int M, int N,
                                          Store store) {
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 4; j++)
#pragma unroll
            for (int r = 0; r < 4; r++) {
                const int m = m0 + warp.row + 16 * i + warp.lane / 4 + r / 2 * 8;
                const int n = n0 + warp.column + 8 * j + warp.lane % 4 * 2 + r % 2;
                if (m < M && n < N) store(m, n, sum[i][j][r]);
            }
}

// Fills a tile with 16 floats a line by cp.async.  A thread copies 8 of one line.
template <class Operand>
__device__ __forceinline__ void load_mma_async(MmaTile& tile, const Operand& operand, int line0, int k0, bool by_four) {
    const int line = threadIdx.x / 2, k = threadIdx.x % 2 * 8;
    float* row = reinterpret_cast<float*>(tile.row[line]) + k;
    const float* anywhere = operand.data;
    if (by_four) {
#pragma unroll
        for (int i = 0; i < 8; i += 4) {
            const float* address = operand.address(line0 + line, k0 + k + i);
            cp_async_16(row + i, address ? address : anywhere, address ? 16 : 0);
        }
        return;
    }
#pragma unroll
    for (int i = 0; i < 8; i++) {
        const float* address = operand.address(line0 + line, k0 + k + i);
        cp_async_4(row + i, address ? address : anywhere, address ? 4 : 0);
    }
}

// Fills a tile with 32 bf16 a line, rounded from floats.  A thread loads 16 of one line.
template <class Operand>
__device__ __forceinline__ void load_mma_bf16(MmaTile& tile, const Operand& operand, int line0, int k0) {
    const int line = threadIdx.x / 2, k = threadIdx.x % 2 * 16;
    unsigned* row = reinterpret_cast<unsigned*>(tile.row[line]) + k / 2;
#pragma unroll
    for (int i = 0; i < 16; i += 2) {
        const float* low = operand.address(line0 + line, k0 + k + i);
        const float* high = operand.address(line0 + line, k0 + k + i + 1);
        row[i / 2] = to_bf16_pair(low ? *low : 0, high ? *high : 0);
    }
}

// sum += Σ_k a(m, k) · b(n, k) in tf32, double-buffered like `accumulate` of tile.cuh, 16 of K at a time.
template <class LoadA, class LoadB>
__device__ __forceinline__ void accumulate_tf32(MmaTile (&a)[2], MmaTile (&b)[2], LoadA load_a, LoadB load_b, int K,
                                                const MmaWarp& warp, MmaSums& sum) {
    int stage = 0;
    load_a(a[0], 0);
    load_b(b[0], 0);
    cp_async_commit();
    for (int k0 = 0; k0 < K; k0 += 16) {
        if (k0 + 16 < K) {
            load_a(a[stage ^ 1], k0 + 16);
            load_b(b[stage ^ 1], k0 + 16);
        }
        cp_async_commit();
        cp_async_wait(1);
        __syncthreads();
        multiply_mma<false>(a[stage], b[stage], warp, sum);
        __syncthreads();
        stage ^= 1;
    }
}

#endif
