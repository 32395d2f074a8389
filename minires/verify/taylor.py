"""The order of a Taylor remainder: a check of a derivative that needs no step size.

For a smooth function s and its slope d along a direction,  R(h) = |s(h) − s(0) − h·d|  falls as h².  If d is wrong by
e, R(h) is close to h·|e| for small h and falls as h.  The order is the slope of log R over log h.  The sweep of h ends
where rounding hides the remainder, and at the first remainder that is NaN or infinite.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

STEPS = tuple(2.0 ** (-3 - 2 * i) for i in range(12))  # 0.125 … 3e-8
CLEAR = 30  # a remainder counts if it is so many times the rounding error
LEAST = 1.5  # order of a right derivative: between h and h²


@dataclass(frozen=True)
class Remainder:
    """The remainders of a sweep that are clear of rounding.

    order    slope of log R over log h at the three smallest steps; infinite if fewer are clear, as for a linear
             function; NaN if a remainder is NaN or infinite
    hidden   whether rounding hides both the function's change and the slope at the largest step
    """

    steps: tuple[float, ...]
    remainders: tuple[float, ...]
    hidden: bool = False

    @property
    def order(self) -> float:
        if not all(map(math.isfinite, self.remainders)):
            return math.nan
        if len(self.steps) < 3:
            return math.inf
        order, _ = np.polyfit(np.log(self.steps[-3:]), np.log(self.remainders[-3:]), 1)
        return float(order)

    @property
    def right(self) -> bool:
        return self.order >= LEAST


def remainder(change: Callable[[float], float], slope: float, noise: float) -> Remainder:
    """Sweeps h.

    change   h -> s(h) − s(0)
    slope    derivative of s at 0, the number to check
    noise    rounding error of one value of s
    """
    found, hidden = [], False
    for h in STEPS:
        moved = change(h)
        left = abs(moved - h * slope)
        if h == STEPS[0]:
            hidden = 0 < max(abs(moved), abs(h * slope)) <= CLEAR * noise
        if left <= CLEAR * noise:
            break
        found.append((h, left))
        if not math.isfinite(left):
            break
    return Remainder(tuple(h for h, _ in found), tuple(left for _, left in found), hidden)
