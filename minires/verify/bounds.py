"""A-priori bounds: how far rounding may move each element of a result, for every operation, backend and dtype.

u is the unit roundoff of the dtype, 2⁻²⁴ for float32, and γ(n) = n·u / (1 − n·u).  A product of n factors 1 + δ with
|δ| ≤ u is within γ(n) of 1 (Higham, Accuracy and Stability of Numerical Algorithms, lemma 3.1).  Every bound here is a
count of such factors times the magnitudes of the actual operands.

**Sums.**  A term of a sum of n takes part in at most n − 1 additions; adding 0 is exact.  This holds for every order,
blocked or not, with or without fused multiply-add.  So Σ x is off by at most γ(n − 1) Σ|x|, and Σ x·w by
γ(n) Σ|x||w| (Higham, sections 3.1 and 4.2).  Sums over axes are blocked, backends/reference/sums.py: `in_blocks` counts
their additions (Blanchard, Higham and Mary, A class of fast and accurate summation algorithms, 2020).  Tensor cores
round each operand first, by ε = 2⁻¹¹ for tf32 and 2⁻⁸ for bf16: ((1 + ε)²(1 + γ(n)) − 1) Σ|x||w|.  3xtf32 splits an
operand into two tf32 numbers, which leaves 2⁻²² of it.  It omits the product of the smaller ones, 2⁻²² of x·w.  So
ε = 2⁻²¹, and the sums have 3n terms.

    conv2d      n = C/G·KH·KW, one more with a bias; grad_x O/G·KH·KW; grad_w N·OH·OW; grad_b a sum
    linear      n = in, one more with a bias; grad_x out; grad_w rows; grad_b a sum
    add         u·|a + b|; the gradient of what was broadcast is a sum
    mean, average pooling   n: n − 1 additions and a division; their gradients m for m windows
    relu, maximum pooling   0; the gradient of the latter m − 1 where m windows have their maximum

**Winograd.**  Y = Aᵀ [(G g Gᵀ) ⊙ (Bᵀ d B)] A of each tile, summed over the channels before the last transform.  In one
dimension a transform applies at most this many factors 1 + δ, rounded constants included; each is applied twice:

    F(4×4, 3×3)   input 4, filter 5, output 6; the gradient's A 3, Gᵀ 5
    F(2×2, 3×3)   input 1, filter 2, output 2: its constants are exact

With C products summed, and one rounding of each stored product, F4 has C + 31 factors and F2 C + 11.  The bound is
relative to |Aᵀ| [|G||g||Gᵀ| ⊙ |Bᵀ||d||B|] |A|, of whole tiles (own count; the form is that of Barabasz, Anderson,
Soodhalter and Gregg, Error analysis and improving the accuracy of Winograd convolution for deep neural networks, 2020).
The gradient of the filters sums over T tiles: T + 25 factors, relative to |Gᵀ| [Σ |A||g||Aᵀ| ⊙ |Bᵀ||d||B|] |G|.

**Batch norm.**  d = x − mean.  δm bounds the error of the mean, δv that of the variance, in training:

- Two passes (reference; native where a block holds all pixels): δm = γ(M)·mean|x|.  The sum of squares about an
  inexact centre is larger by its square: δv = γ(M + 3)·mean (|d| + δm)² + δm².
- Merged parts (native's blocks; the kernels' Welford): a merge m₁ + (m₂ − m₁)·n₂/n rounds by u·A + 8u·A·n₂/n, where
  A = max|x|, and an error of a part counts n₁/n of itself.  So a level of k merges adds at most (k + 8)·u·A, and a
  chain of n Welford steps ((n + 1)/2 + 8)·u·A.  The products of Welford's update are off by δm·(|a| + |b|) + δm²,
  those of a merge by 4·δm·|m₂ − m₁| + 4·δm².  By Cauchy and Schwarz their sum, divided by M, gives
  δv = γ(M + 16)·(√v + 2δm)² + 9·δm·√v + 9·δm².

With δ = δv + u·eps, 1/√(v + eps) is relatively off by ρ = 1/√(1 − δ/(v + eps)) − 1 and by 3 roundings, so that

    y = d·s + b     |s|·[(|d| + δm)(1 + ρ)(1 + γ(6)) − |d|] + u·(|d·s| + |b|)
    grad_weight     inv_std·[(|Σ g·d| + e)(1 + ρ)(1 + γ(4)) − |Σ g·d|],  e = δm·|Σ g| + γ(M + 2)·Σ|g|(|d| + δm)
    grad_x          |s|·[(|q| + e)(1 + ρ)(1 + γ(6)) − |q|],  q = g − mean(g) − d·k,  k = inv_std·grad_weight/M

where e of grad_x adds the errors of mean(g) and of d·k, and three roundings of what is subtracted.

**Softmax.**  t = x − max is rounded, so exp(t) is relatively off by a = exp(u·|t|)(1 + 6u) − 1.  The 6u allow the
libraries 3 units in the last place for exp and log: NumPy documents 2.52 for float32, CUDA 2, glibc 1.  The sum s of
exp(t) is relatively off by D = Σ p·a + γ(C − 1)(1 + Σ p·a).  The quotient is relatively off by
(1 + a)(1 + u)/(1 − D) − 1, and log s by −log(1 − D) and 3 units.  The gradients and cross-entropy combine these with γ
as above; the code is their formula.

Underflow adds less than the smallest normal number per factor, times max(1, max |g|) in a gradient.  The formulas are
evaluated in float64 and enlarged by 1e-9.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minires.arrays import Array
from minires.backends.reference.sums import BLOCK
from minires.verify import exact
from minires.verify.enclosure import enclosed
from minires.verify.exact import magnitude, windows

ENLARGED = 1 + 1e-9
LIBRARY = 6  # roundings' worth of an exp or a log: 3 units in the last place
OPERAND = {"3xtf32": 2.0**-21, "tf32": 2.0**-11, "bf16": 2.0**-8}  # by the end of a rung's name, the longest first
THRICE = 3.01  # terms of a product in 3xtf32: three, together at most 1.002 times as large


@dataclass(frozen=True)
class Arithmetic:
    """What a bound depends on besides the operands.

    u           unit roundoff of the dtype
    backend     reference | native | emulated
    winograd    "" or the minimal filtering that 3×3 convolutions use, "F4" or "F2"
    convolved, multiplied   the rounding of an operand of a convolution, and of a product of matrices
    terms       the number of terms that each product adds to a sum
    """

    u: float
    backend: str = "reference"
    winograd: str = ""
    convolved: float = 0.0
    multiplied: float = 0.0
    terms: float = 1.0

    @classmethod
    def of(cls, dtype: Any, backend: str = "reference", **options: Any) -> Arithmetic:
        """Of a backend with these options, as `mr.backend` takes them.

        A .cu file of your own has the bounds of the rung whose name ends as the file's does, else those of its dtype.
        """
        u = float(np.finfo(dtype).eps) / 2
        rungs = [Path(options.get(key, "")).stem for key in ("conv2d", "gemm")]
        kinds = [next((kind for kind in OPERAND if rung.endswith(kind)), "") for rung in rungs]
        convolved, multiplied = (OPERAND.get(kind, 0.0) for kind in kinds)
        winograd = "F2" if rungs[0] == "conv_08_winograd" else ""
        if backend == "native" and options.get("winograd", True) and u > 1e-10:
            winograd = "F4"
        terms = THRICE if "3xtf32" in kinds else 1.0
        return cls(u, backend, winograd, max(convolved, multiplied), multiplied, terms)

    def gamma(self, n: Any) -> Any:
        n = np.maximum(n, 0)
        return n * self.u / (1 - n * self.u)

    def added(self, n: int) -> Any:
        """γ of a sum of n numbers over axes: of `sum_axes`, or of the runs and blocks of csrc/cpu/batch_norm.h"""
        return self.gamma(min(n - 1, 609 + n // 4096) if self.backend == "native" else in_blocks(n))

    def products(self, n: Any, terms: Array, operand: float = 0.0) -> Array:
        """The error of sums of n products, where `terms` is Σ|x||w|"""
        return ((1 + operand) ** 2 * (1 + self.gamma(self.terms * n)) - 1) * terms


def in_blocks(n: int) -> int:
    """The largest number of additions of a term in backends/reference/sums.py, NumPy's pairwise sums included"""
    whole, levels = n, 1
    while whole >= BLOCK:
        whole, levels = -(-whole // BLOCK), levels + 1
    return min(n - 1, BLOCK * levels)


def absolute(a: Array) -> Array:
    return np.abs(a).astype(np.float64)


# -- Winograd

P, Q = 0.75, 1.5  # the points of csrc/cpu/winograd.h beside 0 and infinity
P2, Q2 = P * P, Q * Q
AT_P, AT_Q = 2 * P2 * (P2 - Q2), 2 * Q2 * (Q2 - P2)
WINOGRAD: dict[str, tuple[Any, Any, Any]] = {  # Bᵀ, G and Aᵀ
    "F4": (
        [
            [P2 * Q2, 0, -P2 - Q2, 0, 1, 0],
            [0, -P * Q2, -Q2, P, 1, 0],
            [0, P * Q2, -Q2, -P, 1, 0],
            [0, -Q * P2, -P2, Q, 1, 0],
            [0, Q * P2, -P2, -Q, 1, 0],
            [0, P2 * Q2, 0, -P2 - Q2, 0, 1],
        ],
        [
            [1 / (P2 * Q2), 0, 0],
            *([1 / AT_P, sign * P / AT_P, P2 / AT_P] for sign in (1, -1)),
            *([1 / AT_Q, sign * Q / AT_Q, Q2 / AT_Q] for sign in (1, -1)),
            [0, 0, 1],
        ],
        [[float(k == 0), *(p**k for p in (P, -P, Q, -Q)), float(k == 3)] for k in range(4)],
    ),
    "F2": (
        [[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]],
        [[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]],
        [[1, 1, 1, 0], [0, 1, -1, -1]],
    ),
}
FACTORS = {"F4": 31, "F2": 11}  # of an output, beside the C of the sum
FACTORS_OF_FILTERS = 25  # of the filters' gradient, beside the number of tiles; F4 alone computes it


def _tiled(output: tuple[int, int], step: int) -> tuple[int, int]:
    return -(-output[0] // step), -(-output[1] // step)


def _transformed(matrix: Any, tiles: Array) -> Array:
    """|M| t |M|ᵀ of the last two axes"""
    m = np.abs(np.asarray(matrix, np.float64))
    result: Array = m @ tiles @ m.T
    return result


def winograd_terms(x: Array, w: Array, padding: Any, output: Any, name: str) -> Array:
    """x (N, C, H, W), w (O, C, 3, 3) -> (N, O, OH, OW): |Aᵀ| [|G||g||Gᵀ| ⊙ |Bᵀ||d||B|] |A|"""
    B_T, G, A_T = WINOGRAD[name]
    step, size = len(A_T), len(B_T)
    rows, columns = _tiled(output, step)
    d = windows(absolute(x), (size, size), (step, step), padding, (1, 1), (rows, columns))  # (N, C, TH, TW, 6, 6)
    d, g = _transformed(B_T, d), _transformed(G, absolute(w))
    products = np.einsum("nchwpq,ocpq->nohwpq", d, g, optimize=True)
    y = _transformed(A_T, products).transpose(0, 1, 2, 4, 3, 5)
    whole: Array = y.reshape(len(x), len(w), rows * step, columns * step)[:, :, : output[0], : output[1]]
    return whole


def winograd_filter_terms(x: Array, g: Array, padding: Any) -> Array:
    """x (N, C, H, W), grad_output g (N, O, OH, OW) -> (O, C, 3, 3): |Gᵀ| [Σ |A||g||Aᵀ| ⊙ |Bᵀ||d||B|] |G|"""
    B_T, G, A_T = (np.asarray(m, np.float64) for m in WINOGRAD["F4"])
    tiles = _tiled(g.shape[2:], 4)
    d = _transformed(B_T, windows(absolute(x), (6, 6), (4, 4), padding, (1, 1), tiles))
    y = _transformed(A_T.T, windows(absolute(g), (4, 4), (4, 4), (0, 0), (1, 1), tiles))
    return _transformed(G.T, np.einsum("nchwpq,nohwpq->ocpq", d, y, optimize=True))


def native_uses_winograd(t: Any, C: int, O: int, output: Any, padding: Any) -> bool:
    """`suits_winograd` of csrc/cpu/conv2d.h"""
    one = t.stride == t.dilation == (1, 1) and t.w.shape[2:] == (3, 3) and t.groups == 1
    rows, columns = _tiled(output, 4)
    fills = len(t.x) * rows * columns >= 16 and 16 * rows * columns <= 2 * output[0] * output[1]
    return one and max(padding) <= 2 and min(padding) >= 0 and C >= 8 and O >= 8 and fills


# -- sums of products


def conv2d(t: exact.Conv2d, a: Arithmetic) -> Array:
    C, taps, bias = t.w.shape[1], math.prod(t.w.shape[2:]), t.b is not None
    shift = 0 if t.b is None else absolute(t.b)[:, None, None]
    if a.winograd == "F4" and native_uses_winograd(t, C, len(t.w), t.output, t.padding):
        return a.products(C + FACTORS["F4"] + bias, winograd_terms(t.x, t.w, t.padding, t.output, "F4") + shift)
    if a.winograd == "F2" and t.w.shape[2:] == (3, 3) and t.stride == t.dilation == (1, 1):
        O, groups = len(t.w) // t.groups, range(t.groups)
        parts = (
            (t.x[:, g * C : (g + 1) * C], t.w[g * O : (g + 1) * O], t.padding, t.output, "F2") for g in groups
        )  # fmt: skip
        whole = np.concatenate([winograd_terms(*part) for part in parts], 1)
        return a.products(C + FACTORS["F2"] + bias, whole + shift, a.multiplied)
    return a.products(C * taps + bias, t.forward_by(magnitude) + shift, a.convolved)


def conv2d_backward(t: exact.Conv2d, a: Arithmetic, g: Array) -> list[Array]:
    O, C, KH, KW = t.w.shape
    M = g.size // O
    grad_x = a.products(O // t.groups * KH * KW, t.grad_x_by(magnitude, g), a.convolved)
    grad_w = a.products(M, t.grad_w_by(magnitude, g), a.convolved)
    if a.winograd == "F4":
        padding = 2 - t.padding[0], 2 - t.padding[1]
        if native_uses_winograd(t, O, C, t.x.shape[2:], padding):
            terms = winograd_terms(g, exact.flipped(t.w, 1), padding, t.x.shape[2:], "F4")
            grad_x = a.products(O + FACTORS["F4"], terms)
        if native_uses_winograd(t, C, O, t.output, t.padding):
            tiles = len(g) * math.prod(_tiled(g.shape[2:], 4))
            grad_w = a.products(tiles + FACTORS_OF_FILTERS, winograd_filter_terms(t.x, g, t.padding))
    return [grad_x, grad_w, a.added(M) * absolute(g).sum((0, 2, 3))]


def linear(t: exact.Linear, a: Arithmetic) -> Array:
    terms = magnitude(t.x, t.w.T) + (0 if t.b is None else absolute(t.b))
    return a.products(t.x.shape[-1] + (t.b is not None), terms, a.multiplied)


def linear_backward(t: exact.Linear, a: Arithmetic, g: Array) -> list[Array]:
    rows = g.reshape(-1, g.shape[-1])
    return [
        a.products(g.shape[-1], t.grad_x_by(magnitude, g), a.multiplied),
        a.products(len(rows), t.grad_w_by(magnitude, g), a.multiplied),
        a.added(len(rows)) * absolute(rows).sum(0),
    ]


# -- sums, and what moves numbers


def nothing(t: Any, a: Arithmetic) -> Array:
    return np.zeros(())


def nothing_backward(t: Any, a: Arithmetic, g: Array) -> list[Array]:
    return [np.zeros(())]


def add(t: exact.Add, a: Arithmetic) -> Array:
    return a.u * t.forward().magnitude


def add_backward(t: exact.Add, a: Arithmetic, g: Array) -> list[Array]:
    sums = [exact.summed_to(enclosed(absolute(g)), x.shape).magnitude for x in t.inputs]
    return [a.gamma(in_blocks(g.size // max(x.size, 1))) * s for x, s in zip(t.inputs, sums, strict=True)]


def sums(t: exact.Sum, a: Arithmetic) -> Array:
    total, mean = absolute(t.x).sum(t.axis).reshape(t.output), isinstance(t, exact.Mean)
    return a.gamma(in_blocks(t.n) + mean) * total / (t.n if mean else 1)


def sums_backward(t: exact.Sum, a: Arithmetic, g: Array) -> list[Array]:
    return [isinstance(t, exact.Mean) * a.u * t.backward(g)[0].magnitude]


def pool(t: exact.Pool, a: Arithmetic) -> Array:
    n = np.outer(t.rows.sum(1), t.columns.sum(1))
    return a.gamma(n) * t.over_windows(absolute(t.x)).magnitude / np.abs(t.sizes)


def pool_backward(t: exact.Pool, a: Arithmetic, g: Array) -> list[Array]:
    m = np.outer(t.rows.sum(0), t.columns.sum(0))
    return [a.gamma(m) * (t.rows.T @ (absolute(g) / np.abs(t.sizes)) @ t.columns)]


def max_pool_backward(t: exact.MaxPool2d, a: Arithmetic, g: Array) -> list[Array]:
    m = t.backward(np.ones(g.shape))[0].high
    return [a.gamma(m - 1) * t.backward(absolute(g))[0].magnitude]


# -- batch norm


def _mean_off(t: exact.BatchNorm, a: Arithmetic) -> tuple[Array, bool]:
    """δm (C, 1), and whether parts are merged"""
    C, M = t.x.shape
    x = t.x.magnitude
    if a.backend == "native":
        block = max(-(-M // 64), max(32768 // C, 1))
        parts = -(-M // block)
        if parts > 1:
            return a.gamma(block + parts + 8) * x.max(1, keepdims=True), True
    if a.backend == "emulated":
        parts = max(1, min(-(-256 // -(-C // 32)), -(-M // 64)))
        part = -(-M // parts)
        chain = -(-part // 8)
        steps = (chain + 1) / 2 + 8 if chain > 1 else 0
        return a.gamma(steps + min(part, 8) + 7 + parts + 8) * x.max(1, keepdims=True), True
    return a.gamma(M) * x.mean(1, keepdims=True), False


def _statistics_off(t: exact.BatchNorm, a: Arithmetic) -> tuple[Any, Array]:
    """δm and ρ, (C, 1) each"""
    off: Any = 0.0
    var_off: Any = 0.0
    if t.training:
        off, merged = _mean_off(t, a)
        var = t.var.magnitude
        if merged:
            var_off = a.gamma(t.M + 16) * (np.sqrt(var) + 2 * off) ** 2 + 9 * off * np.sqrt(var) + 9 * off**2
        else:
            var_off = a.gamma(t.M + 3) * ((t.d.magnitude + off) ** 2).mean(1, keepdims=True) + off**2
    relative = (var_off + a.u * t.eps) / (t.var.high + t.eps)
    with np.errstate(divide="ignore"):
        return off, 1 / np.sqrt(np.maximum(1 - relative, 0)) - 1  # infinite where the variance may be rounded away


def _like(t: exact.BatchNorm, rows: Array) -> Array:
    return exact._unrows(enclosed(rows), t.shape).high


def batch_norm(t: exact.BatchNorm, a: Arithmetic) -> Array:
    off, rho = _statistics_off(t, a)
    d, s = t.d.magnitude, t.scale.magnitude
    moved = ((d + off) * (1 + rho) * (1 + a.gamma(6)) - d) * s * (1 + a.u)
    return _like(t, moved + a.u * (d * s + (0 if t.bias is None else np.abs(t.bias))))


def batch_norm_backward(t: exact.BatchNorm, a: Arithmetic, grad_output: Array) -> list[Array]:
    off, rho = _statistics_off(t, a)
    g, d, s, inv_std = absolute(exact._rows(grad_output)), t.d.magnitude, t.scale.magnitude, t.inv_std.magnitude
    exact_g = enclosed(exact._rows(grad_output))
    sum_g, product = (v.sum(1)[:, None].magnitude for v in (exact_g, exact_g * t.d))
    product_off = off * sum_g + a.gamma(t.M + 2) * (g * (d + off)).sum(1, keepdims=True)
    weight_off = inv_std * ((product + product_off) * (1 + rho) * (1 + a.gamma(4)) - product)
    bias_off = a.gamma(t.M - 1) * g.sum(1)
    q, q_off = exact_g, np.zeros(g.shape)
    if t.training:
        grad_weight = (exact_g * t.d).sum(1)[:, None] * t.inv_std
        k = grad_weight * t.inv_std / float(t.M)
        mean_g = exact_g.sum(1)[:, None] / float(t.M)
        k_off = ((grad_weight.magnitude + weight_off) * (1 + rho) * (1 + a.gamma(5)) - grad_weight.magnitude) * inv_std
        k_off = k_off / t.M
        mean_off = a.gamma(t.M) * g.mean(1, keepdims=True)
        slope = (d + off) * (k.magnitude + k_off)
        q = exact_g - mean_g - t.d * k
        q_off = mean_off + slope * (1 + a.gamma(2)) - d * k.magnitude
        q_off = q_off + a.gamma(3) * (g + mean_g.magnitude + mean_off + slope)
    grad_x = s * ((q.magnitude + q_off) * (1 + rho) * (1 + a.gamma(6)) - q.magnitude)
    return [_like(t, grad_x), weight_off[:, 0], bias_off]


# -- softmax and the losses


def _exponentials(t: exact.Softmax, a: Arithmetic) -> tuple[Array, Array]:
    """a (rows, C) and D (rows, 1), the relative errors of exp(t) and of their sum"""
    each = np.expm1(a.u * t.t.magnitude) * (1 + LIBRARY * a.u) + LIBRARY * a.u
    whole = (t.p.magnitude * each).sum(1, keepdims=True)
    return each, whole + a.gamma(each.shape[1] - 1) * (1 + whole)


def _softmax_off(t: exact.Softmax, a: Arithmetic) -> Array:
    """The relative error of p"""
    each, whole = _exponentials(t, a)
    result: Array = (1 + each) * (1 + a.u) / (1 - whole) - 1
    return result


def softmax(t: exact.Softmax, a: Arithmetic) -> Array:
    return np.asarray(t.unlines(_softmax_off(t, a) * t.p.magnitude))


def softmax_backward(t: exact.Softmax, a: Arithmetic, grad_output: Array) -> list[Array]:
    rho, p, g = _softmax_off(t, a), t.p.magnitude, enclosed(t.lines(grad_output))
    apart = (g - (g * t.p).sum(1)[:, None]).magnitude
    sum_off = (g.magnitude * p * ((1 + rho) * (1 + a.gamma(p.shape[1])) - 1)).sum(1, keepdims=True)
    return [t.unlines(p * ((1 + rho) * (1 + a.gamma(2)) * (apart + sum_off) - apart))]


def _log_off(t: exact.LogSoftmax, a: Arithmetic) -> Array:
    """The error of log p"""
    _, whole = _exponentials(t, a)
    log_off = -np.log1p(-whole)
    log_off = log_off + LIBRARY * a.u * (t.log_s.magnitude + log_off)
    result: Array = (a.u * t.t.magnitude + log_off) * (1 + a.u) + a.u * t.log_p.magnitude
    return result


def log_softmax(t: exact.LogSoftmax, a: Arithmetic) -> Array:
    return np.asarray(t.unlines(_log_off(t, a)))


def _p_off(t: exact.LogSoftmax, a: Arithmetic) -> Array:
    """The relative error of exp(log p)"""
    return np.expm1(_log_off(t, a)) * (1 + LIBRARY * a.u) + LIBRARY * a.u


def log_softmax_backward(t: exact.LogSoftmax, a: Arithmetic, grad_output: Array) -> list[Array]:
    p, g = t.p.magnitude, enclosed(t.lines(grad_output))
    total = g.sum(1)[:, None].magnitude
    sum_off = a.gamma(p.shape[1] - 1) * g.magnitude.sum(1, keepdims=True)
    product_off = p * ((1 + _p_off(t, a)) * (1 + a.u) * (total + sum_off) - total)
    return [t.unlines(product_off * (1 + a.u) + a.u * (g.magnitude + p * total))]


def cross_entropy(t: exact.CrossEntropy, a: Arithmetic) -> Array:
    smooth = t.smoothing.high != 0
    log_p, target = t.log_p.magnitude, t.target.magnitude
    factors = a.gamma(t.C + 6) if smooth else 0.0
    off = (target * ((log_p + _log_off(t, a)) * (1 + factors) - log_p)).sum(1)
    if t.reduction == "none":
        return off.reshape(t.shape[:1] + t.shape[2:])
    n, losses = (t.M if t.reduction == "mean" else t.M - 1), (target * log_p).sum(1)
    return np.asarray(((losses + off) * (1 + a.gamma(n)) - losses).sum() / (t.M if t.reduction == "mean" else 1))


def cross_entropy_backward(t: exact.CrossEntropy, a: Arithmetic, g: Array) -> list[Array]:
    smooth = t.smoothing.high != 0
    p, target, apart = t.p.magnitude, t.target.magnitude, (t.p - t.target).magnitude
    off = p * ((1 + _p_off(t, a)) * (1 + a.gamma(3 if smooth else 1)) - 1) + a.gamma(8 if smooth else 1) * target
    return [t.unlines(t.of_each(g).magnitude * ((apart + off) * (1 + a.gamma(2)) - apart))]


Forward = Callable[[Any, Arithmetic], Array]
Backward = Callable[[Any, Arithmetic, Array], list[Array]]
BOUNDS: dict[str, tuple[Forward, Backward]] = {
    "Conv2d": (conv2d, conv2d_backward),
    "Linear": (linear, linear_backward),
    "Add": (add, add_backward),
    "ReLU": (nothing, nothing_backward),
    "Sum": (sums, sums_backward),
    "Mean": (sums, sums_backward),
    "AvgPool2d": (pool, pool_backward),
    "AdaptiveAvgPool2d": (pool, pool_backward),
    "MaxPool2d": (nothing, max_pool_backward),
    "BatchNorm": (batch_norm, batch_norm_backward),
    "Softmax": (softmax, softmax_backward),
    "LogSoftmax": (log_softmax, log_softmax_backward),
    "CrossEntropy": (cross_entropy, cross_entropy_backward),
}


def forward(t: Any, a: Arithmetic) -> Array:
    """The bound of each element of the output of an operation of exact.py"""
    return _enlarged(BOUNDS[type(t).__name__][0](t, a), a)


def backward(t: Any, a: Arithmetic, grad_output: Array) -> list[Array]:
    """The bound of each element of the gradient of each input"""
    scale = float(absolute(grad_output).max(initial=1))  # it multiplies numbers that have underflowed
    return [_enlarged(bound, a, scale) for bound in BOUNDS[type(t).__name__][1](t, a, grad_output)]


def _enlarged(bound: Array, a: Arithmetic, scale: float = 1.0) -> Array:
    """With room for the float64 roundings of the formula and, where anything is rounded, for underflow"""
    tiny = scale * 1e3 * float(np.finfo(np.float32 if a.u > 1e-10 else np.float64).tiny)
    return np.where(bound > 0, bound * ENLARGED + tiny, bound)
