"""Checks of arguments: every message names the argument, what came and what is allowed."""

from __future__ import annotations

import difflib
import numbers
import operator
from collections.abc import Iterable, Sequence
from typing import Any

Pair = int | Sequence[int]


LARGEST_SIZE = 2**31 - 1  # of a kernel, stride, padding or dilation: products with pixel counts stay within 64 bits


def integer(value: Any, argument: str, minimum: int | None = None, maximum: int = 2**63 - 1) -> int:
    """`value` as an int (NumPy integers welcome, booleans and floats not), at least `minimum` and at most `maximum`."""
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool):
        raise TypeError(f"{argument} must be an integer, got {value!r}")
    if minimum is not None and number < minimum:
        raise ValueError(f"{argument} must be at least {minimum}, got {value!r}")
    if abs(number) > maximum:
        raise ValueError(f"{argument} must be at most {maximum}, got {value!r}")
    return number


def pair(value: Any, argument: str, minimum: int = 0) -> tuple[int, int]:
    """`value` as (h, w): an int stands for both."""
    if isinstance(value, (tuple, list)):
        if len(value) != 2:
            raise ValueError(f"{argument} must be an int or an (h, w) pair, got {value!r}")
        h, w = value
    else:
        h = w = value
    try:
        return integer(h, argument, minimum, LARGEST_SIZE), integer(w, argument, minimum, LARGEST_SIZE)
    except TypeError:
        raise TypeError(f"{argument} must be an int or an (h, w) pair of ints, got {value!r}") from None
    except ValueError as error:
        raise ValueError(f"{str(error).partition(', got')[0]}, got {value!r}") from None


def number(
    value: Any, argument: str, minimum: float | None = None, maximum: float | None = None, *, open_minimum: bool = False
) -> float:
    """`value` as a finite float within [minimum, maximum]; `open_minimum` excludes the lower end."""
    try:
        result = real(value, argument)
    except OverflowError:
        result = float("inf")
    low = float("-inf") if minimum is None else minimum
    high = float("inf") if maximum is None else maximum
    inside = low < result <= high if open_minimum else low <= result <= high
    if not inside or result in (float("inf"), float("-inf")):
        bounds = [] if minimum is None else [f"{'above' if open_minimum else 'at least'} {minimum}"]
        bounds += [] if maximum is None else [f"at most {maximum}"]
        raise ValueError(f"{argument} must be {' and '.join(bounds) or 'finite'}, got {value!r}")
    return result


def real(value: Any, argument: str) -> float:
    """`value` as a float, infinities and NaN included (NumPy's numbers welcome, booleans and complex ones not).

    Raises OverflowError for an int beyond every float.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{argument} must be a number, got {value!r}")
    try:
        return float(value)
    except TypeError:  # a span of time is an integer to NumPy
        raise TypeError(f"{argument} must be a number, got {value!r}") from None


def choice(value: Any, argument: str, allowed: Iterable[str]) -> str:
    """`value`, if it is one of the `allowed` words."""
    allowed = list(allowed)
    if isinstance(value, str) and value in allowed:
        return value
    told = ", ".join(map(repr, allowed))
    raise ValueError(f"{argument} must be one of {told}; got {value!r}.{suggest(value, allowed)}")


def suggest(word: Any, allowed: Iterable[str]) -> str:
    """' Did you mean 'x'?' for the nearest allowed word, or nothing."""
    near = difflib.get_close_matches(str(word), list(allowed), n=1)
    return f" Did you mean {near[0]!r}?" if near else ""


def axes(value: Any, argument: str, ndim: int) -> tuple[int, ...]:
    """`value` (None for all, an int or a tuple of ints, negative ones counted from the end) as distinct axes."""
    if value is None:
        return tuple(range(ndim))
    values = value if isinstance(value, (tuple, list)) else (value,)
    result = []
    for item in values:
        axis = integer(item, argument)
        if not -ndim <= axis < ndim:
            raise ValueError(f"{argument} must lie in [{-ndim}, {ndim - 1}] for {ndim} dimensions, got {value!r}")
        result.append(axis % ndim)
    if len(set(result)) != len(result):
        raise ValueError(f"{argument} names an axis twice: {value!r}")
    return tuple(result)
