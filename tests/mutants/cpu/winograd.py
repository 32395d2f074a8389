"""The bugs in Winograd's algorithm."""

from __future__ import annotations

from collections.abc import Iterator

from ..bug import Bug
from .builders import WINOGRAD, WINOGRAD_FOLLOWED, shared


def bugs() -> Iterator[Bug]:
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
            ("difference_p * T(POINT_P) + difference_q * T(POINT_Q)",
             "difference_p * T(POINT_Q) + difference_q * T(POINT_P)"),
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
            ("min(4, s.OH - tile.h)", "4"),
            ("min(4, s.OW - tile.w)", "3"),
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
        yield from shared(file, scope, WINOGRAD, edits)
    yield from shared(file, "void write_outputs(", WINOGRAD_FOLLOWED, [
        ("bias ? out[r][k] + start : out[r][k]", "out[r][k]"),
        ("epilogue.added ? load(to + added, tail) : mean", "mean"),
    ])  # fmt: skip
