"""The bugs in batch norm, pooling, softmax and the elementwise kernels."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import agreement

from ..bug import Bug, inside
from .builders import Checks, kernel, operation


def _batch_norm() -> Iterator[Bug]:
    file, checks = "batch_norm.cu", [operation("batch_norm")]
    for scope, edits in (
        ("void add_value(", [("m.count += 1;", ""), ("before / m.count", "x / m.count"),
                             ("before * (x - m.mean)", "before * before")]),
        ("void merge(", [("apart * other.count / count", "apart / 2"), ("other.mean - m.mean", "m.mean - other.mean"),
                         ("other.squares + ‹apart * apart * m.count * other.count / count›", "real(0)"),
                         ("m.count = count;", "")]),
    ):  # fmt: skip
        yield from inside("batch_norm_moments", f"cuda/{file}", scope, checks, edits)
    yield from kernel("batch_norm_moments", file, checks, [
        ("min(begin + part, pixels)", "begin + part"),
        ("pixel = ‹begin + threadIdx.y›", "begin"),
        ("‹__syncthreads();›", ""),
        ("row < BN_ROWS", "row < BN_ROWS - 1"),
        ("threadIdx.y || c >= C", "threadIdx.y"),
        ("(long long)blockIdx.y * C + c", "c"),
    ])  # fmt: skip
    yield from kernel("batch_norm_merge", file, checks, [
        ("c >= C", "c >= C - 1"),
        ("b < blocks", "b < 1"),
        ("(long long)b * C + c", "(long long)b + c"),
        ("var[c] = ‹m.squares / m.count›", "m.squares / (m.count - 1)"),
        ("mean[c] = ‹m.mean›", "m.mean / 2"),
    ])  # fmt: skip
    apply: Checks = [partial(agreement.batch_norm_fused, kernel=True), *checks]
    yield from kernel("batch_norm_apply", file, apply, [
        ("c >= C", "c > C"),
        ("sqrt(var[c] + eps)", "sqrt(var[c])"),
        ("weight ? weight[c] : real(1)", "real(1)"),
        ("bias ? bias[c] : real(0)", "bias ? -bias[c] : real(0)"),
        ("x[place] - centre", "x[place] + centre"),
        ("value += residual[place];", ""),
        ("value < floor ? floor : value", "value"),
        ("pixel += ‹gridDim.x * BN_ROWS›", "2 * gridDim.x * BN_ROWS"),
    ])  # fmt: skip
    yield from kernel("batch_norm_backward_sums", file, checks, [
        ("min(begin + part, pixels)", "min(begin + part - 1, pixels)"),
        ("sum += ‹grad[place]›", "x[place]"),
        ("x[place] - centre", "x[place]"),
        ("‹__syncthreads();›", ""),
        ("product += ‹rows[row][threadIdx.x][1]›", "rows[row][threadIdx.x][0]"),
        ("row < BN_ROWS", "row < 4"),
    ])  # fmt: skip
    yield from kernel("batch_norm_backward_merge", file, checks, [
        ("b < blocks", "b < blocks - 1"),
        ("product / sqrt(var[c] + eps)", "product"),
        ("product / sqrt(var[c] + eps)", "product / (var[c] + eps)"),
        ("grad_bias[c] = ‹sum›", "-sum"),
        ("* 2 + ‹1›", "0"),
    ])  # fmt: skip
    yield from kernel("batch_norm_backward_input", file, [*checks, operation("batch_norm_eval")], [
        ("batch ? grad_bias[c] / M : real(0)", "real(0)"),
        ("batch ? grad_bias[c] / M : real(0)", "grad_bias[c] / M"),
        ("batch ? grad_weight[c] * inv_std / M : real(0)", "real(0)"),
        ("batch ? grad_weight[c] * inv_std / M : real(0)", "batch ? grad_weight[c] / M : real(0)"),
        ("weight ? weight[c] : real(1)", "weight ? -7 * weight[c] : real(1)"),
        ("(x[place] - centre) * slope", "-(x[place] - centre) * slope"),
        ("c >= C", "c >= C - 1"),
    ])  # fmt: skip


def _elementwise() -> Iterator[Bug]:
    file, grids = "elementwise.cu", agreement.small_grids
    yield from kernel("relu_forward", file, [grids, operation("relu")], [
        ("x[i] <= 0 ? 0 : x[i]", "x[i] > 0 ? x[i] : 0"),  # loses NaN
        ("x[i] <= 0 ? 0 : x[i]", "x[i]"),
        ("x[i] <= 0 ? 0 : x[i]", "x[i] >= 0 ? 0 : x[i]"),
        ("x[i] <= 0 ? 0 : x[i]", "x[i] < -1e-2 ? 0 : x[i]"),
        ("FOR_EACH(i, ‹n›)", "n - 1"),
        ("FOR_EACH(i, ‹n›)", "n + 1"),
    ])  # fmt: skip
    yield from kernel("relu_backward", file, [grids, operation("relu")], [
        ("y[i] > 0 ? grad[i] : 0", "y[i] >= 0 ? grad[i] : 0"),
        ("y[i] > 0 ? grad[i] : 0", "y[i] > 0 ? 1 : 0"),
        ("y[i] > 0 ? grad[i] : 0", "y[i] <= 0 ? 0 : grad[i]"),  # passes at NaN
        ("y[i] > 0 ? grad[i] : 0", "grad[i]"),
        ("y[i] > 0 ? grad[i] : 0", "y[i] < 0 ? grad[i] : 0"),
        ("FOR_EACH(i, ‹n›)", "n - 1"),
    ])  # fmt: skip
    yield from kernel("add_forward", file, [grids, operation("add")], [
        ("a[i] + b[i]", "a[i] - b[i]"),
        ("a[i] + b[i]", "a[i] + a[i]"),
        ("relu && sum <= 0 ? 0 : sum", "sum"),
        ("relu && sum <= 0 ? 0 : sum", "sum <= 0 ? 0 : sum"),
        ("FOR_EACH(i, ‹n›)", "n - 1"),
    ])  # fmt: skip
    yield from kernel("sgd_step", file, [agreement.sgd_of_kernel], [
        ("g[i] + weight_decay * p[i]", "g[i] - weight_decay * p[i]"),
        ("g[i] + weight_decay * p[i]", "g[i]"),
        ("first ? step : momentum * v[i] + step", "momentum * v[i] + step"),
        ("first ? step : momentum * v[i] + step", "first ? step : (1 - momentum) * v[i] + step"),
        ("lr * velocity", "-lr * velocity"),
        ("lr * velocity", "lr * step"),
        ("real(*rate)", "momentum"),
        ("min(start[number] + chunk, sizes[which])", "start[number] + chunk"),
        ("number += gridDim.x", "number += 2 * gridDim.x"),
    ])  # fmt: skip


def _pool() -> Iterator[Bug]:
    file = "pool.cu"
    largest = [operation("max_pool2d")]
    yield from kernel("max_pool_forward", file, largest, [
        ("i * sh + p * dh - ph", "i * sh + p * dh"),
        ("j * sw + q * dw - pw", "j * sw + q * dh - pw"),
        ("row < 0 || row >= H || column < 0 || column >= W", "row < 0 || row >= H || column < 0"),
        ("tap < 0 || (best == best && !(value <= best))", "tap < 0 || (best == best && !(value < best))"),
        ("tap < 0 || (best == best && !(value <= best))", "tap < 0 || value > best"),
        ("tap < 0 || (best == best && !(value <= best))", "tap < 0 || !(value <= best)"),
        ("tap < 0 || (best == best && !(value <= best))", "tap < 0 || value > best || value != value"),  # the last NaN
        ("p * KW + q", "p * KH + q"),
    ])  # fmt: skip
    yield from inside("max_pool_backward", f"cuda/{file}", "bool tap_of(", largest, [
        ("x + padding - o * stride", "x - padding - o * stride"),
        ("along / dilation", "along"),
        ("along >= 0 && along % dilation == 0 && tap < size", "along >= 0 && tap < size"),
    ])  # fmt: skip
    yield from kernel("max_pool_backward", file, largest, [
        ("argmax[place] == p * KW + q", "true"),
        ("argmax[place] == p * KW + q", "argmax[place] == q * KH + p"),
        ("sum += ‹grad[place]›", "1"),
        ("i * sh <= row + ph", "i * sh < row + ph"),
        ("j * sw <= column + pw", "j * sw <= column"),
    ])  # fmt: skip
    average = [operation("avg_pool2d")]
    yield from inside("avg_pool_forward", f"cuda/{file}", "int window_size(", average, [
        ("min(begin + size, length + padding)", "begin + size"),
        ("!include", "include"),
        ("begin = ‹max(begin, 0)›", "begin"),
        ("end = ‹min(end, length)›", "end"),
    ])  # fmt: skip
    yield from kernel("avg_pool_forward", file, average, [
        ("row = ‹max(i * sh - ph, 0)›", "max(i * sh, 0)"),
        ("min(i * sh - ph + KH, H)", "min(i * sh - ph + KH - 1, H)"),
        ("min(j * sw - pw + KW, W)", "j * sw - pw + KW"),
        ("sum / size", "sum / (KH * KW)"),
        ("pixel * C + c", "c * N * OH * OW + pixel"),
    ])  # fmt: skip
    yield from kernel("avg_pool_backward", file, average, [
        ("max((row + ph - KH + sh) / sh, 0)", "0"),
        ("i * sh <= row + ph", "i * sh <= row"),
        ("j * sw <= column + pw", "j * sw < column + pw"),
        ("C + c] / ‹size›", "(KH * KW)"),
        ("window_size(j, sw, pw, KW, W, count_include_pad)", "window_size(i, sw, pw, KW, W, count_include_pad)"),
    ])  # fmt: skip
    adaptive = [operation("adaptive_avg_pool2d")]
    yield from inside("adaptive_avg_pool_forward", f"cuda/{file}", "int bin_end(", adaptive, [
        ("(long long)(i + 1) * size + bins - 1", "(long long)(i + 1) * size"),
        ("(long long)(i + 1) * size + bins - 1", "(long long)i * size + bins - 1"),
    ])  # fmt: skip
    yield from kernel("adaptive_avg_pool_forward", file, adaptive, [
        ("bin_begin(i, H, OH)", "bin_begin(i, OH, H)"),
        ("bin_end(j, W, OW)", "bin_end(j, W, OW) - 1"),
        ("(bottom - top) * (right - left)", "bottom - top"),
        ("row < bottom", "row <= bottom"),
        ("pixel * C + c", "pixel * C"),
    ])  # fmt: skip
    yield from kernel("adaptive_avg_pool_backward", file, adaptive, [
        ("i = ‹bin_begin(row, OH, H)›", "0"),
        ("i < bin_end(row, OH, H)", "i < OH"),
        ("j < bin_end(column, OW, W)", "j < bin_end(column, OW, W) - 1"),
        ("height * width", "height * height"),
        ("bin_end(j, W, OW) - bin_begin(j, W, OW)", "W / OW"),
    ])  # fmt: skip


def _softmax() -> Iterator[Bug]:
    file = "softmax.cu"
    both, loss = [operation("softmax"), operation("log_softmax")], [operation("cross_entropy")]
    for scope, edits in (
        ("real sum_of_warp(", [("bits = ‹16›", "8"), ("bits /= 2", "bits /= 4")]),
        ("real maximum_of_warp(", [("other > value || other != other", "other < value || other != other")]),
        ("void log_sum_exp(", [("largest = ‹maximum_of_warp(largest)›", "0"), ("sum = ‹sum_of_warp(sum)›", "sum")]),
    ):  # fmt: skip
        yield from inside("softmax_forward", f"cuda/{file}", scope, both, edits)
    yield from kernel("softmax_forward", file, both, [
        ("exp(x[k] - largest) / sum", "exp(x[k]) / sum"),
        ("exp(x[k] - largest) / sum", "exp(x[k] - largest)"),
        ("k += ‹32›", "64"),
        ("x += ‹(long long)row * C›", "0"),
        ("k < C", "k <= C"),
    ])  # fmt: skip
    yield from kernel("softmax_backward", file, both, [
        ("grad[k] * y[k]", "grad[k]"),
        ("sum = ‹sum_of_warp(sum)›", "sum"),
        ("y[k] * (grad[k] - sum)", "y[k] * grad[k]"),
        ("y[k] * (grad[k] - sum)", "y[k] * (grad[k] + sum)"),
        ("y[k] * (grad[k] - sum)", "grad[k] - sum"),
    ])  # fmt: skip
    yield from kernel("log_softmax_forward", file, both, [
        ("x[k] - largest - log(sum)", "x[k] - log(sum)"),
        ("x[k] - largest - log(sum)", "x[k] - largest"),
        ("x[k] - largest - log(sum)", "log(exp(x[k] - largest) / sum)"),  # −∞ for a probability that exp rounds to 0
        ("y += ‹(long long)row * C›", "0"),
        ("k = ‹lane›", "lane + 1"),
    ])  # fmt: skip
    yield from kernel("log_softmax_backward", file, both, [
        ("sum += ‹grad[k]›", "grad[k] * y[k]"),
        ("grad[k] - exp(y[k]) * sum", "grad[k] - y[k] * sum"),
        ("grad[k] - exp(y[k]) * sum", "grad[k]"),
        ("grad[k] - exp(y[k]) * sum", "grad[k] + exp(y[k]) * sum"),
        ("sum = ‹sum_of_warp(sum)›", "sum"),
    ])  # fmt: skip
    yield from kernel("cross_entropy_forward", file, loss, [
        ("1 - smoothing", "real(1)"),
        ("smoothing / C", "smoothing"),
        ("total -= ‹target * value›", "value"),
        ("x[k] - largest - log_sum", "x[k] - largest + log_sum"),
        ("loss[row] = ‹total›", "total / rows"),
        ("k == label", "k == label + 1"),
    ])  # fmt: skip
    yield from kernel("cross_entropy_backward", file, loss, [
        ("1 - smoothing", "real(1)"),
        ("smoothing / C", "real(0)"),
        ("exp(log_p[k]) - target", "exp(log_p[k]) + target"),
        ("exp(log_p[k]) - target", "log_p[k] - target"),
        ("grad_loss[row]", "grad_loss[0]"),
    ])  # fmt: skip


def bugs() -> Iterator[Bug]:
    yield from _batch_norm()
    yield from _elementwise()
    yield from _pool()
    yield from _softmax()
