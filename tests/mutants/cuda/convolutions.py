"""The bugs in the convolution ladder and its gradients."""

from __future__ import annotations

from collections.abc import Iterator

import agreement

from ..bug import Bug, inside
from .builders import convolution, kernel


def bugs() -> Iterator[Bug]:
    yield from kernel("conv_01_direct", "conv_01_direct.cu", [convolution("conv_01_direct")], [
        ("pixel >= conv.pixels() || o >= O", "pixel >= conv.pixels()"),
        ("i * sh + p * dh - ph", "i * sh + p * dh + ph"),
        ("i * sh + p * dh - ph", "i * sh + p - ph"),
        ("j * sw + q * dw - pw", "j * sh + q * dw - pw"),
        ("row < 0 || row >= H || column < 0 || column >= W", "row < 0 || row >= H || column < 0"),
        ("((long long)o * KH + p) * KW + q", "((long long)o * KH + KH - 1 - p) * KW + q"),
        ("pixel / (OW * OH)", "0"),
        ("pixel * y_pixel + o", "pixel * O + o"),
    ])  # fmt: skip
    both = [convolution("conv_02_im2col", gradients=True)]
    yield from kernel("conv_02_im2col", "conv_02_im2col.cu", both, [
        ("k >= conv.depth() || pixel >= conv.pixels()", "k >= conv.depth()"),
        ("k >= conv.depth() || pixel >= conv.pixels()", "pixel >= conv.pixels()"),
        ("blockIdx.y * blockDim.x + threadIdx.x", "threadIdx.x"),
        ("windows.address(pixel, k)", "windows.address(pixel, k / 2)"),
        ("address ? *address : 0", "address ? *address : 1"),
        ("pixel * conv.depth() + k", "k * conv.pixels() + pixel"),
    ])  # fmt: skip
    yield from kernel("conv_02_col2im", "conv_02_im2col.cu", both, [
        ("row + ph - p * dh", "row - ph - p * dh"),
        ("column + pw - q * dw", "column + pw - q"),
        ("down < 0 || right < 0 || down % sh || right % sw", "down < 0 || right < 0"),
        ("down / sh", "down / sw"),
        ("i >= OH || j >= OW", "i >= OH"),
        ("(p * KW + q) * C + c", "(q * KH + p) * C + c"),
        ("q < KW", "q < 1"),
        ("pixel * x_pixel + c", "pixel * C + c"),
    ])  # fmt: skip
    yield from kernel("conv_02_col2im_atomic", "conv_02_im2col.cu", [convolution("conv_02_im2col_atomic", True)], [
        ("k >= conv.depth() || pixel >= conv.pixels()", "k >= conv.depth() - 1 || pixel >= conv.pixels()"),
        ("k >= conv.depth() || pixel >= conv.pixels()", "k >= conv.depth() || pixel >= conv.pixels() - 1"),
        ("windows.address(pixel, k)", "windows.address(pixel, 0)"),
        ("if (‹address›)", "k ? address : nullptr"),
        ("columns[(long long)pixel * conv.depth() + k]", "columns[k]"),
        ("columns[(long long)pixel * conv.depth() + k]", "1"),
    ])  # fmt: skip
    yield from kernel("conv_04_implicit", "conv_04_implicit.cu", [convolution("conv_04_implicit")], [
        ("k0 < conv.depth()", "k0 < conv.depth() - 1"),
        ("windows, ‹m0›, k0", "n0"),
        ("filters, n0, ‹k0›", "0"),
        ("‹__syncthreads();›\n        multiply_tiles", ""),
        ("m0, n0, ‹conv.pixels()›, O", "conv.pixels() - 1"),
        ("conv.pixels(), ‹O›,", "O + 1"),
        ("(long long)m * y_pixel", "(long long)m * O"),
    ])  # fmt: skip
    yield from kernel("conv_05_vectors", "conv_05_vectors.cu", [convolution("conv_05_vectors")], [
        ("m0 + Share<true>().line", "Share<true>().line"),
        ("m0 + Share<true>().line", "m0 + Share<true>().line + 1"),
        ("k0 < conv.depth()", "k0 + DEPTH < conv.depth()"),
        ("channels_by_four(x, conv)", "true"),
        ("filters_by_four(w, conv)", "true"),
        ("multiply_tiles(a, b, squares, sum);\n        ‹__syncthreads();›", ""),
        ("conv.pixels(), ‹O›,", "O - 1"),
    ])  # fmt: skip
    asynchronous = [convolution("conv_06_async")]
    yield from inside("conv_06_async", "cuda/conv_06_async.cu", "void convolve(", asynchronous, [
        ("blockIdx.x * TILE", "0"),
        ("blockIdx.y * FILTERS", "0"),
        ("n0, 0, ‹conv.depth()›, squares", "conv.depth() - 1"),
        ("m0, n0, ‹conv.pixels()›, conv.O", "conv.pixels() - 1"),
        ("conv.pixels(), ‹conv.O›, rows_by_four", "conv.O - 1"),
        ("(long long)m * conv.y_pixel", "(long long)m * conv.O"),
    ])  # fmt: skip
    yield from inside("conv_06_async_64", "cuda/conv_06_async.cu", "void convolve(", asynchronous, [
        ("squares_of_warp(‹FILTERS / 4›)", "TILE / 4"),
        ("squares_of_warp(‹FILTERS / 4›)", "FILTERS / 8"),
        ("m0, n0, ‹0›, conv.depth()", "8"),
        ("w, conv, ‹m0›, n0", "n0"),
        ("rows_by_four(y, conv.O, conv.y_pixel)", "true"),
    ])  # fmt: skip
    yield from kernel("conv_09_fused", "conv_09_fused.cu", [agreement.fused_epilogue], [
        ("m0, n0, ‹conv.pixels()›, O,", "conv.pixels() - 1"),
        ("y + (long long)m * y_pixel", "y + (long long)m * C"),
        ("value * scale[n] + shift[n]", "value * scale[n]"),
        ("value * scale[n] + shift[n]", "(value + shift[n]) * scale[n]"),
        ("value * scale[n] + shift[n]", "value * scale[m] + shift[n]"),
        ("value += residual[(long long)m * y_pixel + n];", "value -= residual[(long long)m * y_pixel + n];"),
        ("value <= floor ? floor : value", "value"),
        ("value <= floor ? floor : value", "value <= 0 ? 0 : value"),
        ("value <= floor ? floor : value", "value > floor ? value : floor"),  # loses NaN
    ])  # fmt: skip
    yield from kernel("conv_10_split_k", "conv_10_split_k.cu", [convolution("conv_10_split_k")], [
        ("min(begin + part, conv.depth())", "conv.depth()"),
        ("blockIdx.z * part", "0"),
        ("(long long)blockIdx.z * conv.pixels() * O", "0"),
        ("(long long)m * O", "(long long)m * conv.pixels()"),
        ("m0, n0, ‹begin›, end", "0"),
        ("rows_by_four(y, O, O)", "true"),
    ])  # fmt: skip
    tf32 = [convolution("conv_07_tf32")]
    yield from inside("conv_07_tf32", "cuda/conv_07_tf32.cu", "struct MmaWindowCopies", tf32, [
        ("gather.address(i)", "gather.address(0)"),
        ("&origins[part.line], ‹part.k›", "0"),
    ])  # fmt: skip
    yield from kernel("conv_07_tf32", "conv_07_tf32.cu", tf32, [
        ("(origins, ‹m0›, conv)", "0"),
        ("conv.depth() + MMA_DEPTH - 1", "conv.depth()"),
        ("channels_by_four(x, conv)", "true"),
        ("filters_of(w, conv), ‹n0›", "0"),
        ("(long long)m * y_pixel", "(long long)m * O"),
    ])  # fmt: skip
    yield from kernel("conv_07_bf16", "conv_07_bf16.cu", [convolution("conv_07_bf16")], [
        ("channels_by_four(x, conv) && filters_by_four(w, conv)", "true"),
        ("(origins, ‹m0›, conv)", "0"),
        ("32 * i, ‹k0 + k›", "k0"),
        ("n0 + line + 32 * i", "m0 + line + 32 * i"),
        ("&origins[line], ‹k›)", "0"),
        ("windows.advance();", ""),
        ("m0 + threadIdx.x / 2", "m0 + threadIdx.x % 128"),
        ("(long long)m * y_pixel", "(long long)m * O"),
    ])  # fmt: skip
    winograd = [convolution("conv_08_winograd")]
    yield from kernel("conv_08_filters", "conv_08_winograd.cu", winograd, [
        ("c >= C || o >= O", "c >= C - 1 || o >= O"),
        ("half[1][q] = ‹(g0 + g1 + g2) / 2›", "g0 + g1 + g2"),
        ("half[2][q] = ‹(g0 - g1 + g2) / 2›", "(g0 + g1 - g2) / 2"),
        ("half[3][q] = ‹g2›", "g0"),
        ("{g0, ‹(g0 + g1 + g2) / 2›", "(g0 + g2) / 2"),
        ("4 * i + j", "4 * j + i"),
    ])  # fmt: skip
    yield from kernel("conv_08_patches", "conv_08_winograd.cu", winograd, [
        ("tile % TW * 2 - pw", "tile % TW * 2 + pw"),
        ("tile / TW % TH * 2 - ph", "tile / TW % TH - ph"),
        ("row >= 0 && row < H && column >= 0 && column < W", "row >= 0 && row < H && column >= 0"),
        ("half[0][q] = ‹d[0] - d[2]›", "d[0] + d[2]"),
        ("half[2][q] = ‹d[2] - d[1]›", "d[1] - d[2]"),
        ("d[2] - d[1], ‹d[1] - d[3]›", "d[3] - d[1]"),
    ])  # fmt: skip
    yield from kernel("conv_08_products", "conv_08_products.cu", winograd, [
        ("v + ‹z * T * C›", "0"),
        ("u + ‹z * O * C›", "0"),
        ("m + ‹z * T * O›", "0"),
        ("m0, n0, ‹0›, squares", "8"),
        ("n0, ‹T›, O, rows_by_four", "T - 1"),
        ("(long long)tile * O", "(long long)tile * C"),
    ])  # fmt: skip
    yield from kernel("conv_08_outputs", "conv_08_winograd.cu", winograd, [
        ("half[0][q] = ‹e[0] + e[1] + e[2]›", "e[0] + e[1] - e[2]"),
        ("half[1][q] = ‹e[1] - e[2] - e[3]›", "e[1] - e[2] + e[3]"),
        ("half[p][0] + half[p][1] + half[p][2]", "half[p][0] + half[p][1]"),
        ("i + p < OH && j + q < OW", "i + p < OH"),
        ("i + p < OH && j + q < OW", "j + q < OW"),
        ("tile % TW * 2", "tile % TW"),
    ])  # fmt: skip

    backward = [convolution("auto", gradients=True)]
    yield from inside("conv_backward_data", "cuda/conv_backward.cu", "struct FilterCopies", backward, [
        ("(long long)o * conv.KH + down", "(long long)o * conv.KH + conv.KH - 1 - down"),
        ("of.p0 + p * of.p_step", "of.p0 + p"),
        ("of.q0 + q * of.q_step", "of.q0"),
        ("p < of.ps && c + i * part.APART < conv.C", "p < of.ps && c + (i + 1) * part.APART < conv.C"),
        ("++q == of.qs", "++q == of.ps"),
        ("(long long)DEPTH * conv.KH * conv.KW * conv.C", "(long long)DEPTH * conv.C"),
        ("if (‹o >= conv.O›) enter_tap();", "o > conv.O"),
    ])  # fmt: skip
    yield from kernel("conv_backward_data", "conv_backward.cu", backward, [
        ("row0 + ph - p0 * dh", "row0 - p0 * dh"),
        ("(column0 + pw - q0 * dw) / sw", "column0 + pw - q0 * dw"),
        ("pixel / columns % rows", "pixel / rows % rows"),
        ("n * OH * OW", "0"),
        ("-(p_step * dh / sh)", "p_step * dh / sh"),
        ("ps * qs * O + DEPTH - 1", "ps * qs * O"),
        ("n0, ‹pixels›, C, rows_by_four", "pixels - 1"),
        ("column0 + j * sw", "column0 + j"),
        ("m / columns % rows", "m / rows % rows"),
    ])  # fmt: skip
    yield from inside("conv_backward_weight", "cuda/conv_backward.cu", "struct PixelCopies", backward, [
        ("end - begin - part.k", "end - begin"),
        ("i * conv.sh + row[copy]", "i + row[copy]"),
        ("(n * conv.H + down) * conv.W + right", "(n + down) * conv.W + right"),
        ("tap % conv.KW * conv.dw - conv.pw", "tap % conv.KW - conv.pw"),
        ("line - tap * conv.C", "0"),
        ("j -= conv.OW;", "j = 0;"),
    ])  # fmt: skip
    yield from kernel("conv_backward_weight", "conv_backward.cu", backward, [
        ("min(begin + part, conv.pixels())", "begin + part"),
        ("min(begin + part, conv.pixels())", "conv.pixels() - 1"),
        ("{grad_y, O, 1, end, ‹y_pixel›}", "O"),
        ("(outputs, ‹m0›, begin", "n0"),
        ("m0, n0, O, ‹depth›, rows_by_four", "depth - 1"),
        ("blockIdx.z * O * depth", "0"),
    ])  # fmt: skip
