"""The bugs in products of matrices, and in what convolutions share with them."""

from __future__ import annotations

from collections.abc import Iterator

from ..bug import Bug
from .builders import CONVOLUTIONS, FOLLOWED, PRODUCTS, WINOGRAD_FOLLOWED, kernel, shared


def bugs() -> Iterator[Bug]:
    yield from kernel("matmul", "gemm.h", PRODUCTS, [
        ("transposed ? K : 1", "1"),
        ("transposed ? 1 : N", "N"),
        ("packed, ‹N›, bias", "N - 1"),
        ("1, 1, 1, ‹M›}", "M - 1"),
        ("{c, 1, M, ‹N›}", "N + 1"),
        ("N, ‹bias›, Epilogue", "nullptr"),
    ])  # fmt: skip
    yield from shared("gemm.h", "void pack(", [*PRODUCTS, *CONVOLUTIONS], [
        ("task % pieces * PIECE", "task % pieces"),
        ("strip * S * f.depth()", "strip * S"),
        ("(t * f.channels + i) * S", "(i * f.taps + t) * S"),
        ("(t * f.channels + i + e) * S", "(t * f.channels + i) * S"),
        ("lines[e][j] = ‹from[e * f.channel]›", "from[0]"),
        ("to[j] = ‹from[j * f.filter]›", "from[j]"),
    ])  # fmt: skip
    yield from shared("gemm.h", "Epilogue<T> at_column(", FOLLOWED, [
        ("f.mean + column", "f.mean"),
        ("f.scale + column", "f.scale"),
        ("f.shift + column", "f.shift"),
    ])  # fmt: skip
    yield from shared("gemm.h", "void multiply(const Windows", [*PRODUCTS, *CONVOLUTIONS, *FOLLOWED], [
        ("h * places.step_h + places.first_h", "h * places.step_h"),
        ("w * places.step_w + places.first_w", "w + places.first_w"),
        ("const long first = ‹K * run / runs›", "0"),
        ("bias + column : nullptr, ‹run > 0›", "false"),
        ("‹run == 0 && bias› ?", "bias != nullptr"),
        ("run == runs - 1 && does_something(epilogue)", "does_something(epilogue)"),
        ("epilogue.added ? epilogue.added - places.image : 0", "0"),
        ("n > LANES<T> ? 2 : 1", "1"),
        ("rows[p - begin] = ‹places.image›", "places.image + 1"),
    ])  # fmt: skip
    yield from kernel("matmul_at", "gemm_at.h", PRODUCTS, [
        ("(a, ‹M›, M, rows", "M + 1"),
        ("(a, M, ‹M›, rows", "M - 1"),
        ("rows{b, 1, ‹K›, N", "K - 1"),
        ("rows{b, 1, K, ‹N›, N", "N - 1"),
        ("1, 1, 1, ‹K›}", "K - 1"),
    ])  # fmt: skip
    yield from shared("gemm_at.h", "void multiply_transposed(", [*PRODUCTS, *CONVOLUTIONS], [
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
    yield from shared("windows.h", "void write_windows(", CONVOLUTIONS, [
        ("s.column[i] == s.column[i - 1] + 1", "true"),
        ("joined = ‹s.C == s.pitch›", "true"),
        ("first_offset = ‹first % run›", "0"),
        ("h * s.step_h + s.row[r]", "h + s.row[r]"),
        ("ih < 0 || ih >= s.H", "ih < 0"),
        ("min(s.W - iw, width)", "width"),
        ("if (a > 0) zero(out, a);", ""),
        ("if (b < length) zero(out + b, length - b);", ""),
        ("offset = 0;", ""),
        ("n = ‹begin / s.out_w / s.out_h›", "0"),
    ])  # fmt: skip
    tile = [*PRODUCTS, *CONVOLUTIONS, *FOLLOWED]
    yield from shared("tile.h", "void tile(long depth", tile, [
        ("if (options.accumulate) c[i][j] += load(to, tail);", ""),
        ("left * right[j]", "-left * right[j]"),
        ("left * right[j]", "left * right[0]"),
        ("(i % 3) * pitch", "0"),
        ("const long tail = ‹tail_of<T>(n, j)›", "0"),
        ("base[0] + i * sizeof(T)", "base[0]"),
        ("options.bias && j * L < n ? ‹load(options.bias + j * L, tail_of<T>(n, j))›", "Vec<T>{}"),
        ("f->added ? load(to + options.added, tail) : mean", "mean"),
    ])  # fmt: skip
    yield from shared("tile.h", "V apply_epilogue(V v", [*FOLLOWED, *WINOGRAD_FOLLOWED], [
        ("f.relu ? rectified(v) : v", "v"),
        ("v += added;", "v -= added;"),
        ("v = normalised(v, mean, scale, shift);", "v = normalised(v, shift, scale, mean);"),
    ])  # fmt: skip
    yield from shared(
        "tile.h", "void panels(", tile, [("rows * (i + 1) / count", "rows * (i + 1) / count - (i + 1 == count)")]
    )
