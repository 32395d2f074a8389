// Shared by the rungs that copy by cp.async: one block's tile of a product of two matrices in memory.
#pragma once
#include "tile.cuh"

// Calls use(copies) with the copies that suit the operand.  Each way has its own loop, without branches inside.
template <int LINES, class Use>
__device__ __forceinline__ void with_copies(const Strided& operand, int line0, int k0, Use use) {
    if (operand.lines_by_four()) use(Copies<true, LINES>(operand, line0, k0));
    else use(Copies<false, LINES>(operand, line0, k0));
}

// sum += the terms begin … of K; m0, n0: the tile's first row and column.
template <int LINES, int COLUMNS>
__device__ __forceinline__ void accumulate_matrices(Tile (&a)[2], TileOf<LINES> (&b)[2], const Strided& rows,
                                                    const Strided& columns, int m0, int n0, int begin,
                                                    const Squares& squares, real (&sum)[8][COLUMNS]) {
    const int steps = (rows.depth - begin + DEPTH - 1) / DEPTH;
    with_copies<TILE>(rows, m0, begin, [&](const auto& copy_a) {
        with_copies<LINES>(columns, n0, begin,
                           [&](const auto& copy_b) { accumulate(a, b, copy_a, copy_b, steps, squares, sum); });
    });
}

// The tile of this block: bands of 8 rows of tiles, column by column within a band.  Blocks that run at the same time
// cover a compact region of C.
__device__ __forceinline__ void tile_of_block(int& row, int& column) {
    const int band = 8, rows = gridDim.y, columns = gridDim.x;
    const int number = blockIdx.y * columns + blockIdx.x;
    const int first = number / (band * columns) * band, height = min(band, rows - first);
    const int within = number - first * columns;
    row = first + within % height;
    column = within / height;
}
