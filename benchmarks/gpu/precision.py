"""The precision of a kernel, and how far its result may be off the exact one.

A product of depth K, out = Σ_k a_k·b_k, has the magnitude m = Σ_k |a_k|·|b_k|.  Both bounds are multiples of m:

each element      K·u / (1 − K·u) + 2·r + r²: holds for all numbers and every order of the sum
root mean square  4·(u + r / √K): holds where the roundings are independent, as for the random numbers drawn here

u is the rounding of a sum, r that of an operand.  The second bound also reveals tf32 in a row that claims fp32.
"""

from __future__ import annotations

import math
from typing import Any

# precision -> (u, r).  Tensor cores truncate their sums, which costs up to two bits.  3xtf32 splits operands in two.
ROUNDING = {
    "fp32": (2.0**-24, 0.0),
    "3xtf32": (2.0**-22, 2.0**-21),
    "tf32": (2.0**-22, 2.0**-11),
    "bf16": (2.0**-22, 2.0**-8),
}
FACTOR = 4.0


def precision_of(kernel: str) -> str:
    """The precision of a kernel's products, by its name."""
    return next((name for name in ("3xtf32", "tf32", "bf16") if name in kernel), "fp32")


def peer_precision(precision: str) -> str:
    """That of the peers which a kernel races: 3xtf32 stands in for fp32."""
    return "fp32" if precision == "3xtf32" else precision


def growth_of(kernel: str) -> float:
    """How much an algorithm multiplies rounding: Winograd's transformations add up to 16 numbers each."""
    return 16.0 if "winograd" in kernel else 1.0


def judge(
    xp: Any, found: Any, exact: Any, magnitude: Any, depth: int, precision: str, growth: float = 1.0,
    stored: float = 0.0, mean_growth: float | None = None,
) -> dict[str, Any]:  # fmt: skip
    """How far `found` is off, and whether the precision explains it.

    exact, magnitude   float64, shaped as `found`
    growth             factor on the roundings, see `growth_of`
    stored             rounding of the result itself, where it is stored in less than float32
    mean_growth        that factor in the bound of the root mean square; default: growth
    """
    sums, operand = ROUNDING[precision]
    error = xp.abs(found.astype("float64") - exact)
    bound = growth * (depth * sums / (1 - depth * sums) + 2 * operand + operand**2)
    each = bool((error <= bound * magnitude + stored * xp.abs(exact)).all())  # False for NaN
    scale = rms(xp, magnitude)
    mean_growth = growth if mean_growth is None else mean_growth
    allowed = FACTOR * mean_growth * (sums + operand / math.sqrt(depth)) + stored * rms(xp, exact) / scale
    off = rms(xp, error) / scale
    return {"off": off, "allowed": allowed, "right": each and off <= allowed}


def rms(xp: Any, array: Any) -> float:
    return math.sqrt(float(xp.square(array).mean()))
