"""Convolution: forward, backward, and the backward with dilation and groups."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from minires.exercises.solutions import conv2d_backward, conv2d_backward_grouped, conv2d_forward, pair_of
from minires.exercises.task import Array, Bugs, Case, Exercise, Misconception, Pair, draw, pair, times

Has = Callable[[str], bool]

# N, C, H, W, O, KH, KW, stride, padding
GEOMETRIES: tuple[tuple[Any, ...], ...] = (
    *((1, 1, 1, 1, 1, 1, 1, 1, 0), (1, 1, 3, 3, 1, 2, 2, 1, 0), (1, 1, 3, 3, 1, 1, 1, 2, 0)),
    *((1, 1, 3, 3, 1, 3, 3, 1, 1), (1, 1, 3, 3, 1, 3, 3, 2, 1), (1, 1, 4, 4, 1, 2, 2, 2, 0)),
    *((1, 1, 4, 4, 1, 3, 3, 2, 0), (2, 1, 2, 2, 1, 1, 1, 1, 0), (1, 2, 2, 2, 1, 1, 1, 1, 0)),
    *((1, 1, 2, 2, 2, 1, 1, 1, 0), (1, 2, 3, 3, 2, 2, 2, 1, 0), (2, 2, 3, 3, 2, 3, 3, 1, 1)),
    *((1, 1, 3, 4, 1, 2, 3, 1, 0), (1, 1, 5, 4, 1, 3, 2, 2, 1), (2, 3, 5, 4, 2, 3, 2, 1, 0)),
    *((2, 2, 5, 7, 3, 3, 3, 2, 1), (3, 2, 6, 5, 4, 2, 3, 3, 1), (2, 2, 7, 6, 2, 2, 2, 3, 0)),
    *(
        (1, 1, 5, 5, 1, 3, 3, (2, 1), 0),
        (1, 1, 4, 4, 1, 3, 3, 1, (1, 0)),
        (1, 1, 3, 4, 1, 2, 2, 1, (0, 1)),
        (2, 3, 7, 6, 2, 3, 2, (2, 3), (2, 1)),
    ),
)
# ... and dilation, groups
GROUPED: tuple[tuple[Any, ...], ...] = (
    *((1, 1, 3, 3, 1, 2, 2, 1, 0, 1, 1), (1, 1, 3, 3, 1, 2, 2, 1, 0, 2, 1), (1, 2, 2, 2, 2, 1, 1, 1, 0, 1, 2)),
    *((1, 1, 5, 5, 1, 2, 2, 2, 1, 2, 1), (1, 1, 5, 5, 1, 3, 3, 2, 1, 1, 1), (1, 4, 2, 2, 4, 1, 1, 1, 0, 1, 2)),
    *((2, 4, 3, 3, 2, 2, 2, 1, 0, 1, 2), (2, 3, 5, 4, 3, 3, 2, 2, 1, 1, 3), (2, 6, 5, 6, 4, 2, 3, 1, 1, 2, 2)),
    (1, 1, 4, 4, 1, 3, 3, 2, 0, 1, 1),
    *((2, 4, 7, 6, 4, 3, 2, (2, 1), (1, 2), (1, 2), 2), (2, 2, 9, 7, 2, 2, 2, (3, 2), (0, 1), (2, 3), 1)),
)


def cases(
    rng: np.random.Generator, geometries: tuple[tuple[Any, ...], ...] = GEOMETRIES, forward: bool = False
) -> Iterator[Case]:
    for number, (N, C, H, W, O, KH, KW, stride, padding, *more) in enumerate(geometries):
        dilation, groups = more or (1, 1)
        (sh, sw), (ph, pw), (dh, dw) = pair(stride), pair(padding), pair(dilation)
        OH, OW = (H + 2 * ph - dh * (KH - 1) - 1) // sh + 1, (W + 2 * pw - dw * (KW - 1) - 1) // sw + 1
        x, w = draw(rng, (N, C, H, W)), draw(rng, (O, C // groups, KH, KW))
        cotangent, b = draw(rng, (N, O, OH, OW)), draw(rng, (O,))
        if number % 4 == 3:
            x, w, cotangent = np.asfortranarray(x), np.asfortranarray(w), np.asfortranarray(cotangent)
        arrays = (x, w, b) if forward else (cotangent, x, w)
        settings = [
            *([f"stride {stride}"] if (sh, sw) != (1, 1) else []),
            *([f"padding {padding}"] if (ph, pw) != (0, 0) else []),
            *([f"dilation {dilation}"] if (dh, dw) != (1, 1) else []),
            *([f"groups {groups}"] if groups > 1 else []),
        ]
        sizes = {"N": N, "C": C, "O": O, "OH·OW": OH * OW, "N·OH·OW": N * OH * OW, "KH·KW": KH * KW, "H·W": H * W}
        sizes |= {"groups": groups, "OH": OH, "OW": OW, "y.size": N * O * OH * OW, "C·KH·KW": C * KH * KW}
        features = {
            "the stride is larger than 1": (sh, sw) != (1, 1),
            "there is padding": (ph, pw) != (0, 0),
            "the filter is larger than 1×1": KH * KW > 1,
            "there is more than one image": N > 1,
            "there is more than one channel": C > 1,
            "there is more than one filter": O > 1,
            "stride or padding is a pair": isinstance(stride, tuple) or isinstance(padding, tuple),
            "the windows do not reach the last row or column": (OH - 1) * sh + dh * (KH - 1) + 1 < H + 2 * ph
            or (OW - 1) * sw + dw * (KW - 1) + 1 < W + 2 * pw,
            "KH and KW differ": KH != KW,
            "the dilation is larger than 1": (dh, dw) != (1, 1),
            "there is more than one group": groups > 1,
        }
        geometry = ", ".join([f"x {times(N, C, H, W)}", f"filters {times(*w.shape)}", *settings])
        last = (stride, padding, *more)
        holding = frozenset(name for name, holds in features.items() if holds)
        yield Case(geometry, (*arrays, *last), sizes, holding)
        if more and number == 0:
            defaults = holding | {"dilation and groups are left out of the call"}
            yield Case(f"{geometry}, by default", (*arrays, stride, padding), sizes, defaults)


# -- the misconceptions


def mixed(has: Has, name: str, value: Any) -> Pair:
    """A pair, with height and width confused by one of three misconceptions."""
    h, w = pair(value)
    if has(f"{name} exchanged"):
        return w, h
    if has(f"{name} of the height for both axes"):
        return h, h
    return (w, w) if has(f"{name} of the width for both axes") else (h, w)


def confused(name: str, what: str, argument: str = "") -> tuple[Misconception, ...]:
    """The misconceptions of `mixed`."""
    value, family = argument or name, "height and width"
    return (
        Misconception(f"{name} exchanged", family, f"{what}: rows by {value}[1], columns by {value}[0]"),
        Misconception(f"{name} of the height for both axes", family, f"{what}: rows and columns by {value}[0]"),
        Misconception(f"{name} of the width for both axes", family, f"{what}: rows and columns by {value}[1]"),
    )


def forward_variant(bugs: Bugs, x: Array, w: Array, b: Array, stride: Any, padding: Any) -> tuple[Array, ...]:
    has = bugs.__contains__
    (sh, sw), (ph, pw) = mixed(has, "stride", stride), mixed(has, "padding", padding)
    if has("padding ignored"):
        ph = pw = 0
    if has("output as if stride 1"):
        sh = sw = 1
    N, C, H, W = x.shape
    O, _, KH, KW = w.shape
    OH, OW = max((H + 2 * ph - KH) // sh + 1, 0), max((W + 2 * pw - KW) // sw + 1, 0)
    if has("output size without padding"):
        OH, OW = max((H - KH) // sh + 1, 0), max((W - KW) // sw + 1, 0)
    if has("output size with the padding once"):
        OH, OW = max((H + ph - KH) // sh + 1, 0), max((W + pw - KW) // sw + 1, 0)
    if has("output size without + 1"):
        OH, OW = OH - 1, OW - 1
    if has("output size rounded up") or has("output size rounded up in rows"):
        OH = -((KH - H - 2 * ph) // sh) + 1
    if has("output size rounded up"):
        OW = -((KW - W - 2 * pw) // sw) + 1
    edges = ((0, 0), (0, 0), (ph, ph), (pw, pw))
    if has("padded at the end only"):
        edges = ((0, 0), (0, 0), (0, 2 * ph), (0, 2 * pw))
    if has("padded at the beginning only"):
        edges = ((0, 0), (0, 0), (2 * ph, 0), (2 * pw, 0))
    padded = np.pad(x, edges, "edge") if has("padded with the border") else np.pad(x, edges)
    if has("padding added instead of subtracted"):
        padded = np.pad(x, ((0, 0), (0, 0), (0, 3 * ph), (0, 3 * pw)))[:, :, ph:, pw:]
    padded = np.pad(padded, ((0, 0), (0, 0), (0, sh), (0, sw)))  # for windows that do not fit
    if has("filter flipped"):
        w = w[..., ::-1, ::-1]
    if has("filter flipped in rows"):
        w = w[..., ::-1, :]
    if has("filter flipped in columns"):
        w = w[..., ::-1]
    if has("filter transposed") and KH == KW:
        w = w.swapaxes(2, 3)
    if has("filters and channels exchanged") and w.shape[1] == O:
        w = w.swapaxes(0, 1)
    if has("only the first channel"):
        padded, w = padded[:, :1], w[:, :1]
    if has("only the last channel"):
        padded, w = padded[:, -1:], w[:, -1:]
    if has("channels summed before the product"):
        w = np.broadcast_to(w.sum(1, keepdims=True), w.shape)
    step = (1, 1) if has("stride ignored") else (sh, sw)
    y = np.zeros((N, O, OH, OW))
    for p in range(KH):
        for q in range(KW):
            seen = padded[:, :, p : p + (OH - 1) * step[0] + 1 : step[0], q : q + (OW - 1) * step[1] + 1 : step[1]]
            part = np.einsum("ncij,oc->noij", seen[:, :, :OH, :OW], w[:, :, p, q])
            y = part if has("only the last tap") else y + part
    times_added: Any = 1.0
    if has("bias forgotten"):
        times_added = 0.0
    if has("bias subtracted"):
        times_added = -1.0
    if has("bias added at every tap"):
        times_added = KH * KW * C
    if has("bias added once and at every tap"):
        times_added = 1 + KH * KW * C
    if has("bias added once and at every tap inside the image"):
        inside = forward_variant(frozenset(), np.ones_like(x), np.ones_like(w), 0 * b, stride, padding)[0]
        return (y + b[:, None, None] * (1 + inside),)
    if has("bias added for every channel"):
        times_added = C
    if has("bias added for every channel at the first tap inside the image"):
        corner = np.zeros_like(w)
        corner[:, :, 0, 0] = 1
        times_added = forward_variant(frozenset(), np.ones_like(x), corner, 0 * b, stride, padding)[0]
    if has("bias added for every tap of a channel"):
        times_added = KH * KW
    if has("divided by the filter size"):
        y = y / (KH * KW)
    if has("channels averaged"):
        y = y / C
    return (y + times_added * b[:, None, None],)


def grad_x_variant(
    has: Has, grad_output: Array, x: Array, w: Array, stride: Any, padding: Any, dilation: Any, groups: int
) -> Array:
    (sh, sw), (ph, pw), (dh, dw) = mixed(has, "stride", stride), mixed(has, "padding", padding), pair(dilation)
    N, C, H, W = x.shape
    O, Cg, KH, KW = w.shape
    OH, OW = grad_output.shape[2:]
    if has("filter in the wrong orientation"):
        w = w[..., ::-1, ::-1]
    if has("filter upside down"):
        w = w[..., ::-1, :]
    if has("filter mirrored left to right"):
        w = w[..., ::-1]
    if has("filter transposed") and KH == KW:
        w = w.swapaxes(2, 3)
    if has("filter transposed instead of flipped") and KH == KW:
        w = w[..., ::-1, ::-1].swapaxes(2, 3)
    if has("filters and channels exchanged") and Cg == O:
        w = w.swapaxes(0, 1)
    if has("filters reshaped instead of transposed"):
        w = w.reshape(Cg, O, KH, KW).swapaxes(0, 1)
    if has("all axes of the filter flipped"):
        w = w[::-1, ::-1]
    if has("filters and channels flipped instead of taps"):
        w = w[::-1, ::-1, ::-1, ::-1]
    if has("only the first filter"):
        grad_output, w, groups = grad_output[:, :1], w[:1], 1
    if has("only the last filter"):
        grad_output, w, groups = grad_output[:, -1:], w[-1:], 1
    if has("filters summed before the product"):
        grad_output = np.broadcast_to(grad_output.sum(1, keepdims=True), grad_output.shape)
    steps = (sh, sw)
    if has("stride ignored in grad_x") or has("stride ignored in grad_x, smaller result"):
        steps = (1, 1)
    if has("stride filled by repetition"):
        grad_output = grad_output.repeat(sh, 2).repeat(sw, 3)
        (OH, OW), steps = grad_output.shape[2:], (1, 1)
    if has("dilation ignored in grad_x"):
        dh = dw = 1
    if has("dilation too large by 1"):
        dh, dw = dh + 1, dw + 1
    if has("stride and dilation exchanged"):
        steps, (dh, dw) = (dh, dw), steps
    reach = ((OH - 1) * steps[0] + dh * (KH - 1) + 1, (OW - 1) * steps[1] + dw * (KW - 1) + 1)
    padded = np.zeros((N, C, max(H + 2 * ph, reach[0]), max(W + 2 * pw, reach[1])))
    order = [(p, q) for p in range(KH) for q in range(KW)]
    if has("overlaps overwritten by the last window") or has("only the last filter and window"):
        order.reverse()  # the last window reaches a pixel with its smallest tap
    if has("only the last filter and window"):
        last = np.arange(O) % (O // groups) == O // groups - 1  # of each group
        grad_output = grad_output * last[:, None, None]
    overwrite = any(
        map(
            has,
            ("overlaps overwritten by the last window", "overlaps overwritten by the last tap",
             "only the last filter and window"),
        )
    )  # fmt: skip
    for p, q in order:
        here = (..., slice(p * dh, p * dh + (OH - 1) * steps[0] + 1, steps[0]),
                slice(q * dw, q * dw + (OW - 1) * steps[1] + 1, steps[1]))  # fmt: skip
        part = _grouped(has, grad_output, w[:, :, p, q], groups, C)
        if overwrite:
            padded[here] = part
        else:
            padded[here] += part
    if has("padding not cropped"):
        return padded[:, :, : H + 2 * ph, : W + 2 * pw]
    if has("cropped at the wrong corner"):
        return padded[:, :, :H, :W]
    if has("padded by KH instead of KH − 1"):
        return np.pad(padded, ((0, 0), (0, 0), (1, 0), (1, 0)))[:, :, ph : ph + H, pw : pw + W]
    if has("rest dropped, cropped"):
        return padded[:, :, ph : min(ph + H, reach[0]), pw : min(pw + W, reach[1])]
    if has("cropped at the end"):
        return padded[:, :, 2 * ph : 2 * ph + H, 2 * pw : 2 * pw + W]
    if has("slice p:-p"):
        return padded[:, :, ph:-ph, pw:-pw]
    if has("stride ignored in grad_x, smaller result") or has("rest dropped"):
        return padded[:, :, ph : reach[0] - ph, pw : reach[1] - pw]
    if has("zeros behind the last output"):
        grown = np.pad(padded[:, :, : reach[0], : reach[1]], ((0, 0), (0, 0), (0, sh - 1), (0, sw - 1)))
        return grown[:, :, ph : grown.shape[2] - ph, pw : grown.shape[3] - pw]
    if has("zeros behind the last output, cropped"):
        grown = np.pad(padded[:, :, : reach[0], : reach[1]], ((0, 0), (0, 0), (0, sh - 1), (0, sw - 1)))
        return grown[:, :, ph : ph + H, pw : pw + W]
    if has("forward's padding reused"):
        return _recut(padded[:, :, : reach[0], : reach[1]], (dh * (KH - 1) - ph, dw * (KW - 1) - pw))
    return padded[:, :, ph : ph + H, pw : pw + W]


def _grouped(has: Has, grad: Array, w: Array, groups: int, C: int) -> Array:
    """grad (N, O, OH, OW), one tap of w (O, C/G) -> (N, C, OH, OW)"""
    O, Cg = w.shape
    found = np.zeros((grad.shape[0], max(C, Cg), *grad.shape[2:]))
    if has("each filter has channels of its own"):
        for o in range(O):
            first = min(o * Cg, C - Cg)
            found[:, first : first + Cg] += np.einsum("nij,c->ncij", grad[:, o], w[o])
        return found
    for g in range(groups):
        filters, channels = _members(has, g, groups, O), _channels(has, g, groups, Cg)
        found[:, channels] += np.einsum("noij,oc->ncij", grad[:, filters], w[filters])
        if has("only the first group"):
            break
    return found


def _members(has: Has, g: int, groups: int, O: int) -> slice:
    return slice(g, None, groups) if has("filters interleaved") else slice(g * O // groups, (g + 1) * O // groups)


def _channels(has: Has, g: int, groups: int, Cg: int) -> slice:
    if has("groups ignored"):
        return slice(0, Cg)
    if has("channels interleaved"):
        return slice(g, g + (Cg - 1) * groups + 1, groups)
    return slice(g * Cg, (g + 1) * Cg)


def _recut(whole: Array, cut: tuple[int, int]) -> Array:
    """The full correlation cut, or padded with zeros, by this many rows and columns on every side."""
    grown = np.pad(whole, ((0, 0), (0, 0), *((max(-c, 0),) * 2 for c in cut)))
    top, left = max(cut[0], 0), max(cut[1], 0)
    return grown[:, :, top : max(grown.shape[2] - top, top), left : max(grown.shape[3] - left, left)]


def grad_w_variant(
    has: Has, grad_output: Array, x: Array, w: Array, stride: Any, padding: Any, dilation: Any, groups: int
) -> Array:
    (sh, sw), (ph, pw), (dh, dw) = mixed(has, "stride", stride), mixed(has, "padding", padding), pair(dilation)
    O, Cg, KH, KW = w.shape
    OH, OW = grad_output.shape[2:]
    edges = ((0, 0), (0, 0), (ph, ph), (pw, pw))
    if has("x not padded in grad_w"):
        edges = ((0, 0), (0, 0), (0, 2 * ph), (0, 2 * pw))
    padded = np.pad(x, edges)
    if has("only the last sample in grad_w"):
        padded, grad_output = padded[-1:], grad_output[-1:]
    if has("only the first sample in grad_w"):
        padded, grad_output = padded[:1], grad_output[:1]
    if has("only the last pixel in grad_w"):
        padded, grad_output = padded[-1:], grad_output[-1:].copy()
        grad_output[:, :, :-1] = 0
        grad_output[:, :, :, :-1] = 0
    if has("only the last product in grad_w"):
        return _last_products(grad_output, x, w, (sh, sw), (ph, pw))
    if has("only the last pixel of all samples in grad_w"):
        grad_output = grad_output.copy()
        grad_output[:, :, :-1] = 0
        grad_output[:, :, :, :-1] = 0
    if has("samples summed before the product"):
        padded, grad_output = padded.sum(0, keepdims=True), grad_output.sum(0, keepdims=True)
    if has("filters summed before the product in grad_w"):
        grad_output = np.broadcast_to(grad_output.sum(1, keepdims=True), grad_output.shape)
    if has("channels summed in grad_w"):
        padded = np.broadcast_to(padded.sum(1, keepdims=True), padded.shape)
    if has("pixels summed before the product"):
        grad_output = np.broadcast_to(grad_output.mean((2, 3), keepdims=True), grad_output.shape)
    steps = (1, 1) if has("stride ignored in grad_w") or has("stride ignored in grad_w, larger result") else (sh, sw)
    if has("dilation ignored in grad_w"):
        dh = dw = 1
    if has("dilation too large by 1"):
        dh, dw = dh + 1, dw + 1
    if has("stride and dilation exchanged"):
        steps, (dh, dw) = (dh, dw), steps
    if has("stride ignored in grad_w, larger result"):
        KH, KW = padded.shape[2] - OH + 1, padded.shape[3] - OW + 1
    if has("zeros behind the last output") or has("zeros behind the last output, cropped"):
        KH, KW = padded.shape[2] - OH * sh + 1, padded.shape[3] - OW * sw + 1
        if KH < 1 or KW < 1:
            raise ValueError("the spread gradient is larger than the padded image")
    if has("rest taken as taps"):
        KH, KW = padded.shape[2] - (OH - 1) * sh, padded.shape[3] - (OW - 1) * sw
    reach = ((OH - 1) * steps[0] + dh * (KH - 1) + 1, (OW - 1) * steps[1] + dw * (KW - 1) + 1)
    more = (max(reach[0] - padded.shape[2], 0), max(reach[1] - padded.shape[3], 0))
    padded = np.pad(padded, ((0, 0), (0, 0), (0, more[0]), (0, more[1])))
    grad_w = np.zeros((O, Cg, KH, KW))
    for p in range(KH):
        for q in range(KW):
            rows = slice(p * dh, p * dh + (OH - 1) * steps[0] + 1, steps[0])
            columns = slice(q * dw, q * dw + (OW - 1) * steps[1] + 1, steps[1])
            seen = padded[:, :, rows, columns]
            if has("each filter has channels of its own"):
                for o in range(O):
                    first = min(o * Cg, x.shape[1] - Cg)
                    grad_w[o, :, p, q] = np.einsum("nij,ncij->c", grad_output[:, o], seen[:, first : first + Cg])
                continue
            for g in range(groups):
                filters, channels = _members(has, g, groups, O), _channels(has, g, groups, Cg)
                grad_w[filters, :, p, q] = np.einsum("noij,ncij->oc", grad_output[:, filters], seen[:, channels])
                if has("only the first group"):
                    break
    return grad_w


def _last_products(grad_output: Array, x: Array, w: Array, stride: Pair, padding: Pair) -> Array:
    """grad_w[o,c,p,q] = the last product that loops over n, i, j with a test of the border write."""
    found = np.zeros_like(w)
    (sh, sw), (ph, pw) = stride, padding
    for i in range(grad_output.shape[2]):
        for j in range(grad_output.shape[3]):
            for p in range(w.shape[2]):
                for q in range(w.shape[3]):
                    h, v = i * sh + p - ph, j * sw + q - pw
                    if 0 <= h < x.shape[2] and 0 <= v < x.shape[3]:
                        found[:, :, p, q] = np.outer(grad_output[-1, :, i, j], x[-1, : w.shape[1], h, v])
    return found


def _backwards(grad_output: Array, x: Array, w: Array, stride: Pair, padding: Pair) -> tuple[Array, Array]:
    """grad_x and grad_w if output (i, j) reads row i·s − p + padding."""
    grad_x, grad_w = np.zeros_like(x), np.zeros_like(w)
    for i, j, p, q in np.ndindex(*grad_output.shape[2:], *w.shape[2:]):
        h, v = i * stride[0] - p + padding[0], j * stride[1] - q + padding[1]
        if 0 <= h < x.shape[2] and 0 <= v < x.shape[3]:
            grad_x[:, :, h, v] += grad_output[:, :, i, j] @ w[:, :, p, q]
            grad_w[:, :, p, q] += grad_output[:, :, i, j].T @ x[:, :, h, v]
    return grad_x, grad_w


def grad_b_variant(has: Has, grad_output: Array) -> Array:
    axes: tuple[int, ...] | None = (0, 2, 3)
    if has("grad_b not summed over the batch"):
        axes = (2, 3)
    if has("grad_b not summed over the pixels"):
        axes = (0,)
    if has("grad_b not summed over columns"):
        axes = (0, 2)
    if has("grad_b summed over the filters"):
        axes = (1, 2, 3)
    if has("grad_b not summed"):
        axes = ()
    if has("grad_b summed over everything"):
        axes = None
    if has("only the last sample in grad_b"):
        grad_output = grad_output[-1:]
    if has("only the first sample in grad_b"):
        grad_output = grad_output[:1]
    if has("only the last pixel in grad_b"):
        grad_output = grad_output[-1:, :, -1:, -1:]
    if has("only the first pixel in grad_b"):
        grad_output = grad_output[:, :, :1, :1]
    if has("everything summed into each grad_b"):
        return np.full(grad_output.shape[1], grad_output.sum())
    return np.asarray(grad_output.sum(axes))


def backward_variant(
    bugs: Bugs, grad_output: Array, x: Array, w: Array, stride: Any, padding: Any, dilation: Any = 1, groups: int = 1
) -> tuple[Array, ...]:
    has = bugs.__contains__
    if has("grad_output replaced by ones"):
        grad_output = np.ones_like(grad_output)
    if has("last row of outputs left out"):
        grad_output = grad_output.copy()
        grad_output[:, :, -1:] = 0
    if has("taps counted backwards"):
        return (*_backwards(grad_output, x, w, pair(stride), pair(padding)), grad_b_variant(has, grad_output))
    geometry = (stride, padding, dilation, groups)
    grad_w = grad_w_variant(has, grad_output, x, w, *geometry)
    return grad_x_variant(has, grad_output, x, w, *geometry), grad_w, grad_b_variant(has, grad_output)


M = Misconception
FORWARD = (
    M("filter flipped", "flip", "y[n,o,i,j] = Σ x[n,c,i·s+p,j·s+q] · w[o,c,KH−1−p,KW−1−q] + b[o]"),
    M("filter flipped in rows", "flip", "y[n,o,i,j] = Σ x[n,c,i·s+p,j·s+q] · w[o,c,KH−1−p,q] + b[o]"),
    M("filter flipped in columns", "flip", "y[n,o,i,j] = Σ x[n,c,i·s+p,j·s+q] · w[o,c,p,KW−1−q] + b[o]"),
    M("filter transposed", "flip", "y[n,o,i,j] = Σ x[n,c,i·s+p,j·s+q] · w[o,c,q,p] + b[o]"),
    M("filters and channels exchanged", "filters and channels", "y[n,o,i,j] = Σ x[n,c,…] · w[c,o,p,q] + b[o]"),
    M("padding ignored", "padding", "y[n,o,i,j] = Σ x[n,c,i·s+p,j·s+q] · w, with OH = (H − KH) // s + 1"),
    M("output size without padding", "padding", "OH = (H − KH) // s + 1, on a padded x"),
    M("output size with the padding once", "output size", "OH = (H + padding − KH) // s + 1"),
    M("output size without + 1", "output size", "OH = (H + 2·padding − KH) // s"),
    M(
        "output size rounded up",
        "output size",
        "OH = ⌈(H + 2·padding − KH) / s⌉ + 1",
        ("output size rounded up in rows",),
    ),
    M("padding added instead of subtracted", "padding", "y[n,o,i,j] = Σ x[n,c,i·s+p+padding,j·s+q+padding] · w + b"),
    M("padded at the end only", "padding", "y[n,o,i,j] = Σ x[n,c,i·s+p,j·s+q] · w + b, without − padding"),
    M("padded at the beginning only", "padding", "y[n,o,i,j] = Σ x[n,c,i·s+p−2·padding,…] · w + b"),
    M("padded with the border", "padding", "x[n,c,−1,w] = x[n,c,0,w] instead of 0"),
    M("stride ignored", "stride", "y[n,o,i,j] = Σ x[n,c,i+p−padding,j+q−padding] · w + b, in the right shape"),
    M("output as if stride 1", "stride", "OH = H + 2·padding − KH + 1"),
    *confused("stride", "windows move"),
    *confused("padding", "x is padded"),
    M("bias forgotten", "bias", "y[n,o,i,j] = Σ x · w"),
    M("bias subtracted", "bias", "y[n,o,i,j] = Σ x · w − b[o]"),
    M(
        "bias added at every tap",
        "bias",
        "y[n,o,i,j] = Σ (x · w + b[o]) = Σ x · w + C·KH·KW · b[o]",
        ("bias added once and at every tap", "bias added once and at every tap inside the image"),
    ),
    M(
        "bias added for every channel",
        "bias",
        "y[n,o,i,j] = Σ x · w + C · b[o]",
        ("bias added for every channel at the first tap inside the image",),
    ),
    M("bias added for every tap of a channel", "bias", "y[n,o,i,j] = Σ x · w + KH·KW · b[o]"),
    M("only the first channel", "channels", "y[n,o,i,j] = Σ_p,q x[n,0,…] · w[o,0,p,q] + b[o]"),
    M("only the last channel", "channels", "y[n,o,i,j] = Σ_p,q x[n,C−1,…] · w[o,C−1,p,q] + b[o]"),
    M("channels summed before the product", "sum before product", "y = Σ_p,q (Σ_c x) · (Σ_c w) + b"),
    M("channels averaged", "channels", "y[n,o,i,j] = Σ x · w / C + b[o]"),
    M("divided by the filter size", "factor", "y[n,o,i,j] = Σ x · w / (KH·KW) + b[o]"),
    M("only the last tap", "overwritten", "y[n,o,i,j] = Σ_c x[n,c,i·s+KH−1,…] · w[o,c,KH−1,KW−1] + b[o]"),
)
GX, GW, GB = "grad_x[n,c,h,w] = ", "grad_w[o,c,p,q] = ", "grad_b[o] = "
BACKWARD = (
    M(
        "filter in the wrong orientation",
        "flip",
        f"{GX}Σ grad_output[n,o,i,j] · w[o,c,KH−1−p,KW−1−q], where h = i·s + p − padding",
    ),
    M(
        "filter mirrored left to right",
        "flip",
        f"{GX}Σ grad_output[n,o,i,j] · w[o,c,p,KW−1−q], where h = i·s + p − padding",
    ),
    M(
        "filter upside down",
        "flip",
        f"{GX}Σ grad_output[n,o,i,j] · w[o,c,KH−1−p,q], where h = i·s + p − padding",
    ),
    M("filter transposed", "flip", f"{GX}Σ grad_output[n,o,i,j] · w[o,c,q,p]"),
    M("filter transposed instead of flipped", "flip", f"{GX}Σ grad_output[n,o,i,j] · w[o,c,KW−1−q,KH−1−p]"),
    M("all axes of the filter flipped", "flip", f"{GX}Σ grad_output[n,o,i,j] · w[O−1−o,C−1−c,p,q]"),
    M(
        "filters and channels flipped instead of taps",
        "flip",
        f"{GX}Σ grad_output[n,o,i,j] · w[O−1−o,C−1−c,KH−1−p,KW−1−q]",
    ),
    M("filters and channels exchanged", "filters and channels", f"{GX}Σ grad_output[n,o,i,j] · w[c,o,p,q]"),
    M("stride ignored in grad_x", "stride", f"{GX}Σ grad_output[n,o,i,j] · w[o,c,p,q], where h = i + p − padding"),
    M(
        "stride ignored in grad_x, smaller result",
        "stride",
        f"{GX}Σ grad_output[n,o,i,j] · w[o,c,p,q], where h = i + p − padding, for OH + KH − 1 − 2·padding rows",
    ),
    M(
        "stride filled by repetition",
        "stride",
        f"{GX}Σ grad_output[n,o,i // s,j // s] · w[o,c,p,q], where h = i + p − padding",
    ),
    M("padding not cropped", "padding", "grad_x has H + 2·padding rows: it is the gradient of the padded x"),
    M(
        "cropped at the wrong corner",
        "padding",
        f"{GX}grad_padded[n,c,h,w] instead of grad_padded[n,c,h+padding,w+padding]",
    ),
    M("cropped at the end", "padding", f"{GX}grad_padded[n,c,h+2·padding,w+2·padding]"),
    M("slice p:-p", "slice to -0", "grad_x = grad_padded[:, :, p:-p, p:-p], which is empty for p = 0"),
    M(
        "forward's padding reused",
        "padding",
        "grad_x = correlation of grad_output, padded by padding instead of by KH − 1 − padding",
    ),
    M(
        "zeros behind the last output",
        "leftover",
        "grad_x has OH·s + KH − 1 − 2·padding rows instead of H",
        ("zeros behind the last output, cropped",),
    ),
    M(
        "rest dropped",
        "leftover",
        "grad_x has (OH − 1)·s + KH − 2·padding rows instead of H",
        ("rest dropped, cropped",),
    ),
    M("padded by KH instead of KH − 1", "padding", f"{GX}the right grad_x[n,c,h−1,w−1]"),
    M(
        "filters reshaped instead of transposed",
        "reshaped",
        f"{GX}Σ grad_output[n,o,i,j] · w.reshape(C, O, KH, KW)[c,o,p,q]",
    ),
    M("last row of outputs left out", "range too short", "i runs to OH − 2: the last row of grad_output is not used"),
    M(
        "overlaps overwritten by the last window",
        "overwritten",
        "grad_padded[window] = … instead of +=: the last window wins",
    ),
    M("overlaps overwritten by the last tap", "overwritten", "grad_padded[tap] = … instead of +=: the last tap wins"),
    M(
        "only the last filter and window",
        "overwritten",
        f"{GX}grad_output[n,O−1,i,j] · w[O−1,c,p,q] of the last window alone",
    ),
    M("only the first filter", "overwritten", f"{GX}Σ_i,j grad_output[n,0,i,j] · w[0,c,p,q], without Σ over o"),
    M("only the last filter", "overwritten", f"{GX}Σ_i,j grad_output[n,O−1,i,j] · w[O−1,c,p,q], without Σ over o"),
    M("filters summed before the product", "sum before product", f"{GX}Σ_i,j (Σ_o grad_output) · (Σ_o w)"),
    M("stride ignored in grad_w", "stride", f"{GW}Σ grad_output[n,o,i,j] · x[n,c,i+p−padding,j+q−padding]"),
    M(
        "stride ignored in grad_w, larger result",
        "stride",
        f"{GW}Σ grad_output[n,o,i,j] · x[n,c,i+p−padding,…], for H + 2·padding − OH + 1 taps",
    ),
    M("rest taken as taps", "leftover", "grad_w has H + 2·padding − (OH − 1)·s rows of taps instead of KH"),
    M("x not padded in grad_w", "padding", f"{GW}Σ grad_output[n,o,i,j] · x[n,c,i·s+p,j·s+q], without − padding"),
    M("only the last sample in grad_w", "overwritten", f"{GW}Σ_i,j grad_output[N−1,o,i,j] · x[N−1,…]"),
    M("only the first sample in grad_w", "overwritten", f"{GW}Σ_i,j grad_output[0,o,i,j] · x[0,…]"),
    M(
        "only the last pixel in grad_w",
        "overwritten",
        f"{GW}grad_output[N−1,o,OH−1,OW−1] · x[N−1,…]",
        ("only the last product in grad_w",),
    ),
    M("only the last pixel of all samples in grad_w", "overwritten", f"{GW}Σ_n grad_output[n,o,OH−1,OW−1] · x[n,…]"),
    M("samples summed before the product", "sum before product", f"{GW}Σ_i,j (Σ_n grad_output) · (Σ_n x)"),
    M("filters summed before the product in grad_w", "sum before product", f"{GW}Σ_n,i,j (Σ_o grad_output) · x"),
    M("channels summed in grad_w", "sum before product", f"{GW}Σ_n,i,j grad_output · (Σ_c x)"),
    M("pixels summed before the product", "sum before product", f"{GW}Σ_n (mean of grad_output over i, j) · Σ_i,j x"),
    M("grad_b not summed over the batch", "reduction", "grad_b[n,o] = Σ_i,j grad_output[n,o,i,j]"),
    M("grad_b not summed over the pixels", "reduction", "grad_b[o,i,j] = Σ_n grad_output[n,o,i,j]"),
    M("grad_b not summed over columns", "reduction", "grad_b[o,j] = Σ_n,i grad_output[n,o,i,j]"),
    M("grad_b summed over the filters", "reduction", "grad_b[n] = Σ_o,i,j grad_output[n,o,i,j]"),
    M("grad_b not summed", "reduction", "grad_b = grad_output"),
    M("grad_b summed over everything", "reduction", "grad_b = Σ_n,o,i,j grad_output[n,o,i,j], one number"),
    M("everything summed into each grad_b", "reduction", f"{GB}Σ over all n, o, i, j of grad_output"),
    M("only the last sample in grad_b", "overwritten", f"{GB}Σ_i,j grad_output[N−1,o,i,j]"),
    M("only the first sample in grad_b", "overwritten", f"{GB}Σ_i,j grad_output[0,o,i,j]"),
    M("only the last pixel in grad_b", "overwritten", f"{GB}grad_output[N−1,o,OH−1,OW−1]"),
    M("only the first pixel in grad_b", "overwritten", f"{GB}Σ_n grad_output[n,o,0,0]"),
    *confused("stride", "windows move"),
    *confused("padding", "x is padded"),
    M("grad_output replaced by ones", "cotangent", "the gradient of Σ y instead of that of Σ grad_output · y"),
)
GROUPED_ONLY = (
    M(
        "dilation ignored in grad_x",
        "dilation",
        f"{GX}Σ grad_output[n,o,i,j] · w[o,c,p,q], where h = i·s + p − padding",
    ),
    M("dilation ignored in grad_w", "dilation", f"{GW}Σ grad_output[n,o,i,j] · x[n,c,i·s+p−padding,…]"),
    M("dilation too large by 1", "dilation", "h = i·s + p·(dilation + 1) − padding"),
    M("each filter has channels of its own", "groups", "filter o uses the channels o·(C/G), o·(C/G) + 1, …"),
    M("stride and dilation exchanged", "dilation", "h = i·dilation + p·stride − padding"),
    M("groups ignored", "groups", "every filter uses the channels of the first group, c = 0 … C/G − 1"),
    M("channels interleaved", "groups", "group g has the channels g, g + G, g + 2·G, …"),
    M("filters interleaved", "groups", "group g has the filters g, g + G, g + 2·G, …"),
    M("only the first group", "groups", "the gradients of all groups but the first are 0"),
)

SIZES = "stride and padding are each an int or an (h, w) pair."
RIGHT = {
    "grad_x": f"{GX}Σ_o,i,j,p,q grad_output[n,o,i,j] · w[o,c,p,q] over all i, p with i·s + p − padding = h",
    "grad_w": f"{GW}Σ_n,i,j grad_output[n,o,i,j] · x[n,c,i·s+p−padding,j·s+q−padding]",
    "grad_b": f"{GB}Σ_n,i,j grad_output[n,o,i,j]",
}
HINT = (
    "Write the forward as a loop over windows (i, j). Every product x · w of the forward sends two gradients back: "
    "grad_output · w to that pixel, and grad_output · x to that tap. Add them in the padded array, then cut the "
    "padding off."
)
EXERCISES = (
    Exercise(
        name="conv2d_forward",
        teaches="a convolution as a sum over windows; stride and padding",
        section="3.4",
        signature="x, w, b, stride, padding",
        outputs=("y",),
        text=f"""
            Convolution of a batch of images, as deep learning defines it (a cross-correlation).

            x  (N, C, H, W)      w  (O, C, KH, KW)      b  (O,)
            y  (N, O, OH, OW)    OH = (H + 2·padding − KH) // stride + 1, OW likewise

            y[n, o, i, j] = b[o] + Σ_c,p,q  x[n, c, i·stride + p − padding, j·stride + q − padding] · w[o, c, p, q]

            Outside of the image x is 0. {SIZES}
            """,
        helpers=(pair_of,),
        solution=conv2d_forward,
        variant=forward_variant,
        misconceptions=FORWARD,
        cases=lambda rng: cases(rng, forward=True),
        right={"y": "y[n,o,i,j] = Σ_c,p,q x[n,c,i·s+p−padding,j·s+q−padding] · w[o,c,p,q] + b[o]"},
        hint=(
            "Pad x with zeros first. The window of output (i, j) begins at row i·stride and column j·stride of the "
            "padded x."
        ),
        why="Each output reads one window of the padded input and multiplies it by the same filter. "
        "Because all windows share the filter, the layer has C·KH·KW weights per filter, whatever the size of the "
        "image.",
        place="minires step resnet20 --at layer2.0.conv1 --backend reference",
    ),
    Exercise(
        name="conv2d_backward",
        teaches="the three gradients of a convolution",
        section="3.4",
        signature="grad_output, x, w, stride, padding",
        outputs=("grad_x", "grad_w", "grad_b"),
        text=f"""
            Gradients of a convolution with bias, y = conv2d(x, w, b, stride, padding).

            grad_output  (N, O, OH, OW)    gradient of the loss with respect to y
            x            (N, C, H, W)
            w            (O, C, KH, KW)
            returns      grad_x (N, C, H, W), grad_w (O, C, KH, KW), grad_b (O,)

            y[n, o, i, j] = b[o] + Σ_c,p,q  x[n, c, i·stride + p − padding, j·stride + q − padding] · w[o, c, p, q]

            Outside of the image x is 0. {SIZES}
            """,
        helpers=(pair_of,),
        solution=conv2d_backward,
        variant=backward_variant,
        misconceptions=(
            *BACKWARD,
            M("taps counted backwards", "flip", "h = i·s − p + padding instead of i·s + p − padding"),
        ),
        cases=cases,
        right=RIGHT,
        hint=HINT,
        why="The output y[n,o,i,j] contains the product of x at (i·s+p, j·s+q) and w at (p, q). So "
        "grad_output[n,o,i,j] returns to that pixel times w and to that tap times x. A pixel collects from all "
        "windows that contain it, a tap from all windows and images, and the bias from every output of its filter.",
        place="minires step resnet20 --at layer2.0.conv1 --when backward --backend reference",
    ),
    Exercise(
        name="conv2d_backward_grouped",
        teaches="dilation and groups, on top of conv2d_backward",
        section="3.4",
        signature="grad_output, x, w, stride, padding, dilation=1, groups=1",
        outputs=("grad_x", "grad_w", "grad_b"),
        text="""
            Gradients of a convolution with bias, dilation and groups.

            grad_output  (N, O, OH, OW)    gradient of the loss with respect to y
            x            (N, C, H, W)
            w            (O, C/groups, KH, KW)
            returns      grad_x (N, C, H, W), grad_w (O, C/groups, KH, KW), grad_b (O,)

            y[n, o, i, j] = b[o] + Σ_c,p,q  x[n, c', i·stride + p·dilation − padding, …] · w[o, c, p, q]

            Filter o belongs to group g = o // (O/groups), and its channel c is channel c' = g·(C/groups) + c of x.
            stride, padding and dilation are each an int or an (h, w) pair.
            """,
        helpers=(pair_of,),
        solution=conv2d_backward_grouped,
        variant=backward_variant,
        misconceptions=(*GROUPED_ONLY, *BACKWARD),
        cases=lambda rng: cases(rng, GROUPED),
        right=RIGHT | {"grad_x": RIGHT["grad_x"].replace(" + p", " + p·dilation")},
        hint="First make groups = 1 right: tap p of output i reads row i·stride + p·dilation. Then loop "
        "over the groups and let each group see its slice of channels and its slice of filters.",
        why="A group is a convolution of its own, with its own channels and filters. Dilation spreads "
        "the taps and leaves everything else: the same products run back to the same places.",
        place="minires step resnet20 --at layer2.0.conv1 --when backward --backend reference",
    ),
)
