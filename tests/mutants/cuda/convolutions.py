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
        ("m * y_pixel + n", "m * O + n"),
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
    asynchronous, fused = [convolution("conv_06_async")], [agreement.fused_epilogue]
    yield from inside("conv_06_async", "cuda/conv_06_async.cu", "void accumulate_conv(", asynchronous, [
        ("m0 + ‹Share<true>().line›", "0"),
        ("channels_by_four(x, conv)", "true"),
        ("filters, ‹n0›, k0", "m0"),
        ("w_by_four); }, ‹0›, conv.depth()", "8"),
        ("0, ‹conv.depth()›, squares", "conv.depth() - 1"),
    ])  # fmt: skip
    for name, checks in (("conv_06_async", asynchronous), ("conv_09_fused", fused)):
        yield from kernel(name, "conv_06_async.cu", checks, [
            ("m0, n0, ‹conv.pixels()›, O,", "conv.pixels() - 1"),
            ("(long long)m * y_pixel + n", "(long long)n * y_pixel + m"),
        ])  # fmt: skip
    yield from kernel("conv_09_fused", "conv_06_async.cu", fused, [
        ("value * scale[n] + shift[n]", "value * scale[n]"),
        ("value * scale[n] + shift[n]", "(value + shift[n]) * scale[n]"),
        ("value * scale[n] + shift[n]", "value * scale[m] + shift[n]"),
        ("value += residual[place];", "value -= residual[place];"),
        ("value > floor ? value : floor", "value"),
        ("value > floor ? value : floor", "value > 0 ? value : 0"),
    ])  # fmt: skip
    yield from kernel("conv_07_tf32", "conv_07_tf32.cu", [convolution("conv_07_tf32")], [
        ("m0 + threadIdx.x / 2", "m0 + threadIdx.x"),
        ("m0 + threadIdx.x / 2", "threadIdx.x / 2"),
        ("channels_by_four(x, conv)", "true"),
        ("filters, ‹n0›, k0", "0"),
        ("}, ‹conv.depth()›, warp", "conv.depth() - 16"),
        ("m * y_pixel + n", "m * O + n"),
    ])  # fmt: skip
    yield from kernel("conv_07_bf16", "conv_07_tf32.cu", [convolution("conv_07_bf16")], [
        ("m0 + threadIdx.x / 2", "m0 + threadIdx.x % 128"),
        ("k0 < conv.depth()", "k0 < 32"),
        ("windows, m0, ‹k0›", "0"),
        ("filters, ‹n0›, k0", "m0"),
        ("m0, n0, ‹conv.pixels()›, O", "conv.pixels() - 1"),
        ("m * y_pixel + n", "m * O + n"),
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
    yield from kernel("conv_08_outputs", "conv_08_winograd.cu", winograd, [
        ("half[0][q] = ‹e[0] + e[1] + e[2]›", "e[0] + e[1] - e[2]"),
        ("half[1][q] = ‹e[1] - e[2] - e[3]›", "e[1] - e[2] + e[3]"),
        ("half[p][0] + half[p][1] + half[p][2]", "half[p][0] + half[p][1]"),
        ("i + p < OH && j + q < OW", "i + p < OH"),
        ("i + p < OH && j + q < OW", "j + q < OW"),
        ("tile % TW * 2", "tile % TW"),
    ])  # fmt: skip

    backward = [convolution("auto", gradients=True)]
    yield from inside("conv_backward_data", "cuda/conv_backward.cu", "struct Outputs", backward, [
        ("part.row0 + i * conv.sh", "part.row0 + i"),
        ("n * conv.OH * conv.OW * conv.y_pixel", "0"),
        ("part.q0 + tap % part.qs * part.q_step", "part.q0 + tap % part.qs"),
        ("row + conv.ph - p * conv.dh", "row - conv.ph + p * conv.dh"),
        ("down < 0 || right < 0", "down < 0"),
        ("i >= conv.OH || j >= conv.OW", "j >= conv.OW"),
        ("(i * conv.OW + j) * conv.y_pixel + o", "(i * conv.OW + j) * conv.O + o"),
    ])  # fmt: skip
    yield from inside("conv_backward_data", "cuda/conv_backward.cu", "struct FiltersOfClass", backward, [
        ("(long long)o * conv.KH + p", "(long long)o * conv.KH + conv.KH - 1 - p"),
        ("c >= conv.C || k >= part.ps * part.qs * conv.O", "c >= conv.C"),
        ("tap / part.qs * part.p_step", "tap / part.qs"),
    ])  # fmt: skip
    yield from kernel("conv_backward_data", "conv_backward.cu", backward, [
        ("0, ‹ps * qs * O›, squares", "ps * qs * O - 1"),
        ("n0, ‹pixels›, C, [&]", "pixels - 1"),
        ("column0 + j * sw", "column0 + j"),
        ("m / columns % rows", "m / rows % rows"),
    ])  # fmt: skip
    yield from kernel("conv_backward_weight", "conv_backward.cu", backward, [
        ("min(begin + part, conv.pixels())", "begin + part"),
        ("min(begin + part, conv.pixels())", "conv.pixels() - 1"),
        ("{grad_y, O, 1, end, ‹y_pixel›}", "O"),
        ("outputs, ‹m0›, k0", "n0"),
        ("windows, n0, ‹k0›", "k0 + 1"),
        ("m0, n0, O, ‹depth›, [&]", "depth - 1"),
        ("blockIdx.z * O * depth", "0"),
    ])  # fmt: skip
    yield from inside("conv_backward_weight", "cuda/conv_backward.cu", "struct WindowsTransposed", backward, [
        ("windows.address(pixel, line)", "windows.address(line, pixel)"),
    ])  # fmt: skip
