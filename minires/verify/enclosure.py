"""Enclosures: numbers with a proven distance from the true value.

An `Enclosure` holds float64 arrays high, low and radius; the true value lies within `radius` of high + low.  The pair
carries some 106 bits, so that even a float64 result is far from its neighbours in it.  Three facts carry the proofs:

- `two_sum` and `two_product` return the rounding error of + and · exactly (Knuth; Dekker and Veltkamp).
- A sum of two pairs is off by at most 4u² of itself and a product by 8u², u = 2⁻⁵³.  3u² + 13u³ and 7u² are proven
  in Joldes, Muller and Popescu, Tight and rigorous error bounds for basic building blocks of double-word arithmetic,
  2017.
- A quotient, a root, an exponential and a logarithm are checked afterwards: the radius is what the residual proves.

The radius itself is computed in float64; each formula is enlarged by 2⁻⁴⁰, more than its own roundings.  Operands lie
between 1e-140 and 1e140 or are 0: what underflows below that is covered by `TINY`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minires.arrays import Array

U = 2.0**-53
UP = 1 + 2.0**-40  # enlarges a radius by more than the roundings of its formula
TINY = 1e-290


def two_sum(a: Array, b: Array) -> tuple[Array, Array]:
    """a + b rounded, and the rounding error, exactly"""
    s = a + b
    t = s - a
    return s, (a - (s - t)) + (b - t)


def fast_two_sum(a: Array, b: Array) -> tuple[Array, Array]:
    """The same where |a| ≥ |b| or a is 0"""
    s = a + b
    return s, b - (s - a)


def two_product(a: Array, b: Array) -> tuple[Array, Array]:
    """a · b rounded, and the rounding error, exactly: both factors are split into halves of 26 bits"""
    p = a * b
    (a_high, a_low), (b_high, b_low) = _halves(a), _halves(b)
    return p, a_low * b_low - (((p - a_high * b_high) - a_low * b_high) - a_high * b_low)


def _halves(a: Array) -> tuple[Array, Array]:
    t = a * 134217729.0  # 2²⁷ + 1
    high = t - (t - a)
    return high, a - high


class Enclosure:
    """Real numbers, each within `radius` of high + low."""

    def __init__(self, high: Any, low: Any = 0.0, radius: Any = 0.0) -> None:
        self.high = np.asarray(high, np.float64)
        self.low = np.broadcast_to(np.asarray(low, np.float64), self.high.shape)
        self.radius = np.broadcast_to(np.asarray(radius, np.float64), self.high.shape)

    shape = property(lambda self: self.high.shape)

    @property
    def magnitude(self) -> Array:
        """An upper bound of the absolute value."""
        return (np.abs(self.high) + np.abs(self.low) + self.radius) * UP

    def distance(self, found: Array) -> Array:
        """An upper bound of |found − true value|; infinite where `found` is not finite."""
        found = found.astype(np.float64)
        apart = np.abs((found - self.high) - self.low) * (1 + 4 * U) + self.radius * UP
        return np.where(np.isfinite(found), apart, np.inf)

    def each(self, fn: Callable[[Array], Array]) -> Enclosure:
        """The same numbers in another order or shape: `fn` moves elements."""
        return Enclosure(fn(self.high), fn(self.low), fn(self.radius))

    def __getitem__(self, index: Any) -> Enclosure:
        return self.each(lambda a: a[index])

    def __neg__(self) -> Enclosure:
        return Enclosure(-self.high, -self.low, self.radius)

    def __add__(self, other: Any) -> Enclosure:
        other = enclosed(other)
        s, e = two_sum(self.high, other.high)
        t, f = two_sum(self.low, other.low)
        s, e = fast_two_sum(s, e + t)
        s, e = fast_two_sum(s, e + f)
        rounded = (self.low != 0) | (other.low != 0)  # the sum of two float64 numbers is exact
        return Enclosure(s, e, (self.radius + other.radius + 4 * U * U * np.abs(s) * rounded) * UP)

    def __sub__(self, other: Any) -> Enclosure:
        return self + -enclosed(other)

    def __mul__(self, other: Any) -> Enclosure:
        other = enclosed(other)
        p, e = two_product(self.high, other.high)
        p, e = fast_two_sum(p, e + (self.high * other.low + self.low * other.high))
        apart = np.abs(self.high) * other.radius + np.abs(other.high) * self.radius
        apart = apart * UP + 2 * self.radius * other.radius
        underflow = TINY * ((self.high != 0) & (other.high != 0))
        return Enclosure(p, e, (apart + 8 * U * U * np.abs(p)) * UP + underflow)

    def __truediv__(self, other: Any) -> Enclosure:
        """q + r, where self − other · (q + r) proves how far that is from the quotient"""
        other = enclosed(other)
        q = self.high / other.high
        r = (self - other * q).high / other.high
        q, r = fast_two_sum(q, r)
        residual = self - other * Enclosure(q, r)
        least = np.abs(other.high) * (1 - 4 * U) - other.radius
        if not (least > 0).all():
            raise ZeroDivisionError("the divisor's enclosure holds 0")
        return Enclosure(q, r, residual.magnitude / least * UP)

    def sqrt(self) -> Enclosure:
        """√a of a > 0: |√a − y| = |a − y²| / (√a + y) ≤ |a − y²| / y"""
        s = np.sqrt(self.high)
        y = Enclosure(*fast_two_sum(s, (self - Enclosure(s) * s).high / (2 * s)))
        return Enclosure(y.high, y.low, (self - y * y).magnitude / y.high * UP)

    def exp(self) -> Enclosure:
        """2ᵏ · (Taylor polynomial of r / 32)³², where a = k · ln 2 + r; the remainder of degree 15 is in the radius.

        Below −600 it is 0 with the radius 2⁻⁸⁰⁰: there the powers of two come near the smallest float64.
        """
        small = self.high + np.abs(self.low) + self.radius < -600
        a = Enclosure(*(np.where(small, 0, part) for part in (self.high, self.low, self.radius)))
        k = np.clip(np.rint(a.high / math.log(2)), -900, 900)
        r = (a - LN2 * k) * (1 / 32)  # |r| ≤ 0.011
        p = Enclosure(np.ones(self.shape))
        for i in range(14, 0, -1):
            p = p * r / float(i) + 1.0
        p = Enclosure(p.high, p.low, p.radius + r.magnitude**15 / math.factorial(15) * 2)
        for _ in range(5):
            p = p * p
        high, low, radius = (np.ldexp(part, k.astype(int)) for part in (p.high, p.low, p.radius))
        return Enclosure(np.where(small, 0, high), np.where(small, 0, low), np.where(small, 2.0**-800, radius))

    def log(self) -> Enclosure:
        """y + log(1 + z) of a > 0, where z = a · exp(−y) − 1 is tiny: log(1 + z) is within |z|³ of z − z²/2"""
        y = np.log(self.high)
        z = self * Enclosure(-y).exp() - 1.0
        if not (z.magnitude < 0.5).all():
            raise ValueError("the enclosure is too wide for its logarithm")
        result = z - z * z * 0.5 + y
        return Enclosure(result.high, result.low, (result.radius + z.magnitude**3) * UP)

    def sum(self, axis: int) -> Enclosure:
        """By halves, so that the radius grows with the logarithm of the number of terms"""
        rest = self.each(lambda a: np.moveaxis(a, axis, 0))
        while rest.shape[0] > 1:
            half = rest.shape[0] // 2
            added = rest[:half] + rest[half : 2 * half]
            rest = stacked([added, rest[2 * half :]]) if rest.shape[0] % 2 else added
        return rest[0] if rest.shape[0] else Enclosure(np.zeros(rest.shape[1:]))


def enclosed(value: Any) -> Enclosure:
    return value if isinstance(value, Enclosure) else Enclosure(value)


def stacked(parts: Sequence[Enclosure], axis: int = 0) -> Enclosure:
    """Joined along an axis"""
    fields = ([np.asarray(getattr(part, name)) for part in parts] for name in ("high", "low", "radius"))
    return Enclosure(*(np.concatenate(field, axis) for field in fields))


# The first 106 bits of ln 2; the next are below 2⁻¹⁰⁸.
LN2 = Enclosure(math.log(2), 2.3190468138462996e-17, 2.0**-107)

SLICES = 5  # so many slices of each operand suffice for some 100 bits below the largest element of a row


def matmul(a: Array, b: Array) -> Enclosure:
    """a (M, K) @ b (K, N) of float32 or float64 numbers, by exact products of float64 matrices.

    Each row of a and column of b is cut into slices: integers of at most `bits` bits times a power of two, the largest
    first.  A product of two slices is exact whatever the order of its additions: every partial sum is an integer below
    K · 2^(2·bits) ≤ 2⁵³.  The method is that of Ozaki, Ogita, Oishi and Rump, Error-free transformations of matrix
    multiplication, 2012.  Products of late slices, and what the slices leave, are below
    K · max|a| · max|b| · 2^(−bits·SLICES) and go into the radius.
    """
    a, b = a.astype(np.float64), b.astype(np.float64)
    K = a.shape[1]
    if K == 0:
        return Enclosure(np.zeros((a.shape[0], b.shape[1])))
    bits = (53 - math.ceil(math.log2(K)) - 1) // 2
    left, a_top, a_rest = _slices(a, 1, bits)
    right, b_top, b_rest = _slices(b, 0, bits)
    total = Enclosure(np.zeros((a.shape[0], b.shape[1])))
    for i, one in enumerate(left):
        for j, other in enumerate(right):
            if i + j < SLICES:
                total = total + one @ other
    if a_rest or b_rest or len(left) + len(right) > SLICES + 1:
        pairs = 4 * SLICES * SLICES  # more than the products left out
        total.radius = total.radius + pairs * K * a_top * b_top * 2.0 ** (-bits * SLICES)
    return total


def _slices(a: Array, axis: int, bits: int) -> tuple[list[Array], Array, bool]:
    """The slices of each line along `axis`, a power of two above the line's largest, whether something is left"""
    largest = np.abs(a).max(axis, keepdims=True)
    _, exponent = np.frexp(largest)
    grid = np.ldexp(1.0, exponent - bits)
    slices: list[Array] = []
    while a.any() and len(slices) < SLICES:
        slices.append(np.rint(a / grid) * grid)
        a = a - slices[-1]
        grid = grid * 2.0**-bits
    return slices, np.where(largest > 0, np.ldexp(1.0, exponent), 0), bool(a.any())
