"""Right or wrong: an output compared with the expected one."""

from __future__ import annotations

from typing import Any

import numpy as np

from minires.exercises.task import Array


def same(came: Any, expected: Array, tolerance: float) -> bool:
    """Whether shapes are equal and each error is at most tolerance · (largest expected element, at least 1).

    NaN equals NaN only: this recognises a misconception that gives NaN.  The solution's outputs are finite, so NaN
    never passes for right.
    """
    if not isinstance(came, np.ndarray) or came.shape != expected.shape:
        return False
    finite = expected[np.isfinite(expected)]
    limit = tolerance * max(1.0, float(np.abs(finite).max(initial=0)))
    with np.errstate(invalid="ignore"):
        close = np.abs(came - expected) <= limit
    return bool(np.all(close | (came == expected) | (np.isnan(came) & np.isnan(expected))))


def different(came: Array, expected: Array, tolerance: float) -> Array:
    """The indices, a row each, at which arrays of one shape differ."""
    limit = tolerance * max(1.0, float(np.abs(expected).max(initial=0)))
    with np.errstate(invalid="ignore"):
        return np.argwhere(~(np.abs(came - expected) <= limit))


def first_difference(name: str, came: Any, expected: Array, tolerance: float, statistics: tuple[str, ...] = ()) -> str:
    """Which elements differ, and the first of them with both numbers; small arrays are shown whole.

    statistics   names of the elements, if they are statistics of the output
    """
    if isinstance(came, str):
        return came
    if came.shape != expected.shape:
        return f"{name} has shape {came.shape}, expected {expected.shape}"
    where = different(came, expected, tolerance)
    index = tuple(map(int, where[0]))
    place = f"{name}[{', '.join(map(str, index))}]" if index else name
    if statistics:
        wrong = [k for (k,) in where]
        return "\n".join(
            f"{statistics[k]} of {name} came {number(came[k])}, expected about {number(expected[k])}" for k in wrong
        )
    digits = next((d for d in range(6, 17) if number(came[index], d) != number(expected[index], d)), 17)
    lines = [
        f"{place} came {number(came[index], digits)}, expected {number(expected[index], digits)}; "
        f"{len(where)} of {came.size} elements {'differs' if len(where) == 1 else 'differ'}"
    ]
    if 1 < came.size <= 16:
        lines += [f"  came      {shown(came)}", f"  expected  {shown(expected)}"]
    return "\n".join(lines)


def number(value: Any, digits: int = 6) -> str:
    return f"{float(value):.{digits}g}"


def shown(array: Array) -> str:
    """A small array on one line."""
    if array.ndim == 0:
        return number(array)
    return "[" + (" " if array.ndim == 1 else ", ").join(map(shown, array)) + "]"
