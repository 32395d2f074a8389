// Winograd's F(2×2, 3×3) (Lavin and Gray, arXiv:1509.09308): 3×3 filters, stride 1, no dilation.
//
// What changed    16 multiplications instead of 36 compute 2×2 outputs from a 4×4 patch of x:
//                 Y = Aᵀ [ (G g Gᵀ) ⊙ (Bᵀ d B) ] A.  Summed over the channels, ⊙ is 16 products of matrices,
//                 (tiles × C) · (C × O), in one launch (conv_08_products.cu) or by gemm_*.  The three kernels here are
//                 the transforms.
// Why faster      2.25 times fewer multiplications.
// Its limit       the transformed patches are four times as large as x, and are written and read once.
// Error           a few times that of the direct sum, relative to the whole patch: a huge pixel affects all its outputs.
//                 A NaN or an infinity reaches only the outputs that see it.
// Registers       32; no shared memory; 8 blocks a multiprocessor.  Needs sm_80.
#include "conv.cuh"

// u (16, O, C) = G g Gᵀ of each filter
KERNEL(conv_08_filters)(const real* w, real* u, int O, int C) {
    const int c = blockIdx.y * blockDim.x + threadIdx.x, o = blockIdx.x * blockDim.y + threadIdx.y;
    if (c >= C || o >= O) return;
    real half[4][3];
#pragma unroll
    for (int q = 0; q < 3; q++) {
        const real g0 = w[(((long long)o * 3 + 0) * 3 + q) * C + c];
        const real g1 = w[(((long long)o * 3 + 1) * 3 + q) * C + c];
        const real g2 = w[(((long long)o * 3 + 2) * 3 + q) * C + c];
        half[0][q] = g0;
        half[1][q] = (g0 + g1 + g2) / 2;
        half[2][q] = (g0 - g1 + g2) / 2;
        half[3][q] = g2;
    }
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const real g0 = half[i][0], g1 = half[i][1], g2 = half[i][2];
        const real row[4] = {g0, (g0 + g1 + g2) / 2, (g0 - g1 + g2) / 2, g2};
#pragma unroll
        for (int j = 0; j < 4; j++) u[((long long)(4 * i + j) * O + o) * C + c] = row[j];
    }
}

// v (16, T, C) = Bᵀ d B of each 4×4 patch; T = N · TH · TW patches, two pixels apart
KERNEL(conv_08_patches)(const real* x, real* v, int TH, int TW, CONV_ARGUMENTS) {
    const int c = blockIdx.y * blockDim.x + threadIdx.x, tile = blockIdx.x * blockDim.y + threadIdx.y;
    const int T = N * TH * TW;
    if (c >= C || tile >= T) return;
    const int j = tile % TW * 2 - pw, i = tile / TW % TH * 2 - ph, n = tile / (TW * TH);
    real half[4][4];
#pragma unroll
    for (int q = 0; q < 4; q++) {
        real d[4];
#pragma unroll
        for (int p = 0; p < 4; p++) {
            const int row = i + p, column = j + q;
            const bool inside = row >= 0 && row < H && column >= 0 && column < W;
            d[p] = inside ? x[(((long long)n * H + row) * W + column) * x_pixel + c] : 0;
        }
        half[0][q] = d[0] - d[2];
        half[1][q] = d[1] + d[2];
        half[2][q] = d[2] - d[1];
        half[3][q] = d[1] - d[3];
    }
#pragma unroll
    for (int p = 0; p < 4; p++) {
        const real* d = half[p];
        const real row[4] = {d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3]};
#pragma unroll
        for (int q = 0; q < 4; q++) v[((long long)(4 * p + q) * T + tile) * C + c] = row[q];
    }
}

// y = Aᵀ m A of each patch; m (16, T, O)
KERNEL(conv_08_outputs)(const real* m, real* y, int TH, int TW, CONV_ARGUMENTS) {
    const int o = blockIdx.y * blockDim.x + threadIdx.x, tile = blockIdx.x * blockDim.y + threadIdx.y;
    const int T = N * TH * TW;
    if (o >= O || tile >= T) return;
    const int j = tile % TW * 2, i = tile / TW % TH * 2, n = tile / (TW * TH);
    real half[2][4];
#pragma unroll
    for (int q = 0; q < 4; q++) {
        real e[4];
#pragma unroll
        for (int p = 0; p < 4; p++) e[p] = m[((long long)(4 * p + q) * T + tile) * O + o];
        half[0][q] = e[0] + e[1] + e[2];
        half[1][q] = e[1] - e[2] - e[3];
    }
#pragma unroll
    for (int p = 0; p < 2; p++) {
        const real out[2] = {half[p][0] + half[p][1] + half[p][2], half[p][1] - half[p][2] - half[p][3]};
#pragma unroll
        for (int q = 0; q < 2; q++)
            if (i + p < OH && j + q < OW) y[(((long long)n * OH + i + p) * OW + j + q) * y_pixel + o] = out[q];
    }
}
