"""The bugs that are planted in the CUDA kernels of csrc/cuda, run by the emulator."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial

from minires.verify import agreement
from minires.verify.planted.mutant import Mutant, within

Checks = Sequence[Callable[[], None]]
Edits = Sequence[tuple[str, str]]


def _kernel(name: str, file: str, checks: Checks, edits: Edits) -> Iterator[Mutant]:
    return within(name, f"cuda/{file}", f"KERNEL({name})", checks, edits)


def _header(file: str, scope: str, checks: Checks, edits: Edits) -> Iterator[Mutant]:
    return within(file, f"cuda/{file}", scope, checks, edits)


@cache
def _product(rung: str) -> Callable[[], None]:
    return partial(agreement.products_of_rung, rung)


@cache
def _convolution(rung: str, gradients: bool = False) -> Callable[[], None]:
    return partial(agreement.convolutions_of_rung, rung, gradients)


@cache
def _operation(name: str) -> Callable[[], None]:
    return partial(agreement.agree_with_reference, "emulated", name)


def _products() -> Iterator[Mutant]:
    yield from _kernel("gemm_01_naive", "gemm_01_naive.cu", [_product("gemm_01_naive")], [
        ("m >= M || n >= N", "m >= M"),
        ("m >= M || n >= N", "n >= N"),
        ("k < K", "k < K - 1"),
        ("at(m, a_row, k, a_col)", "at(k, a_row, m, a_col)"),
        ("at(k, b_row, n, b_col)", "at(k, b_col, n, b_row)"),
        ("at(m, c_row, n, 1)", "at(n, c_row, m, 1)"),
    ])  # fmt: skip
    yield from _kernel("gemm_02_coalesced", "gemm_02_coalesced.cu", [_product("gemm_02_coalesced")], [
        ("m >= M || n >= N", "m > M || n >= N"),
        ("m >= M || n >= N", "m >= M || n > N"),
        ("k < K", "k < K / 2"),
        ("at(m, a_row, k, a_col)", "at(m, a_row, k, 1)"),
        ("at(k, b_row, n, b_col)", "at(k, b_row, m, b_col)"),
        ("blockIdx.y * blockDim.y + threadIdx.y", "threadIdx.y"),
    ])  # fmt: skip
    yield from _kernel("gemm_03_shared", "gemm_03_shared.cu", [_product("gemm_03_shared")], [
        ("m < M && ka < K", "m < M"),
        ("kb < K && n < N", "n < N && kb <= K"),
        ("tile_b[k][column]", "tile_b[column][k]"),
        ("k < TILE", "k < TILE - 1"),
        ("‹__syncthreads();›  // the tiles are complete", ""),
        ("‹__syncthreads();›  // nobody reads them any more", ""),
        ("if (‹m < M && n < N›) C", "m < M"),
    ])  # fmt: skip
    yield from _kernel("gemm_04_registers", "gemm_04_registers.cu", [_product("gemm_04_registers")], [
        ("threadIdx.x / 16 * 8", "threadIdx.x / 16 * 4"),
        ("m < M && k < K", "m < M"),
        ("k < K && n < N", "k < K || n < N"),
        ("tile_a[row + i][k]", "tile_a[row + i][7 - k]"),
        ("tile_b[k][column + j]", "tile_b[k][column]"),
        ("a[i] * b[j]", "a[j] * b[i]"),
        ("m0 + row + i < M && n0 + column + j < N", "m0 + row + i < M && n0 + column < N"),
    ])  # fmt: skip
    yield from _kernel("gemm_05_vectors", "gemm_05_vectors.cu", [_product("gemm_05_vectors")], [
        ("rows{A, M, ‹a_row›, K, a_col}", "a_row + 1"),
        ("columns{B, ‹N›, b_col, K, b_row}", "N - 1"),
        ("load_tile<true>(a, rows, ‹m0›, k0", "n0"),
        ("load_tile<false>(b, columns, n0, ‹k0›", "0"),
        ("multiply_tiles(a, b, squares, sum);", "multiply_tiles(b, a, squares, sum);"),
        ("‹__syncthreads();›\n        multiply_tiles", ""),
        ("at(m, c_row, n, 1)", "at(m, N, n, 1)"),
    ])  # fmt: skip
    for name in ("gemm_06_async", "gemm_07_warps"):
        yield from _kernel(name, f"{name}.cu", [_product(name)], [
            ("m0, n0, 0, ‹K›, squares", "K - 1"),
            ("m0, n0, ‹0›, K, squares", "8"),
            ("K, ‹a_row›, a_col", "a_col"),
            ("b_row, ‹b_col›, m0", "b_row"),
            ("store_sums(sum, squares, m0, n0, ‹M›, N", "M - 1"),
            ("at(m, c_row, n, 1)", "at(m, N, n, 1)"),
        ])  # fmt: skip
    yield from within("gemm_07_warps", "cuda/gemm_07_warps.cu", "void tile_of_block(", [_product("gemm_07_warps")], [
        ("row = ‹first + within % height›", "within % height + 1"),
        ("within / height", "within % height"),
    ])  # fmt: skip
    yield from _kernel("gemm_08_split_k", "gemm_08_split_k.cu", [_product("gemm_08_split_k")], [
        ("min(begin + part, K)", "K"),
        ("min(begin + part, K)", "min(begin + part - 1, K)"),
        ("blockIdx.z * part", "0"),
        ("(long long)blockIdx.z * M * N", "0"),
        ("at(m, N, n, 1)", "at(m, M, n, 1)"),
        ("C[at(m, N, n, 1)] = ‹value›", "-value"),
    ])  # fmt: skip
    yield from _kernel("gemm_08_add_parts", "gemm_08_split_k.cu", [_product("gemm_08_split_k")], [
        ("m >= M || n >= N", "n >= N"),
        ("m >= M || n >= N", "m >= M"),
        ("int z = ‹0›", "1"),
        ("z < parts", "z < 1"),
        ("((long long)z * M + m) * N + n", "((long long)z * N + m) * N + n"),
        ("at(m, c_row, n, 1)", "at(m, M, n, 1)"),
    ])  # fmt: skip
    yield from _kernel("gemm_09_tf32", "gemm_09_tf32.cu", [_product("gemm_09_tf32")], [
        ("rows{A, M, a_row, ‹K›, a_col}", "K - 1"),
        ("columns{B, N, b_col, K, ‹b_row›}", "b_col"),
        ("load_mma_async(tile, rows, ‹m0›, k0, a_by_four)", "0"),
        ("load_mma_async(tile, columns, n0, ‹k0›, b_by_four)", "0"),
        ("b_by_four); }, ‹K›, warp", "K - 16"),
        ("store_mma(sum, warp, m0, n0, M, ‹N›", "N + 1"),
        ("at(m, c_row, n, 1)", "at(m, N, n, 1)"),
    ])  # fmt: skip
    yield from _kernel("gemm_10_bf16", "gemm_10_bf16.cu", [_product("gemm_10_bf16")], [
        ("rows{A, M, ‹a_row›, K, a_col}", "a_col"),
        ("k0 < K", "k0 < K - 1"),
        ("load_mma_bf16(a, rows, m0, ‹k0›);", "0"),
        ("load_mma_bf16(b, columns, ‹n0›, k0);", "m0"),
        ("at(m, c_row, n, 1)", "at(m, N, n, 1)"),
    ])  # fmt: skip


def _convolutions() -> Iterator[Mutant]:
    yield from _kernel("conv_01_direct", "conv_01_direct.cu", [_convolution("conv_01_direct")], [
        ("pixel >= conv.pixels() || o >= O", "pixel >= conv.pixels()"),
        ("i * sh + p * dh - ph", "i * sh + p * dh + ph"),
        ("i * sh + p * dh - ph", "i * sh + p - ph"),
        ("j * sw + q * dw - pw", "j * sh + q * dw - pw"),
        ("row < 0 || row >= H || column < 0 || column >= W", "row < 0 || row >= H || column < 0"),
        ("((long long)o * KH + p) * KW + q", "((long long)o * KH + KH - 1 - p) * KW + q"),
        ("pixel / (OW * OH)", "0"),
        ("pixel * y_pixel + o", "pixel * O + o"),
    ])  # fmt: skip
    both = [_convolution("conv_02_im2col", gradients=True)]
    yield from _kernel("conv_02_im2col", "conv_02_im2col.cu", both, [
        ("k >= conv.depth() || pixel >= conv.pixels()", "k >= conv.depth()"),
        ("k >= conv.depth() || pixel >= conv.pixels()", "pixel >= conv.pixels()"),
        ("blockIdx.y * blockDim.x + threadIdx.x", "threadIdx.x"),
        ("windows.address(pixel, k)", "windows.address(pixel, k / 2)"),
        ("address ? *address : 0", "address ? *address : 1"),
        ("pixel * conv.depth() + k", "k * conv.pixels() + pixel"),
    ])  # fmt: skip
    yield from _kernel("conv_02_col2im", "conv_02_im2col.cu", both, [
        ("row + ph - p * dh", "row - ph - p * dh"),
        ("column + pw - q * dw", "column + pw - q"),
        ("down < 0 || right < 0 || down % sh || right % sw", "down < 0 || right < 0"),
        ("down / sh", "down / sw"),
        ("i >= OH || j >= OW", "i >= OH"),
        ("(p * KW + q) * C + c", "(q * KH + p) * C + c"),
        ("q < KW", "q < 1"),
        ("pixel * x_pixel + c", "pixel * C + c"),
    ])  # fmt: skip
    yield from _kernel("conv_02_col2im_atomic", "conv_02_im2col.cu", [_convolution("conv_02_im2col_atomic", True)], [
        ("k >= conv.depth() || pixel >= conv.pixels()", "k >= conv.depth() - 1 || pixel >= conv.pixels()"),
        ("k >= conv.depth() || pixel >= conv.pixels()", "k >= conv.depth() || pixel >= conv.pixels() - 1"),
        ("windows.address(pixel, k)", "windows.address(pixel, 0)"),
        ("if (‹address›)", "k ? address : nullptr"),
        ("columns[(long long)pixel * conv.depth() + k]", "columns[k]"),
        ("columns[(long long)pixel * conv.depth() + k]", "1"),
    ])  # fmt: skip
    yield from _kernel("conv_04_implicit", "conv_04_implicit.cu", [_convolution("conv_04_implicit")], [
        ("k0 < conv.depth()", "k0 < conv.depth() - 1"),
        ("windows, ‹m0›, k0", "n0"),
        ("filters, n0, ‹k0›", "0"),
        ("‹__syncthreads();›\n        multiply_tiles", ""),
        ("m0, n0, ‹conv.pixels()›, O", "conv.pixels() - 1"),
        ("conv.pixels(), ‹O›,", "O + 1"),
        ("m * y_pixel + n", "m * O + n"),
    ])  # fmt: skip
    yield from _kernel("conv_05_vectors", "conv_05_vectors.cu", [_convolution("conv_05_vectors")], [
        ("m0 + Share<true>().line", "Share<true>().line"),
        ("m0 + Share<true>().line", "m0 + Share<true>().line + 1"),
        ("k0 < conv.depth()", "k0 + DEPTH < conv.depth()"),
        ("channels_by_four(x, conv)", "true"),
        ("filters_by_four(w, conv)", "true"),
        ("multiply_tiles(a, b, squares, sum);\n        ‹__syncthreads();›", ""),
        ("conv.pixels(), ‹O›,", "O - 1"),
    ])  # fmt: skip
    yield from within("conv_06_async", "cuda/conv_06_async.cu", "void accumulate_conv(", [_convolution("auto")], [
        ("m0 + ‹Share<true>().line›", "0"),
        ("channels_by_four(x, conv)", "true"),
        ("filters, ‹n0›, k0", "m0"),
        ("w_by_four); }, ‹0›, conv.depth()", "8"),
        ("0, ‹conv.depth()›, squares", "conv.depth() - 1"),
    ])  # fmt: skip
    for name, checks in (
        ("conv_06_async", [_convolution("conv_06_async")]), ("conv_09_fused", [agreement.fused_epilogue]),
    ):  # fmt: skip
        yield from _kernel(name, "conv_06_async.cu", checks, [
            ("m0, n0, ‹conv.pixels()›, O, [&]" if name == "conv_09_fused" else "m0, n0, ‹conv.pixels()›, O,",
             "conv.pixels() - 1"),
            ("(long long)m * y_pixel + n", "(long long)n * y_pixel + m"),
        ])  # fmt: skip
    yield from _kernel("conv_09_fused", "conv_06_async.cu", [agreement.fused_epilogue], [
        ("value * scale[n] + shift[n]", "value * scale[n]"),
        ("value * scale[n] + shift[n]", "(value + shift[n]) * scale[n]"),
        ("value * scale[n] + shift[n]", "value * scale[m] + shift[n]"),
        ("value += residual[place];", "value -= residual[place];"),
        ("value > floor ? value : floor", "value"),
        ("value > floor ? value : floor", "value > 0 ? value : 0"),
    ])  # fmt: skip
    yield from _kernel("conv_07_tf32", "conv_07_tf32.cu", [_convolution("conv_07_tf32")], [
        ("m0 + threadIdx.x / 2", "m0 + threadIdx.x"),
        ("m0 + threadIdx.x / 2", "threadIdx.x / 2"),
        ("channels_by_four(x, conv)", "true"),
        ("filters, ‹n0›, k0", "0"),
        ("}, ‹conv.depth()›, warp", "conv.depth() - 16"),
        ("m * y_pixel + n", "m * O + n"),
    ])  # fmt: skip
    yield from _kernel("conv_07_bf16", "conv_07_tf32.cu", [_convolution("conv_07_bf16")], [
        ("m0 + threadIdx.x / 2", "m0 + threadIdx.x % 128"),
        ("k0 < conv.depth()", "k0 < 32"),
        ("windows, m0, ‹k0›", "0"),
        ("filters, ‹n0›, k0", "m0"),
        ("m0, n0, ‹conv.pixels()›, O", "conv.pixels() - 1"),
        ("m * y_pixel + n", "m * O + n"),
    ])  # fmt: skip
    winograd = [_convolution("conv_08_winograd")]
    yield from _kernel("conv_08_filters", "conv_08_winograd.cu", winograd, [
        ("c >= C || o >= O", "c >= C - 1 || o >= O"),
        ("half[1][q] = ‹(g0 + g1 + g2) / 2›", "g0 + g1 + g2"),
        ("half[2][q] = ‹(g0 - g1 + g2) / 2›", "(g0 + g1 - g2) / 2"),
        ("half[3][q] = ‹g2›", "g0"),
        ("{g0, ‹(g0 + g1 + g2) / 2›", "(g0 + g2) / 2"),
        ("4 * i + j", "4 * j + i"),
    ])  # fmt: skip
    yield from _kernel("conv_08_patches", "conv_08_winograd.cu", winograd, [
        ("tile % TW * 2 - pw", "tile % TW * 2 + pw"),
        ("tile / TW % TH * 2 - ph", "tile / TW % TH - ph"),
        ("row >= 0 && row < H && column >= 0 && column < W", "row >= 0 && row < H && column >= 0"),
        ("half[0][q] = ‹d[0] - d[2]›", "d[0] + d[2]"),
        ("half[2][q] = ‹d[2] - d[1]›", "d[1] - d[2]"),
        ("d[2] - d[1], ‹d[1] - d[3]›", "d[3] - d[1]"),
    ])  # fmt: skip
    yield from _kernel("conv_08_outputs", "conv_08_winograd.cu", winograd, [
        ("half[0][q] = ‹e[0] + e[1] + e[2]›", "e[0] + e[1] - e[2]"),
        ("half[1][q] = ‹e[1] - e[2] - e[3]›", "e[1] - e[2] + e[3]"),
        ("half[p][0] + half[p][1] + half[p][2]", "half[p][0] + half[p][1]"),
        ("i + p < OH && j + q < OW", "i + p < OH"),
        ("i + p < OH && j + q < OW", "j + q < OW"),
        ("tile % TW * 2", "tile % TW"),
    ])  # fmt: skip

    backward = [_convolution("auto", gradients=True)]
    yield from within("conv_backward_data", "cuda/conv_backward.cu", "struct Outputs", backward, [
        ("part.row0 + i * conv.sh", "part.row0 + i"),
        ("n * conv.OH * conv.OW * conv.y_pixel", "0"),
        ("part.q0 + tap % part.qs * part.q_step", "part.q0 + tap % part.qs"),
        ("row + conv.ph - p * conv.dh", "row - conv.ph + p * conv.dh"),
        ("down < 0 || right < 0", "down < 0"),
        ("i >= conv.OH || j >= conv.OW", "j >= conv.OW"),
        ("(i * conv.OW + j) * conv.y_pixel + o", "(i * conv.OW + j) * conv.O + o"),
    ])  # fmt: skip
    yield from within("conv_backward_data", "cuda/conv_backward.cu", "struct FiltersOfClass", backward, [
        ("(long long)o * conv.KH + p", "(long long)o * conv.KH + conv.KH - 1 - p"),
        ("c >= conv.C || k >= part.ps * part.qs * conv.O", "c >= conv.C"),
        ("tap / part.qs * part.p_step", "tap / part.qs"),
    ])  # fmt: skip
    yield from _kernel("conv_backward_data", "conv_backward.cu", backward, [
        ("0, ‹ps * qs * O›, squares", "ps * qs * O - 1"),
        ("n0, ‹pixels›, C, [&]", "pixels - 1"),
        ("column0 + j * sw", "column0 + j"),
        ("m / columns % rows", "m / rows % rows"),
    ])  # fmt: skip
    yield from _kernel("conv_backward_weight", "conv_backward.cu", backward, [
        ("min(begin + part, conv.pixels())", "begin + part"),
        ("min(begin + part, conv.pixels())", "conv.pixels() - 1"),
        ("{grad_y, O, 1, end, ‹y_pixel›}", "O"),
        ("outputs, ‹m0›, k0", "n0"),
        ("windows, n0, ‹k0›", "k0 + 1"),
        ("m0, n0, O, ‹depth›, [&]", "depth - 1"),
        ("blockIdx.z * O * depth", "0"),
    ])  # fmt: skip
    yield from within("conv_backward_weight", "cuda/conv_backward.cu", "struct WindowsTransposed", backward, [
        ("windows.address(pixel, line)", "windows.address(line, pixel)"),
    ])  # fmt: skip


def _headers() -> Iterator[Mutant]:
    tiles = [_product("gemm_07_warps"), _product("gemm_05_vectors"), _product("gemm_06_async")]
    yield from _header("tile.cuh", "struct Squares", tiles, [
        ("row + i / 4 * row_step + i % 4", "row + i"),
        ("column + j / 4 * column_step + j % 4", "column + j / 4 * row_step + j % 4"),
    ])  # fmt: skip
    yield from _header("tile.cuh", "Squares squares_of_block()", tiles, [("t / 16 * 4", "t / 16"), ("t % 16 * 4", "0")])
    yield from _header("tile.cuh", "Squares squares_of_warp()", tiles, [
        ("warp / 4 * 64 + lane / 4 * 4", "warp / 4 * 64 + lane / 8 * 4"),
        ("warp % 4 * 32 + lane % 4 * 4", "warp % 4 * 16 + lane % 4 * 4"),
    ])  # fmt: skip
    yield from _header("tile.cuh", "void multiply_tiles(", tiles, [
        ("at.row + half * at.row_step", "at.row"),
        ("u[i] * v[j]", "u[i] * v[7 - j]"),
        ("u[i] * v[j]", "-u[i] * v[j]"),
    ])  # fmt: skip
    yield from _header("tile.cuh", "void store_sums(", tiles, [
        ("m < M && n < N", "m < M"),
        ("m < M && n < N", "n < N"),
        ("sum[i][j]", "sum[j][i]"),
    ])  # fmt: skip
    yield from _header("tile.cuh", "struct Strided", tiles, [
        ("line < lines && k < depth", "line < lines"),
        ("line < lines && k < depth", "line < lines && k < depth - 1"),
        ("at(line, line_step, k, depth_step)", "at(k, line_step, line, depth_step)"),
    ])  # fmt: skip
    yield from _header("tile.cuh", "struct Share", tiles, [
        ("ALONG_K ? line : line + i", "line"),
        ("ALONG_K ? k + i : k", "k"),
        ("ALONG_K ? threadIdx.x / 2 : threadIdx.x % 32 * 4", "threadIdx.x / 2"),
    ])  # fmt: skip
    yield from _header("tile.cuh", "void load_tile(Tile", tiles, [
        ("tile[share.k + i][share.line] = ‹value[i]›", "value[3 - i]"),
        ("address ? *address : 0", "address ? *address : 1"),
        ("value[0] = ‹four.x›", "four.y"),
    ])  # fmt: skip
    yield from _header("tile.cuh", "void load_tile_async(Tile", tiles, [
        ("address ? from + i : from", "from"),
        ("address ? 16 : 0", "address ? 12 : 0"),
        ("address ? address : anywhere, ‹address != nullptr›", "true"),
    ])  # fmt: skip
    yield from _header("tile.cuh", "void accumulate(Tile", tiles, [
        ("k0 + DEPTH < end", "k0 + 2 * DEPTH < end"),
        ("load_b(b[stage ^ 1], ‹k0 + DEPTH›);", "k0"),
        ("load_a(a[‹stage ^ 1›]", "stage"),
        ("cp_async_wait(1);", "cp_async_wait(2);"),
        ("‹__syncthreads();›   // and everybody else's", ""),
        ("stage ^= 1;", ""),
    ])  # fmt: skip
    split = [_product("gemm_08_split_k"), _product("gemm_06_async")]
    yield from _header("gemm_tile.cuh", "void accumulate_matrices(", split, [
        ("rows{A, M, a_row, ‹end < K ? end : K›, a_col}", "end - 1"),
        ("columns{B, N, b_col, ‹end < K ? end : K›, b_row}", "end - 1"),
        ("load_tile_async<true>(tile, rows, ‹m0›, k0", "n0"),
        ("load_tile_async<false>(tile, columns, n0, ‹k0›", "begin"),
        ("        ‹begin›, end, squares", "0"),
        ("begin, ‹end›, squares", "end - 8"),
        ("whole && by_four_along(A, K, a_row)", "true"),
    ])  # fmt: skip
    tensor = [_product("gemm_09_tf32"), _product("gemm_10_bf16")]
    yield from _header("tensor_tile.cuh", "struct MmaWarp", tensor, [
        ("threadIdx.x / 32 / 4 * 64", "threadIdx.x / 32 / 4 * 32"),
        ("threadIdx.x / 32 % 4 * 32", "threadIdx.x / 32 % 2 * 32"),
    ])  # fmt: skip
    yield from _header("tensor_tile.cuh", "void load_fragment_a(", tensor, [
        ("byte + lane / 16 * 16", "byte + lane % 2 * 16"),
        ("line + lane % 16", "line + lane % 8"),
    ])  # fmt: skip
    yield from _header("tensor_tile.cuh", "void load_fragments_b(", tensor, [
        ("line + lane / 16 * 8 + lane % 8", "line + lane % 16"),
        ("byte + lane / 8 % 2 * 16", "byte"),
    ])  # fmt: skip
    yield from _header("tensor_tile.cuh", "void multiply_mma(", tensor, [
        ("byte < 64", "byte < 32"),
        ("right[j][0] = ‹two[0]›", "two[1]"),
        ("warp.row + 16 * i", "warp.row"),
    ])  # fmt: skip
    yield from _header("tensor_tile.cuh", "void store_mma(", tensor, [
        ("m < M && n < N", "m < M"),
        ("r / 2 * 8", "r % 2 * 8"),
        ("warp.lane % 4 * 2", "warp.lane % 4"),
    ])  # fmt: skip
    yield from _header("tensor_tile.cuh", "void load_mma_async(", tensor, [
        ("threadIdx.x % 2 * 8", "threadIdx.x % 2 * 4"),
        ("address ? 4 : 0", "4"),
        ("row + i, address ? address : anywhere, ‹address ? 16 : 0›", "address ? 8 : 0"),
    ])  # fmt: skip
    yield from _header("tensor_tile.cuh", "void load_mma_bf16(", tensor, [
        ("threadIdx.x % 2 * 16", "0"),
        ("high ? *high : 0", "low ? *low : 0"),
        ("low ? *low : 0", "low ? *low : 1"),
    ])  # fmt: skip
    yield from _header("tensor_tile.cuh", "void accumulate_tf32(", tensor, [
        ("k0 + 16 < K", "k0 + 32 < K"),
        ("load_a(a[stage ^ 1], ‹k0 + 16›);", "k0"),
        ("stage ^= 1;", ""),
    ])  # fmt: skip
    yield from _header("ptx.cuh", "void cp_async_one(float* ", [_product("gemm_09_tf32"), *tiles], [])
    yield from _header("ptx.cuh", "void cp_async_one(double* ", tiles, [
        ("inside ? 8 : 0", "8"),
        ("inside ? 8 : 0", "inside ? 4 : 0"),
    ])  # fmt: skip
    yield from _header("ptx.cuh", "unsigned to_tf32(", tensor, [
        ("0xffffe000u", "0xff800000u"),
        ("bits + 0x1000u", "bits + 0x100000u"),
        ("bits + 0x1000u", "0x1000u"),
    ])  # fmt: skip
    yield from _header("ptx.cuh", "unsigned to_bf16_pair(", tensor, [
        ("bits[0] | bits[1] << 16", "bits[0] | bits[0] << 16"),
        ("bits[0] | bits[1] << 16", "bits[0]"),
        ("(b & 0x7fffffffu) > 0x7f800000u", "(b & 0x7fffffffu) > 0x3f800000u"),
        ("b + 0x7fffu", "b + 0x7fffffu"),
    ])  # fmt: skip
    windows = [_convolution("conv_02_im2col", True), _convolution("conv_04_implicit")]
    yield from _header("conv.cuh", "struct Windows {", windows, [
        ("tap / conv.KW", "tap / conv.KH"),
        ("i * conv.sh + p * conv.dh - conv.ph", "i * conv.sh + p * conv.dh - conv.pw"),
        ("j * conv.sw + q * conv.dw - conv.pw", "j * conv.sw + q - conv.pw"),
        ("row < 0 || row >= conv.H || column < 0 || column >= conv.W", "column < 0 || column >= conv.W"),
        ("* ‹conv.x_pixel› + c", "conv.C"),
    ])  # fmt: skip
    of_pixel = [_convolution("conv_05_vectors")]
    yield from _header("conv.cuh", "struct WindowsOfPixel", of_pixel, [
        ("i * conv.sh - conv.ph", "i * conv.sh"),
        ("j * conv.sw - conv.pw", "j - conv.pw"),
        ("row0 + p * conv.dh", "row0 + p"),
        ("n * conv.H * conv.W * conv.x_pixel", "0"),
        ("row < 0 || row >= conv.H || column < 0 || column >= conv.W", "row < 0 || row >= conv.H || column < 0"),
    ])  # fmt: skip
    yield from _header("conv.cuh", "Strided filters_of(", of_pixel, [
        ("{w, conv.O, ‹conv.depth()›", "conv.C"),
        ("{w, ‹conv.O›, conv.depth()", "conv.O - 1"),
    ])  # fmt: skip
    yield from _header("common.cuh", "long long at(", [_product("gemm_01_naive"), _product("gemm_03_shared")], [
        ("(long long)i * row + (long long)j * col", "(long long)i * col + (long long)j * row"),
        ("(long long)i * row + (long long)j * col", "(long long)i * row + j"),
        ("(long long)i * row + (long long)j * col", "(long long)i + (long long)j * col"),
    ])  # fmt: skip
    yield from _header("common.cuh", "real infinity()", [_operation("softmax"), _operation("log_softmax")], [
        ("__uint_as_float(0x7f800000u)", "real(0)"),
        ("__uint_as_float(0x7f800000u)", "real(-1e5)"),
    ])  # fmt: skip


def _batch_norm() -> Iterator[Mutant]:
    file, checks = "batch_norm.cu", [_operation("batch_norm")]
    for scope, edits in (
        ("void add_value(", [("m.count += 1;", ""), ("before / m.count", "x / m.count"),
                             ("before * (x - m.mean)", "before * before")]),
        ("void merge(", [("apart * other.count / count", "apart / 2"), ("other.mean - m.mean", "m.mean - other.mean"),
                         ("other.squares + ‹apart * apart * m.count * other.count / count›", "real(0)"),
                         ("m.count = count;", "")]),
    ):  # fmt: skip
        yield from within("batch_norm_moments", f"cuda/{file}", scope, checks, edits)
    yield from _kernel("batch_norm_moments", file, checks, [
        ("min(begin + part, pixels)", "begin + part"),
        ("pixel = ‹begin + threadIdx.y›", "begin"),
        ("‹__syncthreads();›", ""),
        ("row < BN_ROWS", "row < BN_ROWS - 1"),
        ("threadIdx.y || c >= C", "threadIdx.y"),
        ("(long long)blockIdx.y * C + c", "c"),
    ])  # fmt: skip
    yield from _kernel("batch_norm_merge", file, checks, [
        ("c >= C", "c >= C - 1"),
        ("b < blocks", "b < 1"),
        ("(long long)b * C + c", "(long long)b + c"),
        ("var[c] = ‹m.squares / m.count›", "m.squares / (m.count - 1)"),
        ("mean[c] = ‹m.mean›", "m.mean / 2"),
    ])  # fmt: skip
    apply = [partial(agreement.batch_norm_fused, kernel=True), *checks]
    yield from _kernel("batch_norm_apply", file, apply, [
        ("c >= C", "c > C"),
        ("sqrt(var[c] + eps)", "sqrt(var[c])"),
        ("weight ? weight[c] : real(1)", "real(1)"),
        ("bias ? bias[c] : real(0)", "bias ? -bias[c] : real(0)"),
        ("x[place] - centre", "x[place] + centre"),
        ("value += residual[place];", ""),
        ("value < floor ? floor : value", "value"),
        ("pixel += ‹gridDim.x * BN_ROWS›", "2 * gridDim.x * BN_ROWS"),
    ])  # fmt: skip
    yield from _kernel("batch_norm_backward_sums", file, checks, [
        ("min(begin + part, pixels)", "min(begin + part - 1, pixels)"),
        ("sum += ‹grad[place]›", "x[place]"),
        ("x[place] - centre", "x[place]"),
        ("‹__syncthreads();›", ""),
        ("product += ‹rows[row][threadIdx.x][1]›", "rows[row][threadIdx.x][0]"),
        ("row < BN_ROWS", "row < 4"),
    ])  # fmt: skip
    yield from _kernel("batch_norm_backward_merge", file, checks, [
        ("b < blocks", "b < blocks - 1"),
        ("product / sqrt(var[c] + eps)", "product"),
        ("product / sqrt(var[c] + eps)", "product / (var[c] + eps)"),
        ("grad_bias[c] = ‹sum›", "-sum"),
        ("* 2 + ‹1›", "0"),
    ])  # fmt: skip
    yield from _kernel("batch_norm_backward_input", file, [*checks, _operation("batch_norm_eval")], [
        ("batch ? grad_bias[c] / M : real(0)", "real(0)"),
        ("batch ? grad_bias[c] / M : real(0)", "grad_bias[c] / M"),
        ("batch ? grad_weight[c] * inv_std / M : real(0)", "real(0)"),
        ("batch ? grad_weight[c] * inv_std / M : real(0)", "batch ? grad_weight[c] / M : real(0)"),
        ("weight ? weight[c] : real(1)", "weight ? -7 * weight[c] : real(1)"),
        ("(x[place] - centre) * slope", "-(x[place] - centre) * slope"),
        ("c >= C", "c >= C - 1"),
    ])  # fmt: skip


def _elementwise() -> Iterator[Mutant]:
    file, grids = "elementwise.cu", agreement.small_grids
    yield from _kernel("relu_forward", file, [grids, _operation("relu")], [
        ("x[i] <= 0 ? 0 : x[i]", "x[i] > 0 ? x[i] : 0"),  # loses NaN
        ("x[i] <= 0 ? 0 : x[i]", "x[i]"),
        ("x[i] <= 0 ? 0 : x[i]", "x[i] >= 0 ? 0 : x[i]"),
        ("x[i] <= 0 ? 0 : x[i]", "x[i] < -1e-2 ? 0 : x[i]"),
        ("FOR_EACH(i, ‹n›)", "n - 1"),
        ("FOR_EACH(i, ‹n›)", "n + 1"),
    ])  # fmt: skip
    yield from _kernel("relu_backward", file, [grids, _operation("relu")], [
        ("y[i] > 0 ? grad[i] : 0", "y[i] >= 0 ? grad[i] : 0"),
        ("y[i] > 0 ? grad[i] : 0", "y[i] > 0 ? 1 : 0"),
        ("y[i] > 0 ? grad[i] : 0", "grad[i]"),
        ("y[i] > 0 ? grad[i] : 0", "y[i] < 0 ? grad[i] : 0"),
        ("FOR_EACH(i, ‹n›)", "n - 1"),
    ])  # fmt: skip
    yield from _kernel("add_forward", file, [grids, _operation("add")], [
        ("a[i] + b[i]", "a[i] - b[i]"),
        ("a[i] + b[i]", "a[i] + a[i]"),
        ("relu && sum <= 0 ? 0 : sum", "sum"),
        ("relu && sum <= 0 ? 0 : sum", "sum <= 0 ? 0 : sum"),
        ("FOR_EACH(i, ‹n›)", "n - 1"),
    ])  # fmt: skip
    yield from _kernel("sgd_step", file, [agreement.sgd_of_kernel], [
        ("g[i] + weight_decay * p[i]", "g[i] - weight_decay * p[i]"),
        ("g[i] + weight_decay * p[i]", "g[i]"),
        ("first ? step : momentum * v[i] + step", "momentum * v[i] + step"),
        ("first ? step : momentum * v[i] + step", "first ? step : (1 - momentum) * v[i] + step"),
        ("lr * velocity", "-lr * velocity"),
        ("lr * velocity", "lr * step"),
        ("min(start[number] + chunk, sizes[which])", "start[number] + chunk"),
        ("number += gridDim.x", "number += 2 * gridDim.x"),
    ])  # fmt: skip


def _pool() -> Iterator[Mutant]:
    file = "pool.cu"
    largest = [_operation("max_pool2d")]
    yield from _kernel("max_pool_forward", file, largest, [
        ("i * sh + p * dh - ph", "i * sh + p * dh"),
        ("j * sw + q * dw - pw", "j * sw + q * dh - pw"),
        ("row < 0 || row >= H || column < 0 || column >= W", "row < 0 || row >= H || column < 0"),
        ("tap < 0 || (best == best && !(value <= best))", "tap < 0 || (best == best && !(value < best))"),
        ("tap < 0 || (best == best && !(value <= best))", "tap < 0 || value > best"),
        ("p * KW + q", "p * KH + q"),
    ])  # fmt: skip
    yield from within("max_pool_backward", f"cuda/{file}", "bool tap_of(", largest, [
        ("x + padding - o * stride", "x - padding - o * stride"),
        ("along / dilation", "along"),
        ("along >= 0 && along % dilation == 0 && tap < size", "along >= 0 && tap < size"),
    ])  # fmt: skip
    yield from _kernel("max_pool_backward", file, largest, [
        ("argmax[place] == p * KW + q", "true"),
        ("argmax[place] == p * KW + q", "argmax[place] == q * KH + p"),
        ("sum += ‹grad[place]›", "1"),
        ("i * sh <= row + ph", "i * sh < row + ph"),
        ("j * sw <= column + pw", "j * sw <= column"),
    ])  # fmt: skip
    average = [_operation("avg_pool2d")]
    yield from within("avg_pool_forward", f"cuda/{file}", "int window_size(", average, [
        ("min(begin + size, length + padding)", "begin + size"),
        ("!include", "include"),
        ("begin = ‹max(begin, 0)›", "begin"),
        ("end = ‹min(end, length)›", "end"),
    ])  # fmt: skip
    yield from _kernel("avg_pool_forward", file, average, [
        ("row = ‹max(i * sh - ph, 0)›", "max(i * sh, 0)"),
        ("min(i * sh - ph + KH, H)", "min(i * sh - ph + KH - 1, H)"),
        ("min(j * sw - pw + KW, W)", "j * sw - pw + KW"),
        ("sum / size", "sum / (KH * KW)"),
        ("pixel * C + c", "c * N * OH * OW + pixel"),
    ])  # fmt: skip
    yield from _kernel("avg_pool_backward", file, average, [
        ("max((row + ph - KH + sh) / sh, 0)", "0"),
        ("i * sh <= row + ph", "i * sh <= row"),
        ("j * sw <= column + pw", "j * sw < column + pw"),
        ("C + c] / ‹size›", "(KH * KW)"),
        ("window_size(j, sw, pw, KW, W, count_include_pad)", "window_size(i, sw, pw, KW, W, count_include_pad)"),
    ])  # fmt: skip
    adaptive = [_operation("adaptive_avg_pool2d")]
    yield from within("adaptive_avg_pool_forward", f"cuda/{file}", "int bin_end(", adaptive, [
        ("(long long)(i + 1) * size + bins - 1", "(long long)(i + 1) * size"),
        ("(long long)(i + 1) * size + bins - 1", "(long long)i * size + bins - 1"),
    ])  # fmt: skip
    yield from _kernel("adaptive_avg_pool_forward", file, adaptive, [
        ("bin_begin(i, H, OH)", "bin_begin(i, OH, H)"),
        ("bin_end(j, W, OW)", "bin_end(j, W, OW) - 1"),
        ("(bottom - top) * (right - left)", "bottom - top"),
        ("row < bottom", "row <= bottom"),
        ("pixel * C + c", "pixel * C"),
    ])  # fmt: skip
    yield from _kernel("adaptive_avg_pool_backward", file, adaptive, [
        ("i = ‹bin_begin(row, OH, H)›", "0"),
        ("i < bin_end(row, OH, H)", "i < OH"),
        ("j < bin_end(column, OW, W)", "j < bin_end(column, OW, W) - 1"),
        ("height * width", "height * height"),
        ("bin_end(j, W, OW) - bin_begin(j, W, OW)", "W / OW"),
    ])  # fmt: skip


def _softmax() -> Iterator[Mutant]:
    file = "softmax.cu"
    both, loss = [_operation("softmax"), _operation("log_softmax")], [_operation("cross_entropy")]
    for scope, edits in (
        ("real sum_of_warp(", [("bits = ‹16›", "8"), ("bits /= 2", "bits /= 4")]),
        ("real maximum_of_warp(", [("other > value || other != other", "other < value || other != other")]),
        ("void log_sum_exp(", [("largest = ‹maximum_of_warp(largest)›", "0"), ("sum = ‹sum_of_warp(sum)›", "sum")]),
    ):  # fmt: skip
        yield from within("softmax_forward", f"cuda/{file}", scope, both, edits)
    yield from _kernel("softmax_forward", file, both, [
        ("exp(x[k] - largest) / sum", "exp(x[k]) / sum"),
        ("exp(x[k] - largest) / sum", "exp(x[k] - largest)"),
        ("k += ‹32›", "64"),
        ("x += ‹(long long)row * C›", "0"),
        ("k < C", "k <= C"),
    ])  # fmt: skip
    yield from _kernel("softmax_backward", file, both, [
        ("grad[k] * y[k]", "grad[k]"),
        ("sum = ‹sum_of_warp(sum)›", "sum"),
        ("y[k] * (grad[k] - sum)", "y[k] * grad[k]"),
        ("y[k] * (grad[k] - sum)", "y[k] * (grad[k] + sum)"),
        ("y[k] * (grad[k] - sum)", "grad[k] - sum"),
    ])  # fmt: skip
    yield from _kernel("log_softmax_forward", file, both, [
        ("x[k] - largest - log(sum)", "x[k] - log(sum)"),
        ("x[k] - largest - log(sum)", "x[k] - largest"),
        ("x[k] - largest - log(sum)", "log(exp(x[k] - largest) / sum)"),  # −∞ for a probability that exp rounds to 0
        ("y += ‹(long long)row * C›", "0"),
        ("k = ‹lane›", "lane + 1"),
    ])  # fmt: skip
    yield from _kernel("log_softmax_backward", file, both, [
        ("sum += ‹grad[k]›", "grad[k] * y[k]"),
        ("grad[k] - exp(y[k]) * sum", "grad[k] - y[k] * sum"),
        ("grad[k] - exp(y[k]) * sum", "grad[k]"),
        ("grad[k] - exp(y[k]) * sum", "grad[k] + exp(y[k]) * sum"),
        ("sum = ‹sum_of_warp(sum)›", "sum"),
    ])  # fmt: skip
    yield from _kernel("cross_entropy_forward", file, loss, [
        ("1 - smoothing", "real(1)"),
        ("smoothing / C", "smoothing"),
        ("total -= ‹target * value›", "value"),
        ("x[k] - largest - log_sum", "x[k] - largest + log_sum"),
        ("loss[row] = ‹total›", "total / rows"),
        ("k == label", "k == label + 1"),
    ])  # fmt: skip
    yield from _kernel("cross_entropy_backward", file, loss, [
        ("1 - smoothing", "real(1)"),
        ("smoothing / C", "real(0)"),
        ("exp(log_p[k]) - target", "exp(log_p[k]) + target"),
        ("exp(log_p[k]) - target", "log_p[k] - target"),
        ("grad_loss[row]", "grad_loss[0]"),
    ])  # fmt: skip


def mutants() -> Iterator[Mutant]:
    for those in (_products, _convolutions, _batch_norm, _elementwise, _pool, _softmax, _headers):
        yield from those()
