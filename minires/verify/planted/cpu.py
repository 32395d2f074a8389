"""The bugs that are planted in the C++ kernels of csrc/cpu, which every instruction set is compiled from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial

from minires.verify import agreement
from minires.verify.planted.mutant import Mutant, within

Checks = Sequence[Callable[[], None]]
Edits = Sequence[tuple[str, str]]

CONVOLUTIONS = [agreement.native_convolutions]
WINOGRAD = [partial(agreement.native_convolutions, winograd=True)]
PRODUCTS = [agreement.native_products]
FOLLOWED = [partial(agreement.what_follows_a_convolution, winograd=False)]
WINOGRAD_FOLLOWED = [partial(agreement.what_follows_a_convolution, winograd=True)]


def _kernel(name: str, file: str, checks: Checks, edits: Edits) -> Iterator[Mutant]:
    return within(name, f"cpu/{file}", f"void {name}(", checks, edits)


def _shared(file: str, scope: str, checks: Checks, edits: Edits) -> Iterator[Mutant]:
    return within(file, f"cpu/{file}", scope, checks, edits)


@cache
def _operation(name: str) -> Callable[[], None]:
    return partial(agreement.agree_with_reference, "native", name)


def _convolutions() -> Iterator[Mutant]:
    file = "conv2d.h"
    yield from within("conv2d_filters", "cpu/conv2d.h", "filters_of_group(const Conv2d& c", CONVOLUTIONS, [
        ("taps, ‹taps * C›, taps", "taps"),
        ("c.O / c.groups, ‹C›, taps", "C - 1"),
    ])  # fmt: skip
    yield from within("conv2d_filters", "cpu/conv2d.h", "long conv2d_filters_size(", CONVOLUTIONS, [
        ("c.groups * one.packed_size()", "one.packed_size()"),
    ])  # fmt: skip
    yield from _kernel("conv2d_filters", file, CONVOLUTIONS, [
        ("tap[t] = ‹t›", "c.KH * c.KW - 1 - t"),
        ("g * (c.O / c.groups) * (c.C / c.groups) * c.KH * c.KW", "0"),
        ("g * group.packed_size()", "0"),
        ("g < c.groups", "g < 1"),
    ])  # fmt: skip
    yield from _kernel("conv2d_forward", file, CONVOLUTIONS, [
        ("r * c.dilation_h - c.padding_h", "r * c.dilation_h + c.padding_h"),
        ("s * c.dilation_w - c.padding_w", "s - c.padding_w"),
        ("x + g * C", "x"),
        ("y + g * O", "y"),
        ("bias ? bias + g * O : nullptr", "bias"),
        ("bias ? bias + g * O : nullptr", "nullptr"),
        ("‹c.stride_h›, c.stride_w, c.OH", "c.stride_w"),
    ])  # fmt: skip
    backward = [*CONVOLUTIONS, agreement.a_gradient_that_came_by_another_way]
    yield from within("conv2d_backward_input", "cpu/conv2d.h", "long taps_of(", CONVOLUTIONS, [
        ("first + padding - k * dilation", "first - padding - k * dilation"),
        ("first + padding - k * dilation", "first + padding - k"),
        ("distance[found] = ‹at / stride›", "at"),
        ("long k = ‹K - 1›", "K - 2"),
    ])  # fmt: skip
    yield from _kernel("conv2d_backward_input", file, backward, [
        ("added ? copy(grad_x + at, added + at, c.C) : zero(grad_x + at, c.C);", "zero(grad_x + at, c.C);"),
        ("added ? copy(grad_x + at, added + at, c.C) : zero(grad_x + at, c.C);", ""),
        ("row_tap[r] * c.KW + column_tap[s]", "column_tap[s] * c.KH + row_tap[r]"),
        ("w + g * O * C * taps", "w"),
        ("grad_y + g * O", "grad_y"),
        ("added ? added + g * C : nullptr", "nullptr"),
        ("H = ‹ceil_div(c.H - a, c.stride_h)›", "(c.H - a) / c.stride_h"),
        ("c.stride_h, c.stride_w, ‹a›, b}", "0"),
    ])  # fmt: skip
    yield from _kernel("conv2d_backward_input", file, WINOGRAD, [
        ("‹8›, 7, 6, 5", "0"),
        ("c.C, c.H, c.W, ‹2 - c.padding_h›, 2 - c.padding_w};", "c.padding_h"),
    ])  # fmt: skip
    yield from _kernel("conv2d_backward_weight", file, CONVOLUTIONS, [
        ("r * c.dilation_h - c.padding_h", "r * c.dilation_h"),
        ("x + g * C", "x"),
        ("grad_y + g * O", "grad_y"),
        ("grad_w + g * O * C * taps", "grad_w"),
        ("from[t * C + i]", "from[i * taps + t]"),
        ("to[i * taps + t]", "to[i * taps + taps - 1 - t]"),
    ])  # fmt: skip


def _products() -> Iterator[Mutant]:
    yield from _kernel("matmul", "gemm.h", PRODUCTS, [
        ("transposed ? K : 1", "1"),
        ("transposed ? 1 : N", "N"),
        ("packed, ‹N›, bias", "N - 1"),
        ("1, 1, 1, ‹M›}", "M - 1"),
        ("{c, 1, M, ‹N›}", "N + 1"),
        ("N, ‹bias›, Finish", "nullptr"),
    ])  # fmt: skip
    yield from _shared("gemm.h", "void pack(", [*PRODUCTS, *CONVOLUTIONS], [
        ("task % pieces * PIECE", "task % pieces"),
        ("strip * S * f.depth()", "strip * S"),
        ("(t * f.channels + i) * S", "(i * f.taps + t) * S"),
        ("(t * f.channels + i + e) * S", "(t * f.channels + i) * S"),
        ("lines[e][j] = ‹from[e * f.channel]›", "from[0]"),
        ("to[j] = ‹from[j * f.filter]›", "from[j]"),
    ])  # fmt: skip
    yield from _shared("gemm.h", "Finish<T> at_column(", FOLLOWED, [
        ("f.mean + column", "f.mean"),
        ("f.scale + column", "f.scale"),
        ("f.shift + column", "f.shift"),
    ])  # fmt: skip
    yield from _shared("gemm.h", "void multiply(const Windows", [*PRODUCTS, *CONVOLUTIONS, *FOLLOWED], [
        ("h * places.step_h + places.first_h", "h * places.step_h"),
        ("w * places.step_w + places.first_w", "w + places.first_w"),
        ("const long first = ‹K * run / runs›", "0"),
        ("bias + column : nullptr, ‹run > 0›", "false"),
        ("‹run == 0 && bias› ?", "bias != nullptr"),
        ("run == runs - 1 && does_something(finish)", "does_something(finish)"),
        ("finish.added ? finish.added - places.image : 0", "0"),
        ("n > LANES<T> ? 2 : 1", "1"),
        ("rows[p - begin] = ‹places.image›", "places.image + 1"),
    ])  # fmt: skip
    yield from _kernel("matmul_at", "gemm_at.h", PRODUCTS, [
        ("(a, ‹M›, M, rows", "M + 1"),
        ("(a, M, ‹M›, rows", "M - 1"),
        ("rows{b, 1, ‹K›, N", "K - 1"),
        ("rows{b, 1, K, ‹N›, N", "N - 1"),
        ("1, 1, 1, ‹K›}", "K - 1"),
    ])  # fmt: skip
    yield from _shared("gemm_at.h", "void multiply_transposed(", [*PRODUCTS, *CONVOLUTIONS], [
        ("count * (row_block + 1) / row_blocks", "count * (row_block + 1) / row_blocks - 1"),
        ("nullptr, ‹p > begin›, nullptr", "false"),
        ("nullptr, ‹p > begin›, nullptr", "true"),
        ("long s = ‹1›", "2"),
        ("sum += out[‹s * count * K + i›]", "i"),
        ("M * (segment + 1) / segments", "M * (segment + 1) / segments - 1"),
        ("zero(rows[o - top] + first, last - first);", ""),
        ("slots_of_panel += ‹depth * SLOT<T>›", "0"),
        ("slots[o] = ‹from[o]›", "from[0]"),
        ("right + j", "right"),
    ])  # fmt: skip
    yield from _shared("windows.h", "void write_windows(", CONVOLUTIONS, [
        ("s.column[i] == s.column[i - 1] + 1", "true"),
        ("joined = ‹s.C == s.pitch›", "true"),
        ("first_offset = ‹first % run›", "0"),
        ("h * s.step_h + s.row[r]", "h + s.row[r]"),
        ("ih < 0 || ih >= s.H", "ih < 0"),
        ("least(s.W - iw, width)", "width"),
        ("if (a > 0) zero(out, a);", ""),
        ("if (b < length) zero(out + b, length - b);", ""),
        ("offset = 0;", ""),
        ("n = ‹begin / s.out_w / s.out_h›", "0"),
    ])  # fmt: skip
    tile = [*PRODUCTS, *CONVOLUTIONS, *FOLLOWED]
    yield from _shared("tile.h", "void tile(long depth", tile, [
        ("if (ends.accumulate) c[i][j] += get(to, tail);", ""),
        ("left * right[j]", "-left * right[j]"),
        ("left * right[j]", "left * right[0]"),
        ("(i % 3) * pitch", "0"),
        ("const long tail = ‹tail_of<T>(n, j)›", "0"),
        ("base[0] + i * sizeof(T)", "base[0]"),
        ("ends.start && j * L < n ? ‹get(ends.start + j * L, tail_of<T>(n, j))›", "Vec<T>{}"),
        ("f->added ? get(to + ends.added, tail) : mean", "mean"),
    ])  # fmt: skip
    yield from _shared("tile.h", "V finished(V v", [*FOLLOWED, *WINOGRAD_FOLLOWED], [
        ("f.relu ? rectified(v) : v", "v"),
        ("v += added;", "v -= added;"),
        ("v = normalised(v, mean, scale, shift);", "v = normalised(v, shift, scale, mean);"),
    ])  # fmt: skip
    yield from _shared("tile.h", "void panels(", tile, [("rows * (i + 1) / count", "rows * (i + 1) / count - (i + 1 == count)")])


def _winograd() -> Iterator[Mutant]:
    file = "winograd.h"
    for scope, edits in {
        "void for_both_signs(V even_p": [
            ("to[2 * step] = ‹even_p - odd_p›", "even_p + odd_p"),
            ("to[3 * step] = ‹even_q + odd_q›", "even_p + odd_q"),
        ],
        "void transform_input(V d0": [
            ("d4 - d2 * T(POINT_Q2)", "d4 + d2 * T(POINT_Q2)"),
            ("(d3 - d1 * T(POINT_P2)) * T(POINT_Q)", "(d3 - d1 * T(POINT_P2)) * T(POINT_P)"),
            ("d0 * T(POINT_P2 * POINT_Q2) - d2 * T(POINT_P2 + POINT_Q2) + d4",
             "d0 * T(POINT_P2 * POINT_Q2) - d2 * T(POINT_P2 + POINT_Q2)"),
        ],
        "void transform_output(const V* m": [
            ("m[0] + sum_p + sum_q", "m[0] + sum_p - sum_q"),
            ("difference_p * T(POINT_P) + difference_q * T(POINT_Q)", "difference_p * T(POINT_Q) + difference_q * T(POINT_P)"),
            ("difference_p * T(POINT_P3) + difference_q * T(POINT_Q3) + m[5 * step]",
             "difference_p * T(POINT_P3) + difference_q * T(POINT_Q3)"),
        ],
        "void transform_filter(V g0": [
            ("g0 * T(1 / AT_P) + g2 * T(POINT_P2 / AT_P)", "g0 * T(1 / AT_P) - g2 * T(POINT_P2 / AT_P)"),
            ("to[5 * step] = ‹g2›", "g0"),
            ("g0 * T(1 / AT_0)", "g0"),
        ],
        "void transform_gradient(V y0": [
            ("y0 + y2 * T(POINT_P2)", "y0 + y2"),
            ("y1 * T(POINT_Q) + y3 * T(POINT_Q3)", "y1 * T(POINT_Q)"),
        ],
        "void transform_filter_back(const V* u": [
            ("difference_p * T(POINT_P / AT_P) + difference_q * T(POINT_Q / AT_Q)", "difference_p * T(POINT_P / AT_P)"),
            ("sum_p * T(POINT_P2 / AT_P) + sum_q * T(POINT_Q2 / AT_Q) + u[5 * step]",
             "sum_p * T(POINT_P2 / AT_P) + sum_q * T(POINT_Q2 / AT_Q) - u[5 * step]"),
        ],
        "struct TileAt": [
            ("t / s.columns() % s.rows() * 4", "t / s.columns() % s.rows() * 2"),
            ("t / (s.rows() * s.columns())", "0"),
        ],
        "void square(const T* image": [
            ("h >= 0 && h < H && w >= 0 && w < W", "h >= 0 && w >= 0 && w < W"),
            ("h >= 0 && h < H && w >= 0 && w < W", "h >= 0 && h < H && w >= 0"),
            ("left + c", "left + r"),
        ],
        "void write_inputs(": [
            ("tile.h - s.padding_h", "tile.h"),
            ("tile.w - s.padding_w", "tile.w + s.padding_w"),
        ],
        "void write_gradients(": [("(r * 6 + k) * plane", "(k * 6 + r) * plane")],
        "void write_outputs(": [
            ("least(4, s.OH - tile.h)", "4"),
            ("least(4, s.OW - tile.w)", "3"),
        ],
        "void write_filters(": [
            ("strip * f.channels + i", "strip * f.channels"),
            ("filter[i * f.channel + f.tap[t]]", "filter[i * f.channel + t]"),
        ],
        "void winograd_forward(": [
            ("nullptr, ‹run > 0›, nullptr", "false"),
            ("task / blocks, block = ‹task % blocks›", "0"),
            ("point * u_plane + strip * S * s.C + first * S", "point * u_plane + strip * S * s.C"),
        ],
        "void winograd_backward_weight(": [
            ("nullptr, ‹begin > start›, nullptr", "false"),
            ("k = ‹1›; k < segments", "2"),
            ("line[t][i]", "line[8 - t][i]"),
        ],
    }.items():  # fmt: skip
        yield from _shared(file, scope, WINOGRAD, edits)
    yield from _shared(file, "void write_outputs(", WINOGRAD_FOLLOWED, [
        ("bias ? out[r][k] + start : out[r][k]", "out[r][k]"),
        ("finish.added ? get(to + added, tail) : mean", "mean"),
    ])  # fmt: skip


def _batch_norm() -> Iterator[Mutant]:
    file, training = "batch_norm.h", [_operation("batch_norm")]
    behind_relu = [agreement.batch_norm_gradients_behind_relu]
    yield from _kernel("batch_norm_statistics", file, training, [
        ("sum[p & 1][v] += ‹get(x + p * C + c + v * L, tail)›", "get(x + p * C + c, tail)"),
        ("(sum[0][v] + sum[1][v]) / T(end - begin)", "(sum[0][v] + sum[1][v]) / T(block)"),
        ("square[p & 1][v] += ‹d * d›", "d"),
        ("square[0][v] + square[1][v]", "square[0][v]"),
        ("b = ‹1›; b < blocks", "2"),
        ("d * (here / (before + here))", "d / T(2)"),
        ("d * d * (before * here / (before + here))", "T(0)"),
        ("spread / T(P)", "spread / T(P - 1)"),
    ])  # fmt: skip
    applied = [partial(agreement.batch_norm_fused, kernel=False), *training]
    yield from _kernel("batch_norm_apply", file, applied, [
        ("bias ? get(bias + c + v * L, tail) : Vec<T>{}", "Vec<T>{}"),
        ("if (added) value += get(added + at, tail);", ""),
        ("if (relu) value = rectified(value);", ""),
        ("if (relu) value = rectified(value);", "value = rectified(value);"),
        ("s[v] = ‹get(scale + c + v * L, tail)›", "get(scale + c, tail)"),
        ("normalised(get(x + at, tail), m[v], s[v], d[v])", "normalised(get(x + at, tail), d[v], s[v], m[v])"),
        ("p < end", "p < end - 1"),
    ])  # fmt: skip
    yield from _kernel("batch_norm_sums", file, [*training, *behind_relu], [
        ("normalised(value, m[v], s[v], d[v]) > T(0) ? grad : Vec<T>{}", "grad"),
        ("bias ? get(bias + c + v * L, tail) : Vec<T>{}", "Vec<T>{}"),
        ("grad * (value - m[v])", "grad * value"),
        ("sum[0][v] + sum[1][v]", "sum[1][v]"),
        ("i < blocks", "i < 1"),
        ("sum_g_centred[c] = ‹b›", "a"),
    ])  # fmt: skip
    yield from _kernel("batch_norm_input", file, [*training, *behind_relu], [
        ("normalised(value, m[v], s[v], d[v]) > T(0) ? grad : Vec<T>{}", "grad"),
        ("s[v] * (grad - o[v] - (value - m[v]) * k[v])", "s[v] * (grad - o[v] + (value - m[v]) * k[v])"),
        ("s[v] * (grad - o[v] - (value - m[v]) * k[v])", "s[v] * (grad - (value - m[v]) * k[v])"),
        ("s[v] * (grad - o[v] - (value - m[v]) * k[v])", "s[v] * (grad - o[v])"),
        ("s[v] * (grad - o[v] - (value - m[v]) * k[v])", "grad - o[v] - (value - m[v]) * k[v]"),
        ("end = ‹least(begin + block, P)›", "least(begin + block, P) - 1"),
    ])  # fmt: skip
    yield from _kernel("sum_pixels", file, [agreement.sums_of_pixels], [
        ("total[0][v] + total[1][v]", "total[0][v]"),
        ("total[0][v] + total[1][v]", "total[0][v] - total[1][v]"),
        ("b < blocks", "b < 1"),
        ("least(begin + block, P)", "begin + block"),
        ("g + p * C + c + v * L", "g + p * C + c"),
        ("parts + b * C + c + v * L", "parts + c + v * L"),
    ])  # fmt: skip
    yield from _shared("batch_norm.h", "void strips(", [*training, *applied], [
        ("c < C", "false"),
    ])  # fmt: skip


def _elementwise() -> Iterator[Mutant]:
    file, relu = "elementwise.h", [_operation("relu")]
    yield from _kernel("relu_forward", file, relu, [
        ("store(y + i, ‹rectified(v)›)", "v"),
        ("store(y + i, ‹rectified(v)›)", "-v"),
        ("y[i] = ‹rectified(x[i])›", "x[i]"),
        ("y[i] = ‹rectified(x[i])›", "T(0)"),
        ("x + i", "x"),
    ])  # fmt: skip
    yield from _kernel("relu_backward", file, relu, [
        ("load(y + i) > T(0) ? load(g + i) : Vec<T>{}", "load(y + i) >= T(0) ? load(g + i) : Vec<T>{}"),
        ("load(y + i) > T(0) ? load(g + i) : Vec<T>{}", "load(g + i)"),
        ("load(y + i) > T(0) ? load(g + i) : Vec<T>{}", "load(y + i) < T(0) ? load(g + i) : Vec<T>{}"),
        ("y[i] > T(0) ? g[i] : T(0)", "g[i]"),
        ("y[i] > T(0) ? g[i] : T(0)", "T(0)"),
    ])  # fmt: skip
    yield from _kernel("add", file, [agreement.adds_with_relu, _operation("add")], [
        ("load(a + i) + load(b + i)", "load(a + i) - load(b + i)"),
        ("store(y + i, ‹relu ? rectified(v) : v›)", "v"),
        ("store(y + i, ‹relu ? rectified(v) : v›)", "rectified(v)"),
        ("a[i] + b[i]", "a[i]"),
        ("y[i] = ‹relu ? rectified(v) : v›", "v"),
    ])  # fmt: skip
    yield from _kernel("sgd_step", file, [agreement.native_sgd], [
        ("momentum * v[i] + (g[i] + weight_decay * p[i])", "momentum * v[i] + g[i]"),
        ("momentum * v[i] + (g[i] + weight_decay * p[i])", "momentum * v[i] + (g[i] - weight_decay * p[i])"),
        ("momentum * v[i] + (g[i] + weight_decay * p[i])", "g[i] + weight_decay * p[i]"),
        ("momentum * v[i] + (g[i] + weight_decay * p[i])", "momentum * (v[i] + (g[i] + weight_decay * p[i]))"),
        ("lr * v[i]", "-lr * v[i]"),
        ("lr * v[i]", "lr * g[i]"),
    ])  # fmt: skip
    yield from _shared("simd.h", "load_some(const T* from, long n)", PRODUCTS, [("i < n", "i < n - 1")])
    yield from _shared("simd.h", "store_some(T* to", PRODUCTS, [("i < n", "i <= n"), ("i < n", "i < n - 1")])
    yield from _shared("simd.h", "V normalised(V x", [partial(agreement.batch_norm_fused, kernel=False)], [
        ("(x - mean) * scale + bias", "(x + mean) * scale + bias"),
        ("(x - mean) * scale + bias", "(x - mean) * scale"),
    ])  # fmt: skip
    yield from _shared("simd.h", "V rectified(V x", relu, [("x < 0 ? V{} : x", "x > 0 ? x : V{}")])  # loses NaN
    yield from _shared("simd.h", "void copy(T* to", CONVOLUTIONS, [("from[i]", "from[0]")])
    yield from _shared("simd.h", "void zero(T* to", CONVOLUTIONS, [("T(0)", "T(1)"), ("i < n", "i < n - 1")])


def _pool() -> Iterator[Mutant]:
    file, largest = "pool.h", [_operation("max_pool2d")]
    average = [_operation("avg_pool2d"), _operation("adaptive_avg_pool2d")]
    yield from within("max_pool2d_forward", "cpu/pool.h", "void inside(long start", largest, [
        ("ceil_div(-start, dilation)", "-start / dilation"),
        ("ceil_div(size - start, dilation)", "(size - start) / dilation"),
    ])  # fmt: skip
    yield from within("max_pool2d_forward", "cpu/pool.h", "void max_pool2d_forward_of(", largest, [
        ("nh % s.OH * s.stride_h - s.padding_h", "nh % s.OH * s.stride_h"),
        ("!(in[c] <= best[c]) & (best[c] == best[c])", "!(in[c] < best[c]) & (best[c] == best[c])"),
        ("!(in[c] <= best[c]) & (best[c] == best[c])", "in[c] > best[c]"),
        ("tap = ‹Number<T>(r * s.kernel_w + q)›", "Number<T>(r * s.kernel_h + q)"),
        ("best[c] = ‹-__builtin_huge_val()›", "0"),
        ("left + q * s.dilation_w", "left + q"),
        ("least(PIECE_OF_CHANNELS, s.C - first)", "least(PIECE_OF_CHANNELS, s.C)"),
    ])  # fmt: skip
    yield from within("max_pool2d_backward", "cpu/pool.h", "void max_pool2d_backward_of(", largest, [
        ("zero(row, s.W * s.C);", ""),
        ("h + s.padding_h - r * s.dilation_h", "h + s.padding_h - r"),
        ("at < 0 || at % s.stride_h != 0 || at / s.stride_h >= s.OH", "at < 0 || at / s.stride_h >= s.OH"),
        ("arg[c] == tap ? g[c] : T(0)", "g[c]"),
        ("static_cast<Tap>(r * s.kernel_w + q)", "static_cast<Tap>(q * s.kernel_h + r)"),
    ])  # fmt: skip
    yield from _kernel("average2d_forward", file, average, [
        ("zero(out, s.C);", ""),
        ("h = ‹s.h_begin[oh]›", "0"),
        ("w < s.w_end[ow]", "w < s.w_end[ow] - 1"),
        ("s.size[oh * s.OW + ow]", "s.size[0]"),
        ("out[c] += ‹in[c]›", "in[0]"),
    ])  # fmt: skip
    yield from _kernel("average2d_backward", file, average, [
        ("zero(row, s.W * s.C);", ""),
        ("h < s.h_begin[oh] || h >= s.h_end[oh]", "h < s.h_begin[oh]"),
        ("g[c] / size", "g[c]"),
        ("g[c] / size", "-g[c] / size"),
        ("w < s.w_end[ow]", "w < s.w_end[ow] - 1"),
        ("s.size[oh * s.OW + ow]", "s.size[ow]"),
    ])  # fmt: skip


def _softmax() -> Iterator[Mutant]:
    file, both, loss = "softmax.h", [_operation("softmax"), _operation("log_softmax")], [_operation("cross_entropy")]
    yield from within("softmax", "cpu/softmax.h", "void softmax_row(", both, [
        ("!(x[c] <= top) ? x[c] : top", "top"),
        ("exponential(x[c] - top)", "exponential(x[c])"),
        ("y[c] = ‹log ? x[c] - top : e›", "e"),
        ("log ? logarithm(sum) : sum", "sum"),
        ("log ? y[c] - whole : y[c] / whole", "y[c] / whole"),
        ("sum += ‹e›", "e * e"),
        ("c = ‹1›; c < C", "2"),
    ])  # fmt: skip
    yield from _kernel("softmax_backward", file, both, [
        ("log ? g[c] : g[c] * y[c]", "g[c]"),
        ("log ? g[c] : g[c] * y[c]", "g[c] * y[c]"),
        ("g[c] - exponential(y[c]) * sum", "g[c] - y[c] * sum"),
        ("y[c] * (g[c] - sum)", "y[c] * (g[c] + sum)"),
        ("y[c] * (g[c] - sum)", "y[c] * g[c]"),
    ])  # fmt: skip
    yield from _kernel("cross_entropy_forward", file, loss, [
        ("smoothing == T(0)", "true"),
        ("loss[r] = ‹-p[labels[r]]›", "p[labels[r]]"),
        ("(T(1) - smoothing) * p[labels[r]]", "p[labels[r]]"),
        ("sum / T(C)", "sum"),
        ("softmax_row(C, x + r * C, p, ‹true›)", "false"),
    ])  # fmt: skip
    yield from _kernel("cross_entropy_backward", file, loss, [
        ("smoothing / T(C)", "smoothing"),
        ("c == labels[r] ? T(1) - smoothing : T(0)", "c == labels[r] ? T(1) : T(0)"),
        ("exponential(log_p[r * C + c]) - target", "exponential(log_p[r * C + c])"),
        ("exponential(log_p[r * C + c]) - target", "target - exponential(log_p[r * C + c])"),
        ("grad_loss[r]", "grad_loss[0]"),
    ])  # fmt: skip
    yield from _kernel("digest", "digest.h", [agreement.digest_sees_every_change], [
        ("rows * (part + 1) / PARTS", "rows * part / PARTS"),
        ("row * LANES_OF_DIGEST + v * L", "row * LANES_OF_DIGEST"),
        ("4 * (words - rows * LANES_OF_DIGEST)", "0"),
        ("part < PARTS", "part < PARTS - 1"),
    ])  # fmt: skip
    yield from within("digest", "cpu/digest.h", "Words mixed(", [agreement.digest_sees_every_change], [
        ("(state ^ word) * 0x9E3779B1u", "(state ^ word) * 0x9E3779B0u"),  # loses the sign
        ("product << 13 | product >> 19", "product << 13"),
    ])  # fmt: skip


def mutants() -> Iterator[Mutant]:
    for those in (_convolutions, _products, _winograd, _batch_norm, _elementwise, _pool, _softmax):
        yield from those()
