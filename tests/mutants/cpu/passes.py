"""The bugs in batch norm, pooling, softmax, the elementwise kernels and the digest."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import agreement

from ..bug import Bug, inside
from .builders import CONVOLUTIONS, PRODUCTS, Checks, kernel, operation, shared


def _batch_norm() -> Iterator[Bug]:
    file, training = "batch_norm.h", [operation("batch_norm")]
    behind_relu = [agreement.batch_norm_gradients_behind_relu]
    yield from kernel("batch_norm_statistics", file, training, [
        ("sum[v] += ‹load(x + p * C + c + v * L, tail)›", "load(x + p * C + c, tail)"),
        ("T(end - begin)", "T(block)"),
        ("sum[v] += ‹d * d›", "d"),
        ("store(squares + b * C + c + v * L, ‹square[v]›, tail)", "centre[v]"),
        ("b = ‹1›; b < blocks", "2"),
        ("d * (here / (before + here))", "d / T(2)"),
        ("d * d * (before * here / (before + here))", "T(0)"),
        ("spread / T(P)", "spread / T(P - 1)"),
    ])  # fmt: skip
    applied: Checks = [partial(agreement.batch_norm_fused, kernel=False), *training]
    yield from kernel("batch_norm_apply", file, applied, [
        ("bias ? load(bias + c + v * L, tail) : Vec<T>{}", "Vec<T>{}"),
        ("if (added) value += load(added + at, tail);", ""),
        ("if (relu) value = rectified(value);", ""),
        ("if (relu) value = rectified(value);", "value = rectified(value);"),
        ("s[v] = ‹load(scale + c + v * L, tail)›", "load(scale + c, tail)"),
        ("normalised(load(x + at, tail), m[v], s[v], d[v])", "normalised(load(x + at, tail), d[v], s[v], m[v])"),
        ("p < end", "p < end - 1"),
    ])  # fmt: skip
    yield from kernel("batch_norm_sums", file, [*training, *behind_relu], [
        ("normalised(value, m[v], s[v], d[v]) > T(0) ? grad : Vec<T>{}", "grad"),
        ("normalised(value, m[v], s[v], d[v]) > T(0) ? grad : Vec<T>{}",
         "normalised(value, m[v], s[v], d[v]) >= T(0) ? grad : Vec<T>{}"),
        ("bias ? load(bias + c + v * L, tail) : Vec<T>{}", "Vec<T>{}"),
        ("grad * (value - m[v])", "grad * value"),
        ("store(second + b * C + c + v * L, ‹total[V + v]›, tail)", "total[v]"),
        ("i < blocks", "i < 1"),
        ("sum_g_centred[c] = ‹b›", "a"),
    ])  # fmt: skip
    yield from kernel("batch_norm_input", file, [*training, *behind_relu], [
        ("normalised(value, m[v], s[v], d[v]) > T(0) ? grad : Vec<T>{}", "grad"),
        ("normalised(value, m[v], s[v], d[v]) > T(0) ? grad : Vec<T>{}",
         "normalised(value, m[v], s[v], d[v]) >= T(0) ? grad : Vec<T>{}"),
        ("s[v] * (grad - o[v] - (value - m[v]) * k[v])", "s[v] * (grad - o[v] + (value - m[v]) * k[v])"),
        ("s[v] * (grad - o[v] - (value - m[v]) * k[v])", "s[v] * (grad - (value - m[v]) * k[v])"),
        ("s[v] * (grad - o[v] - (value - m[v]) * k[v])", "s[v] * (grad - o[v])"),
        ("s[v] * (grad - o[v] - (value - m[v]) * k[v])", "grad - o[v] - (value - m[v]) * k[v]"),
        ("end = ‹min(begin + block, P)›", "min(begin + block, P) - 1"),
    ])  # fmt: skip
    yield from kernel("sum_pixels", file, [agreement.sums_of_pixels], [
        ("sum[v] += ‹load(g + p * C + c + v * L, tail)›", "load(g + p * C + c, tail)"),
        ("b < blocks", "b < 1"),
        ("min(begin + block, P)", "begin + block"),
        ("store(parts + b * C + c + v * L, ‹total[v]›, tail)", "total[0]"),
        ("parts + b * C + c + v * L", "parts + c + v * L"),
    ])  # fmt: skip
    yield from inside("sum_pixels", "cpu/batch_norm.h", "void sum_in_runs(", [agreement.sums_of_pixels], [
        ("sum[0][v] + sum[1][v]", "sum[0][v]"),
        ("sum[0][v] + sum[1][v]", "sum[0][v] - sum[1][v]"),
        ("min(run + RUN_OF_PIXELS, end)", "min(run + RUN_OF_PIXELS, end - 1)"),
        ("p < stop", "false"),
    ])  # fmt: skip
    yield from inside("batch_norm_statistics", "cpu/batch_norm.h", "void strips(", training, [
        ("c < C", "false"),
    ])  # fmt: skip


def _elementwise() -> Iterator[Bug]:
    file, relu = "elementwise.h", [operation("relu")]
    yield from kernel("relu_forward", file, relu, [
        ("store(y + i, ‹rectified(v)›)", "v"),
        ("store(y + i, ‹rectified(v)›)", "-v"),
        ("y[i] = ‹rectified(x[i])›", "x[i]"),
        ("y[i] = ‹rectified(x[i])›", "T(0)"),
        ("x + i", "x"),
    ])  # fmt: skip
    yield from kernel("relu_backward", file, relu, [
        ("load(y + i) > T(0) ? load(g + i) : Vec<T>{}", "load(y + i) >= T(0) ? load(g + i) : Vec<T>{}"),
        ("load(y + i) > T(0) ? load(g + i) : Vec<T>{}", "load(g + i)"),
        ("load(y + i) > T(0) ? load(g + i) : Vec<T>{}", "load(y + i) < T(0) ? load(g + i) : Vec<T>{}"),
        ("y[i] > T(0) ? g[i] : T(0)", "g[i]"),
        ("y[i] > T(0) ? g[i] : T(0)", "T(0)"),
        ("y[i] > T(0) ? g[i] : T(0)", "y[i] >= T(0) ? g[i] : T(0)"),
        ("y[i] > T(0) ? g[i] : T(0)", "y[i] <= T(0) ? T(0) : g[i]"),  # passes at NaN
        ("load(y + i) > T(0) ? load(g + i) : Vec<T>{}", "load(y + i) <= T(0) ? Vec<T>{} : load(g + i)"),
        ("load(y + i) > T(0) ? load(g + i) : Vec<T>{}", "load(y + i) == T(0) ? Vec<T>{} : load(g + i)"),
    ])  # fmt: skip
    yield from kernel("add", file, [agreement.adds_with_relu, operation("add")], [
        ("load(a + i) + load(b + i)", "load(a + i) - load(b + i)"),
        ("store(y + i, ‹relu ? rectified(v) : v›)", "v"),
        ("store(y + i, ‹relu ? rectified(v) : v›)", "rectified(v)"),
        ("a[i] + b[i]", "a[i]"),
        ("y[i] = ‹relu ? rectified(v) : v›", "v"),
    ])  # fmt: skip
    yield from kernel("sgd_step", file, [agreement.native_sgd], [
        ("momentum * v[i] + (g[i] + weight_decay * p[i])", "momentum * v[i] + g[i]"),
        ("momentum * v[i] + (g[i] + weight_decay * p[i])", "momentum * v[i] + (g[i] - weight_decay * p[i])"),
        ("momentum * v[i] + (g[i] + weight_decay * p[i])", "g[i] + weight_decay * p[i]"),
        ("momentum * v[i] + (g[i] + weight_decay * p[i])", "momentum * (v[i] + (g[i] + weight_decay * p[i]))"),
        ("lr * v[i]", "-lr * v[i]"),
        ("lr * v[i]", "lr * g[i]"),
    ])  # fmt: skip
    yield from shared("simd.h", "load_partial(const T* from, long n)", PRODUCTS, [("i < n", "i < n - 1")])
    yield from shared("simd.h", "store_partial(T* to", PRODUCTS, [("i < n", "i <= n"), ("i < n", "i < n - 1")])
    yield from shared("simd.h", "V normalised(V x", [partial(agreement.batch_norm_fused, kernel=False)], [
        ("(x - mean) * scale + bias", "(x + mean) * scale + bias"),
        ("(x - mean) * scale + bias", "(x - mean) * scale"),
    ])  # fmt: skip
    yield from shared("simd.h", "V rectified(V x", relu, [
        ("x < 0 ? V{} : x", "x > 0 ? x : V{}"),  # loses NaN
        ("x < 0 ? V{} : x", "x < 0 ? x - x : x"),  # NaN of −∞
    ])  # fmt: skip
    yield from shared("simd.h", "void copy(T* to", CONVOLUTIONS, [("from[i]", "from[0]")])
    yield from shared("simd.h", "void zero(T* to", CONVOLUTIONS, [("T(0)", "T(1)"), ("i < n", "i < n - 1")])


def _vectors() -> Iterator[Bug]:
    for scope, edits in {
        "void norm_constants(": [("v[c] + T(eps)", "v[c]"), ("i[c] * w[c]", "w[c]")],
        "void norm_slopes(": [
            ("d[c] * i[c]", "d[c]"), ("g[c] / T(P)", "g[c]"), ("i[c] * w[c] / T(P)", "w[c] / T(P)"),
            ("i[c] * w[c] / T(P)", "i[c] * w[c]"),
        ],
        "void move_statistic(": [("t[c] * T(correction)", "t[c]"), ("T(momentum)", "T(1)"), ("- ‹r[c]›)", "T(0)")],
        "void multiply(": [("a[i] * b[i]", "a[i] * b[0]")],
        "void fill(": [("(value)", "(0)")],
        "void mean(": [("(n)", "(n + 1)")],
        "T sum_by_halves(": [("n - n / 2", "n / 2 - 1"), ("i < n", "i < n - 1")],
        "void copy_row(": [("from + i * axis.from", "from + i * axis.to"), ("axis.from == sizeof(Item)", "true")],
        "void copy_axes(": [("rest % axes[i].size * axes[i].from", "0"), ("rest /= axes[i].size;", "")],
        "std::vector<Axis> joined_axes(": [
            ("joined.back().from == axis.size * axis.from", "true"), ("to.shape(i) != 1", "to.shape(i) > 2"),
        ],
    }.items():  # fmt: skip
        yield from inside("vectors", "cpu/vectors.cpp", scope, [agreement.between_kernels], edits)


def _pool() -> Iterator[Bug]:
    file, largest = "pool.h", [operation("max_pool2d")]
    average = [operation("avg_pool2d"), operation("adaptive_avg_pool2d")]
    yield from inside("max_pool2d_forward", "cpu/pool.h", "void inside(long start", largest, [
        ("ceil_div(-start, dilation)", "-start / dilation"),
        ("ceil_div(size - start, dilation)", "(size - start) / dilation"),
    ])  # fmt: skip
    yield from inside("max_pool2d_forward", "cpu/pool.h", "void max_pool2d_forward_of(", largest, [
        ("nh % s.OH * s.stride_h - s.padding_h", "nh % s.OH * s.stride_h"),
        ("!(in[c] <= best[c]) & (best[c] == best[c])", "!(in[c] < best[c]) & (best[c] == best[c])"),
        ("!(in[c] <= best[c]) & (best[c] == best[c])", "in[c] > best[c]"),
        ("!(in[c] <= best[c]) & (best[c] == best[c])", "!(in[c] <= best[c])"),
        ("!(in[c] <= best[c]) & (best[c] == best[c])", "(in[c] > best[c]) | (in[c] != in[c])"),  # the last NaN
        ("!(in[c] <= best[c]) & (best[c] == best[c])", "(in[c] >= best[c]) & (best[c] == best[c])"),
        ("tap_of_best[c] = ‹Index<T>(r0 * s.kernel_w + c0)›", "Index<T>(0)"),  # outside, of a window of −∞
        ("tap_of_best[c] = ‹Index<T>(r0 * s.kernel_w + c0)›", "Index<T>(c0)"),
        ("tap_of_best[c] = ‹Index<T>(r0 * s.kernel_w + c0)›", "Index<T>(r0 * s.kernel_w)"),
        ("tap = ‹Index<T>(r * s.kernel_w + q)›", "Index<T>(r * s.kernel_h + q)"),
        ("best[c] = ‹-__builtin_huge_val()›", "0"),
        ("left + q * s.dilation_w", "left + q"),
        ("min(PIECE_OF_CHANNELS, s.C - first)", "min(PIECE_OF_CHANNELS, s.C)"),
    ])  # fmt: skip
    yield from inside("max_pool2d_backward", "cpu/pool.h", "void max_pool2d_backward_of(", largest, [
        ("zero(row, s.W * s.C);", ""),
        ("below - r * s.dilation_h", "below - r"),
        ("at % s.stride_h != 0", "false"),
        ("arg[c] == tap ? g[c] : T(0)", "g[c]"),
        ("static_cast<Tap>(r * s.kernel_w + q)", "static_cast<Tap>(q * s.kernel_h + r)"),
    ])  # fmt: skip
    yield from kernel("average2d_forward", file, average, [
        ("h = ‹s.h_begin[oh]›", "0"),
        ("w < s.w_end[ow]", "w < s.w_end[ow] - 1"),
        ("s.size[oh * s.OW + ow]", "s.size[0]"),
        ("sum[c] += ‹in[c]›", "in[0]"),
        ("count = ‹min(PIECE_OF_CHANNELS, s.C - first)›", "1"),
    ])  # fmt: skip
    yield from kernel("average2d_backward", file, average, [
        ("zero(row, s.W * s.C);", ""),
        ("h < s.h_begin[oh] || h >= s.h_end[oh]", "h < s.h_begin[oh]"),
        ("g[c] / size", "g[c]"),
        ("g[c] / size", "-g[c] / size"),
        ("w < s.w_end[ow]", "w < s.w_end[ow] - 1"),
        ("s.size[oh * s.OW + ow]", "s.size[ow]"),
    ])  # fmt: skip


def _softmax() -> Iterator[Bug]:
    file, both, loss = "softmax.h", [operation("softmax"), operation("log_softmax")], [operation("cross_entropy")]
    yield from inside("softmax", "cpu/softmax.h", "void softmax_row(", both, [
        ("!(x[c] <= top) ? x[c] : top", "top"),
        ("exponential(x[c] - top)", "exponential(x[c])"),
        ("y[c] = ‹log ? x[c] - top : e›", "e"),
        ("log ? logarithm(sum) : sum", "sum"),
        ("log ? y[c] - whole : y[c] / whole", "y[c] / whole"),
        ("sum += ‹e›", "e * e"),
        ("c = ‹1›; c < C", "2"),
    ])  # fmt: skip
    yield from kernel("softmax_backward", file, both, [
        ("log ? g[c] : g[c] * y[c]", "g[c]"),
        ("log ? g[c] : g[c] * y[c]", "g[c] * y[c]"),
        ("g[c] - exponential(y[c]) * sum", "g[c] - y[c] * sum"),
        ("y[c] * (g[c] - sum)", "y[c] * (g[c] + sum)"),
        ("y[c] * (g[c] - sum)", "y[c] * g[c]"),
    ])  # fmt: skip
    yield from kernel("cross_entropy_forward", file, loss, [
        ("smoothing == T(0)", "true"),
        ("loss[r] = ‹-p[labels[r]]›", "p[labels[r]]"),
        ("(T(1) - smoothing) * p[labels[r]]", "p[labels[r]]"),
        ("sum / double(C)", "sum"),
        ("softmax_row(C, x + r * C, p, ‹true›)", "false"),
    ])  # fmt: skip
    yield from kernel("cross_entropy_backward", file, loss, [
        ("smoothing / T(C)", "smoothing"),
        ("c == labels[r] ? T(1) - smoothing : T(0)", "c == labels[r] ? T(1) : T(0)"),
        ("exponential(log_p[r * C + c]) - target", "exponential(log_p[r * C + c])"),
        ("exponential(log_p[r * C + c]) - target", "target - exponential(log_p[r * C + c])"),
        ("grad_loss[r]", "grad_loss[0]"),
    ])  # fmt: skip
    yield from kernel("digest", "digest.h", [agreement.digest_sees_every_change], [
        ("rows * (part + 1) / PARTS", "rows * part / PARTS"),
        ("row * LANES_OF_DIGEST + v * L", "row * LANES_OF_DIGEST"),
        ("4 * (words - rows * LANES_OF_DIGEST)", "0"),
        ("part < PARTS", "part < PARTS - 1"),
    ])  # fmt: skip
    yield from inside("digest", "cpu/digest.h", "Words mixed(", [agreement.digest_sees_every_change], [
        ("(state ^ word) * 0x9E3779B1u", "(state ^ word) * 0x9E3779B0u"),  # loses the sign
        ("product << 13 | product >> 19", "product << 13"),
    ])  # fmt: skip


def bugs() -> Iterator[Bug]:
    yield from _batch_norm()
    yield from _vectors()
    yield from _elementwise()
    yield from _pool()
    yield from _softmax()
