"""How far two results may lie apart: what rounding costs, and not more."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minires.arrays import Array
from minires.verify.audit import Row
from minires.verify.enclosure import Enclosure
from minires.verify.properties import expect


def off(found: Array, expected: Array) -> float:
    """Relative difference in norm; NaN counts as infinitely far."""
    expect(found.shape == expected.shape, f"the shape is {found.shape}, expected {expected.shape}")
    difference = float(np.linalg.norm(found - expected)) / max(float(np.linalg.norm(expected)), 1e-30)
    return difference if difference == difference else math.inf


def rounding(dtype: Any, terms: int) -> float:
    """What rounding may cost a sum of `terms` products of unit variance, relative in norm.

    A partial sum of k terms has size √k and is rounded by at most half an eps of it.  Roundings add up as a random
    walk, to eps/2 · K/√2 beside a result of size √K; the bound is three times that, and an eps for what is single.
    """
    return float(np.finfo(dtype).eps) * (1 + math.sqrt(terms))


def rounding_of_rung(rung: str, dtype: Any = np.float32) -> float:
    """What rounding to so many bits may cost a product of unit-variance operands, relative in norm.

    float32 keeps 24 bits, tf32 11, bf16 8; four times the rounding of one operand covers both and the sums.  Three
    products in tf32 keep 22 bits, which the rounding of float's sums covers.
    """
    if rung.endswith("3xtf32"):
        return 2e-6
    of_tensor_cores = {"tf32": 4 * 2**-11, "bf16": 4 * 2**-8}
    return of_tensor_cores.get(rung[-4:], 1e-12 if dtype == np.float64 else 2e-6)


WINOGRAD = {np.float32: 5e-6, np.float64: 1e-12}  # its transforms lose a few bits more than a sum of products


def within(found: Array, exact: Enclosure, bound: Array, name: str) -> None:
    """Every element is within its a-priori bound of the exact result.

    The bound holds for the worst case.  It is sharp for short sums; for long ones `near`, which expects that roundings
    cancel, is the sharper check of the whole array.
    """
    row = Row(name, "")
    row.add(found, exact, bound, name)
    expect(row.ratio <= 1, f"{name} is off by {row.ratio:.2g} times its bound ({row.where})")


def near(found: Array, expected: Array, bound: float, name: str) -> None:
    distance = off(found, expected)
    expect(distance <= bound, f"{name} is off by {distance:.2g}, more than {bound:.2g}")


def near_or_tiny(found: Array, expected: Array, bound: float, name: str) -> None:
    """A gradient may be zero but for rounding: beside numbers of order 1 that is nothing."""
    expect(found.shape == expected.shape, f"{name} has shape {found.shape}, expected {expected.shape}")
    error = np.abs(found - expected) / (1 + np.abs(expected))
    expect(bool((error <= bound).all()), f"{name} is off by {error.max(initial=0):.2g}, more than {bound:.2g}")
