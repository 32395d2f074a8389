// The 16 products of matrices of Winograd's algorithm (conv_08_winograd.cu) in one launch.
//
// What changed    blockIdx.z is the number of the product.
// Why faster      one launch instead of 16, and blocks of all products fill the multiprocessors together.
// Its limit       the rate of the CUDA cores.
// Registers       127; shared memory 16.5 KiB; 2 blocks a multiprocessor; 83 % multiply-adds.  Needs sm_80.
#include "gemm_tile.cuh"

// m (16, T, O): m[z] = v[z] · u[z]ᵀ, of v (16, T, C) and u (16, O, C)
KERNEL(conv_08_products)(const real* v, const real* u, real* m, int T, int C, int O) {
    __shared__ Tile a[2], b[2];
    const int m0 = blockIdx.x * TILE, n0 = blockIdx.y * TILE;
    const long long z = blockIdx.z;
    const Strided rows{v + z * T * C, T, C, C, 1}, columns{u + z * O * C, O, C, C, 1};
    const Squares squares = squares_of_warp(TILE / 4);
    real* product = m + z * T * O;
    real sum[8][8] = {};
    accumulate_matrices(a, b, rows, columns, m0, n0, 0, squares, sum);
    store_sums(sum, squares, m0, n0, T, O, rows_by_four(product, O, O),
               [&](int tile) { return product + (long long)tile * O; });
}
