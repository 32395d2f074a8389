"""Enclosures hold the true value, as fractions and decimals of 60 digits compute it."""

from __future__ import annotations

import decimal
import math
from fractions import Fraction

import numpy as np
import pytest

from minires.verify.enclosure import Enclosure, matmul, two_product, two_sum


def holds(enclosure, exact):
    """Whether each enclosure holds the exact number, a Fraction"""
    fields = zip(*(getattr(enclosure, name).ravel() for name in ("high", "low", "radius")), exact, strict=True)
    return all(abs(Fraction(h) + Fraction(l) - number) <= Fraction(r) for h, l, r, number in fields)


def fractions(array):
    return [Fraction(float(number)) for number in array.ravel()]


def test_two_sum_and_two_product_have_no_error(rng):
    a, b = rng.standard_normal((2, 1000)) * 10.0 ** rng.integers(-9, 9, (2, 1000))
    for operation, (rounded, error) in ((Fraction.__add__, two_sum(a, b)), (Fraction.__mul__, two_product(a, b))):
        exact = [operation(x, y) for x, y in zip(fractions(a), fractions(b), strict=True)]
        assert exact == [x + y for x, y in zip(fractions(rounded), fractions(error), strict=True)]


@pytest.mark.parametrize(
    "formula",
    [
        lambda x, y: x + y,
        lambda x, y: x * y - y,
        lambda x, y: x / y,
        lambda x, y: (x * y + x) / (y * y + x * x) * x - y,
    ],
)
def test_arithmetic(rng, formula):
    a, b = rng.standard_normal((2, 300)) * 10.0 ** rng.integers(-3, 3, (2, 300))
    found = formula(Enclosure(a), Enclosure(b))
    assert holds(found, [formula(x, y) for x, y in zip(fractions(a), fractions(b), strict=True)])
    assert (found.radius <= 1e-27 * np.abs(found.high) + 1e-29).all()


def test_sums_along_an_axis(rng):
    x = rng.standard_normal((3, 101, 2)) * 10.0 ** rng.integers(-9, 9, (3, 101, 2))
    exact = [sum(fractions(x[i, :, j]), Fraction(0)) for i in range(3) for j in range(2)]
    assert holds(Enclosure(x).sum(1), exact)
    assert Enclosure(np.zeros((2, 0))).sum(1).high.tolist() == [0, 0]


@pytest.mark.parametrize("name", ["sqrt", "exp", "ln"])
def test_functions(rng, name):
    decimal.getcontext().prec = 60
    x = rng.standard_normal(200) * 10.0 ** rng.integers(-3, 2, 200)
    x = x if name == "exp" else np.abs(x)
    found = getattr(Enclosure(x), {"ln": "log"}.get(name, name))()
    exact = [Fraction(getattr(decimal.Decimal(float(number)), name)()) for number in x]
    assert holds(Enclosure(found.high, found.low, found.radius * (1 + 1e-15)), exact)
    assert (found.radius <= 1e-28 * (1 + np.abs(found.high))).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("K", [0, 1, 2, 31, 2000])
def test_products_of_matrices(rng, dtype, K):
    a = (rng.standard_normal((4, K)) * 10.0 ** rng.integers(-8, 8, (4, K))).astype(dtype)
    b = (rng.standard_normal((K, 3)) * 10.0 ** rng.integers(-8, 8, (K, 3))).astype(dtype)
    a[1] = 0  # a pixel that no output sees
    found = matmul(a, b)
    assert not found.radius[1].any()
    exact = [
        sum((x * y for x, y in zip(fractions(row), fractions(column), strict=True)), Fraction(0))
        for row in a
        for column in b.T
    ]
    assert holds(found, exact)
    if dtype == np.float32:  # products of float32 are exact in float64, and fsum rounds once
        sums = [math.fsum(row.astype(float) * column) for row in a for column in b.T]
        assert np.abs(found.high.ravel() - sums).max(initial=0) <= 1e-15 * np.abs(sums).max(initial=0)


def test_a_divisor_that_may_be_zero_is_refused():
    with pytest.raises(ZeroDivisionError):
        Enclosure(1.0) / Enclosure(1e-3, 0, 1e-2)


def test_the_exponential_of_very_negative_numbers():
    x = np.array([-599.0, -601.0, -1300.0, -2000.0, -1e30])
    found = Enclosure(x).exp()
    exact = [Fraction(decimal.Decimal(max(number, -9999)).exp()) for number in x.tolist()]
    assert holds(Enclosure(found.high, found.low, found.radius * (1 + 1e-15)), exact)
    assert (found.magnitude < 1e-240).all()
