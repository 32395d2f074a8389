"""The bugs in what several kernels share."""

from __future__ import annotations

from collections.abc import Iterator

from ..bug import Bug
from .builders import convolution, header, operation, product


def bugs() -> Iterator[Bug]:
    tiles = [product("gemm_07_warps"), product("gemm_05_vectors"), product("gemm_06_async")]
    yield from header("tile.cuh", "struct Squares", tiles, [
        ("row + i / 4 * row_step + i % 4", "row + i"),
        ("column + j / 4 * column_step + j % 4", "column + j / 4 * row_step + j % 4"),
    ])  # fmt: skip
    yield from header("tile.cuh", "Squares squares_of_block()", tiles, [("t / 16 * 4", "t / 16"), ("t % 16 * 4", "0")])
    yield from header("tile.cuh", "Squares squares_of_warp(", tiles, [
        ("warp / 4 * 64 + lane / 2 % 8 * 4", "warp / 4 * 64 + lane / 2 % 4 * 4"),
        ("warp % 4 * columns", "warp % 4 * 16"),
        ("lane % 2 + lane / 16 * 2", "lane % 2 + lane / 16"),
    ])  # fmt: skip
    yield from header("tile.cuh", "void load_fragment(", tiles, [
        ("first + i / 4 * step", "first"),
        ("fragment[i + 3] = ‹four.w›", "four.z"),
    ])  # fmt: skip
    yield from header("tile.cuh", "void multiply_tiles(", tiles, [
        ("a.row[k + 1], ‹at.row›", "at.column"),
        ("left[k % 2][i] * right[k % 2][j]", "left[k % 2][i] * right[k % 2][j ^ 1]"),
        ("left[k % 2][i] * right[k % 2][j]", "-left[k % 2][i] * right[k % 2][j]"),
    ])  # fmt: skip
    yield from header("tile.cuh", "void store_sums(", tiles, [
        ("if (‹m >= M›)", "m > M"),
        ("if (‹by_four && n < N›)", "by_four && n <= N"),
        ("n + c < N", "n + c <= N"),
        ("sum[i][j + 2]", "sum[i][j + 1]"),
        ("sum[i][j + c]", "sum[i][j]"),
    ])  # fmt: skip
    yield from header("tile.cuh", "struct Strided", tiles, [
        ("line < lines && k < depth", "line < lines"),
        ("line < lines && k < depth", "line < lines && k < depth - 1"),
        ("at(line, line_step, k, depth_step)", "at(k, line_step, line, depth_step)"),
    ])  # fmt: skip
    yield from header("tile.cuh", "struct Share", tiles, [
        ("ALONG_K ? line : line + i", "line"),
        ("ALONG_K ? k + i : k", "k"),
        ("ALONG_K ? threadIdx.x / 2 : threadIdx.x % 32 * 4", "threadIdx.x / 2"),
    ])  # fmt: skip
    yield from header("tile.cuh", "void load_tile(Tile", tiles, [
        ("tile.row[share.k + i][share.line] = ‹value[i]›", "value[3 - i]"),
        ("address ? *address : 0", "address ? *address : 1"),
        ("value[0] = ‹four.x›", "four.y"),
    ])  # fmt: skip
    yield from header("tile.cuh", "struct Part", tiles, [
        ("t % (APART / 4) * 4", "t % (APART / 4)"),
        ("along_k ? t / DEPTH : t % APART", "t % APART"),
        ("along_k ? t % DEPTH : t / APART", "t / APART"),
        ("line + i * APART", "line"),
        ("inside ? 16 : 0", "inside ? 8 : 0"),
    ])  # fmt: skip
    yield from header("tile.cuh", "struct Copies", tiles, [
        ("‹k0 + part.k›, operand.depth_step", "k0"),
        ("(long long)part.APART * operand.line_step", "part.APART"),
        ("(long long)DEPTH * operand.depth_step", "DEPTH"),
        ("operand.depth - k0 - part.k", "operand.depth - k0"),
        ("depth > 0 && i * part.APART < lines", "i * part.APART < lines"),
        ("depth > 0 && i * part.APART < lines", "depth > 0"),
        ("from += step;", ""),
        ("depth -= DEPTH;", ""),
    ])  # fmt: skip
    yield from header("tile.cuh", "void accumulate(Tile", tiles, [
        ("if (‹step < steps›)", "step + 1 < steps"),
        ("copy_b(b[‹stage ^ 1›]);", "stage"),
        ("copy_a(a[‹stage ^ 1›]);", "stage"),
        ("cp_async_wait(0);", "cp_async_wait(1);"),
        ("‹cp_async_commit();›\n        multiply_tiles", ""),
        ("‹__syncthreads();›   // the other threads' copies too", ""),
        ("stage ^= 1;", ""),
    ])  # fmt: skip
    split = [product("gemm_08_split_k"), product("gemm_06_async")]
    yield from header("gemm_tile.cuh", "void accumulate_matrices(", split, [
        ("rows.depth - begin + DEPTH - 1", "rows.depth - begin"),
        ("(rows, ‹m0›, begin", "n0"),
        ("(rows, m0, ‹begin›", "0"),
        ("(columns, ‹n0›, begin", "m0"),
        ("(columns, n0, ‹begin›", "0"),
    ])  # fmt: skip
    yield from header("gemm_tile.cuh", "void with_copies(", split, [("operand.lines_by_four()", "true")])
    yield from header("gemm_tile.cuh", "void tile_of_block(", [product("gemm_07_warps")], [
        ("row = ‹first + within % height›", "within % height + 1"),
        ("within / height", "within % height"),
    ])  # fmt: skip
    tensor = [product("gemm_09_tf32"), product("gemm_10_bf16")]
    yield from header("tensor_tile.cuh", "struct MmaWarp", tensor, [
        ("threadIdx.x / 32 / 4 * 64", "threadIdx.x / 32 / 4 * 32"),
        ("threadIdx.x / 32 % 4 * 32", "threadIdx.x / 32 % 2 * 32"),
    ])  # fmt: skip
    yield from header("tensor_tile.cuh", "void load_fragment_a(", tensor, [
        ("chunk + lane / 16", "chunk + lane % 2"),
        ("line + lane % 16", "line + lane % 8"),
    ])  # fmt: skip
    yield from header("tensor_tile.cuh", "void load_fragments_b(", tensor, [
        ("line + lane / 16 * 8 + lane % 8", "line + lane % 16"),
        ("chunk + lane / 8 % 2", "chunk"),
    ])  # fmt: skip
    thrice = [product("gemm_12_3xtf32")]
    yield from header("tensor_tile.cuh", "void split_tf32(", thrice, [
        ("rest[i] = ‹to_tf32(whole - __uint_as_float(number[i]))›", "0u"),
        ("number[i] = ‹to_tf32(whole)›", "number[i]"),
    ])  # fmt: skip
    yield from header("tensor_tile.cuh", "void multiply_mma(", [*tensor, *thrice], [
        ("chunk < 4", "chunk < 2"),
        ("right[j][0] = ‹two[0]›", "two[1]"),
        ("warp.row + 16 * i", "warp.row"),
        ("mma_m16n8k8_tf32(sum[i][j], left_rest, right[j]);", ""),
        ("mma_m16n8k8_tf32(sum[i][j], left, right_rest[j]);", ""),
    ])  # fmt: skip
    yield from header("tensor_tile.cuh", "void store_mma(", tensor, [
        ("m >= M", "m > M"),
        ("half * 8", "half * 4"),
        ("warp.lane % 4 * 2", "warp.lane % 4"),
        ("if (‹n + 1 < N›)", "n < N"),
    ])  # fmt: skip
    yield from header("tensor_tile.cuh", "struct MmaPart", tensor, [
        ("threadIdx.x % 4 * 4", "threadIdx.x % 4"),
        ("threadIdx.x / 128", "0"),
        ("line + i * LINES_APART", "line"),
        ("inside ? 4 : 0", "4"),
        ("inside ? 16 : 0", "inside ? 8 : 0"),
    ])  # fmt: skip
    yield from header("tensor_tile.cuh", "struct MmaCopies", tensor, [
        ("i * part.K_APART < depth && i * part.LINES_APART < lines", "i * part.K_APART < depth"),
        ("i * part.K_APART < depth && i * part.LINES_APART < lines", "i * part.LINES_APART < lines"),
        ("from += step;", ""),
        ("depth -= MMA_DEPTH;", ""),
        ("operand.depth - part.k", "operand.depth"),
    ])  # fmt: skip
    yield from header("tensor_tile.cuh", "void load_mma_bf16(", tensor, [
        ("(along_k ? t % 2 : t / 128) * 16", "0"),
        ("high ? *high : 0", "low ? *low : 0"),
        ("low ? *low : 0", "low ? *low : 1"),
    ])  # fmt: skip
    yield from header("tensor_tile.cuh", "void load_mma_bf16_by_four(", tensor, [
        ("to_bf16_pair(four.z, four.w)", "to_bf16_pair(four.w, four.z)"),
        ("line + 32 * i", "line"),
    ])  # fmt: skip
    yield from header("tensor_tile.cuh", "void accumulate_tf32(", tensor, [
        ("if (‹step < steps›)", "step + 1 < steps"),
        ("copy_a(a[‹stage ^ 1›]);", "stage"),
        ("cp_async_wait(0);", "cp_async_wait(1);"),
        ("‹__syncthreads();›   // the other threads' copies too", ""),
        ("stage ^= 1;", ""),
    ])  # fmt: skip
    yield from header("ptx.cuh", "void cp_async_one(double* ", tiles, [
        ("inside ? 8 : 0", "8"),
        ("inside ? 8 : 0", "inside ? 4 : 0"),
    ])  # fmt: skip
    yield from header("ptx.cuh", "unsigned to_tf32(", tensor, [
        ("0xffffe000u", "0xff800000u"),
        ("bits + 0x1000u", "bits + 0x100000u"),
        ("bits + 0x1000u", "0x1000u"),
    ])  # fmt: skip
    yield from header("ptx.cuh", "unsigned to_bf16_pair(", tensor, [
        ("bits[0] | bits[1] << 16", "bits[0] | bits[0] << 16"),
        ("bits[0] | bits[1] << 16", "bits[0]"),
        ("(b & 0x7fffffffu) > 0x7f800000u", "(b & 0x7fffffffu) > 0x3f800000u"),
        ("b + 0x7fffu", "b + 0x7fffffu"),
    ])  # fmt: skip
    windows = [convolution("conv_02_im2col", True), convolution("conv_04_implicit")]
    yield from header("conv.cuh", "struct Windows {", windows, [
        ("tap / conv.KW", "tap / conv.KH"),
        ("i * conv.sh + p * conv.dh - conv.ph", "i * conv.sh + p * conv.dh - conv.pw"),
        ("j * conv.sw + q * conv.dw - conv.pw", "j * conv.sw + q - conv.pw"),
        ("row < 0 || row >= conv.H || column < 0 || column >= conv.W", "column < 0 || column >= conv.W"),
        ("* ‹conv.x_pixel› + c", "conv.C"),
    ])  # fmt: skip
    of_pixel = [convolution("conv_05_vectors")]
    yield from header("conv_tile.cuh", "struct WindowsOfPixel", of_pixel, [
        ("i * conv.sh - conv.ph", "i * conv.sh"),
        ("j * conv.sw - conv.pw", "j - conv.pw"),
        ("row0 + p * conv.dh", "row0 + p"),
        ("n * conv.H * conv.W * conv.x_pixel", "0"),
        ("row < 0 || row >= conv.H || column < 0 || column >= conv.W", "row < 0 || row >= conv.H || column < 0"),
    ])  # fmt: skip
    yield from header("conv_tile.cuh", "Strided filters_of(", of_pixel, [
        ("{w, conv.O, ‹conv.depth()›", "conv.C"),
        ("{w, ‹conv.O›, conv.depth()", "conv.O - 1"),
    ])  # fmt: skip
    carried = [convolution("conv_06_async"), convolution("conv_10_split_k")]
    yield from header("conv_tile.cuh", "void fill_origins(Origin (&origins)[TILE], int m0, int windows", carried, [
        ("m0 + threadIdx.x", "threadIdx.x"),
    ])  # fmt: skip
    yield from header("conv_tile.cuh", "void fill_origins(Origin (&origins)[TILE], int m0, const Conv", carried, [
        ("n * conv.H * conv.W", "0"),
        ("i * conv.sh - conv.ph", "i * conv.sh"),
        ("j * conv.sw - conv.pw", "j - conv.pw"),
        ("pixel / conv.OW % conv.OH", "pixel / conv.OW"),
    ])  # fmt: skip
    yield from header("conv_tile.cuh", "struct Gather", carried, [
        ("k - tap * taps.C", "k"),
        ("p = ‹tap / taps.Q›", "0"),
        ("c >= taps.C && p < taps.P", "c > taps.C && p < taps.P"),
        ("++q == taps.Q", "++q == taps.P"),
        ("at.row + p * taps.dh", "at.row + p"),
        ("at.column + q * taps.dw", "at.column"),
        ("row >= 0 && row < taps.H && column >= 0 && column < taps.W", "row >= 0 && row < taps.H && column >= 0"),
        ("row * taps.W + column", "row * taps.H + column"),
        ("(long long)pixel[i] * taps.pixel + c", "(long long)pixel[i] * taps.pixel"),
        ("(long long)pixel[i] * taps.pixel + c", "(long long)pixel[i] * taps.C + c"),
        ("c += ‹STEP›", "STEP + 1"),
        ("if (‹c >= taps.C›) enter_tap();", "c > taps.C"),
    ])  # fmt: skip
    yield from header("conv_tile.cuh", "struct WindowCopies", carried, [
        ("gather.address(i)", "gather.address(0)"),
        ("k0 + part.k", "part.k"),
    ])  # fmt: skip
    yield from header("conv_tile.cuh", "void accumulate_conv(", carried, [
        ("(end - begin + DEPTH - 1) / DEPTH", "(end - begin) / DEPTH"),
        ("(filters, ‹n0›, begin)", "m0"),
        ("(filters, n0, ‹begin›)", "0"),
    ])  # fmt: skip
    yield from header("common.cuh", "long long at(", [product("gemm_01_naive"), product("gemm_03_shared")], [
        ("(long long)i * row + (long long)j * col", "(long long)i * col + (long long)j * row"),
        ("(long long)i * row + (long long)j * col", "(long long)i * row + j"),
        ("(long long)i * row + (long long)j * col", "(long long)i + (long long)j * col"),
    ])  # fmt: skip
    yield from header("common.cuh", "real infinity()", [operation("softmax"), operation("log_softmax")], [
        ("__uint_as_float(0x7f800000u)", "real(0)"),
        ("__uint_as_float(0x7f800000u)", "real(-1e5)"),
    ])  # fmt: skip
