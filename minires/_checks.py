"""Checks of arguments: every message names the argument, what came and what is allowed."""

from __future__ import annotations

import difflib
import numbers
import operator
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from minires._repr import shown

T = TypeVar("T")
Pair = int | Sequence[int]
_INTS = [int, int]  # the types in the usual pair

LARGEST_SIZE = 2**31 - 1  # of a kernel, stride, padding or dilation: products with pixel counts stay within 64 bits


def integer(value: Any, argument: str, minimum: int | None = None, maximum: int = 2**63 - 1) -> int:
    """`value` as an int (NumPy integers welcome, booleans and floats not), at least `minimum` and at most `maximum`."""
    if type(value) is int and (minimum is None or minimum <= value) and abs(value) <= maximum:
        return value  # the usual case: few lines for a debugger that steps
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool):
        raise TypeError(f"{argument} must be an integer, got {shown(value)}")
    if minimum is not None and number < minimum:
        raise ValueError(f"{argument} must be at least {minimum}, got {shown(value)}")
    if abs(number) > maximum:
        raise ValueError(f"{argument} must be at most {maximum}, got {shown(value)}")
    return number


def pair(value: Any, argument: str, minimum: int = 0) -> tuple[int, int]:
    """`value` as (h, w): an int, or a sequence of one, stands for both."""
    if type(value) is tuple and [*map(type, value)] == _INTS and minimum <= min(value) <= max(value) <= LARGEST_SIZE:
        return value  # the usual case: few lines for a debugger that steps
    if isinstance(value, (tuple, list)):
        if len(value) not in (1, 2):
            raise ValueError(f"{argument} must be an int or an (h, w) pair, got {shown(value)}")
        h, w = value[0], value[-1]
    else:
        h = w = value
    try:
        return integer(h, argument, minimum, LARGEST_SIZE), integer(w, argument, minimum, LARGEST_SIZE)
    except TypeError:
        raise TypeError(f"{argument} must be an int or an (h, w) pair of ints, got {shown(value)}") from None
    except ValueError as error:
        raise ValueError(f"{str(error).partition(', got')[0]}, got {shown(value)}") from None


def window(kernel_size: Any, stride: Any, padding: Any) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    """A pooling's kernel_size, stride (None: kernel_size) and padding as pairs."""
    kernel = pair(kernel_size, "kernel_size", 1)
    return kernel, kernel if stride is None else pair(stride, "stride", 1), pair(padding, "padding", 0)


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
        raise ValueError(f"{argument} must be {' and '.join(bounds) or 'finite'}, got {shown(value)}")
    return result


def real(value: Any, argument: str) -> float:
    """`value` as a float, infinities and NaN included (NumPy's numbers welcome, booleans and complex ones not).

    Raises OverflowError for an int beyond every float.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{argument} must be a number, got {shown(value)}")
    try:
        return float(value)
    except TypeError:  # a span of time is an integer to NumPy
        raise TypeError(f"{argument} must be a number, got {shown(value)}") from None


def flag(value: Any, argument: str) -> bool:
    """`value` as a bool (NumPy's welcome); nothing else is taken for true or false."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{argument} must be true or false, got {shown(value)}")
    return bool(value)


def choice(value: Any, argument: str, allowed: Iterable[str]) -> str:
    """`value`, if it is one of the `allowed` words."""
    allowed = list(allowed)
    if isinstance(value, str) and value in allowed:
        return value
    words = ", ".join(map(repr, allowed))
    raise ValueError(f"{argument} must be one of {words}; got {shown(value)}.{suggest(value, allowed)}")


def suggest(word: Any, allowed: Iterable[str]) -> str:
    """' Did you mean 'x'?' for the nearest allowed word (of several as near, that which begins alike), or nothing."""
    if not isinstance(word, str):
        return ""
    word = word[:100]

    def nearness(candidate: str) -> tuple[float, list[bool]]:
        same = [a == b for a, b in zip(candidate, word, strict=False)]
        return difflib.SequenceMatcher(None, candidate, word).ratio(), same

    near = difflib.get_close_matches(word, list(allowed), n=5)
    return f" Did you mean {max(near, key=nearness)!r}?" if near else ""


def axes(value: Any, argument: str, ndim: int) -> tuple[int, ...]:
    """`value` (None for all, an int or a tuple of ints, negative ones counted from the end) as distinct axes.

    A scalar has no axes; as in NumPy and PyTorch, 0 and −1 are allowed for it and select none.
    """
    if value is None:
        return tuple(range(ndim))
    values = value if isinstance(value, (tuple, list)) else (value,)
    result, span = [], max(ndim, 1)
    for item in values:
        axis = integer(item, argument)
        if not -span <= axis < span:
            raise ValueError(f"{argument} must lie in [{-span}, {span - 1}] for {ndim} dimensions, got {shown(value)}")
        result.append(axis % span)
    if len(set(result)) != len(result):
        raise ValueError(f"{argument} names an axis twice: {shown(value)}")
    return tuple(result) if ndim else ()


def instance(value: Any, argument: str, kind: type[T], expected: str = "") -> T:
    """Returns `value` if it is a `kind`; `expected` names the kind in the error, e.g. "a Tensor"."""
    if not isinstance(value, kind):
        name = kind.__name__
        expected = expected or f"{'an' if name[0] in 'AEIOU' else 'a'} {name}"
        raise TypeError(f"{argument} must be {expected}, got {type(value).__name__}")
    return value


def iterable(value: Any, argument: str, of: str) -> list[Any]:
    """`value` as a list; raises TypeError for a string, bytes and a mapping."""
    if isinstance(value, (str, bytes, Mapping)):
        raise TypeError(f"{argument} must be {of}, got {shown(value)}")
    try:
        return list(value)
    except (TypeError, ValueError):  # a tensor of shape () among them
        raise TypeError(f"{argument} must be {of}, got {shown(value)}") from None


def mapping(value: Any, argument: str, of: str) -> Mapping[str, Any]:
    """`value`, if it maps names to something."""
    if not isinstance(value, Mapping):
        raise TypeError(f"{argument} must map {of}, got {type(value).__name__}")
    for name in value:
        if not isinstance(name, str):
            raise TypeError(f"{argument} must map {of}, got {shown(name)} as a name")
    return value


def path(value: Any, argument: str) -> Path:
    """`value` as a Path, if it is one, or text that can name a file."""
    if not isinstance(value, (str, os.PathLike)) or isinstance(os.fspath(value), bytes):
        raise TypeError(f"{argument} must be a path, got {shown(value)}")
    text = os.fspath(value)
    try:
        representable = b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        representable = False
    if not representable:
        raise ValueError(f"{argument} must be a path, got {ascii(text)[:100]}, which no file can be called")
    return Path(text)
