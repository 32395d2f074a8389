"""Calls of a solution: what it returned, raised and changed."""

from __future__ import annotations

import contextlib
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from minires.exercises.layer import Layer
from minires.exercises.task import Array

LINES = 8  # of a traceback
LARGEST = 1 << 22  # elements of an output: a larger output is not kept
POISON = 0x7FFDEAD000000000  # the bits of a NaN that no computation makes; its conversion to float32 keeps them
POISON_NAN = np.array(POISON, np.uint64).view(np.float64)

_lock = threading.Lock()
_contexts = 0  # open `poisoned` contexts, in all threads
_unpatched: dict[str, Callable[..., Any]] = {}  # NumPy's own functions, while a context is open


@dataclass
class Call:
    """What one call of a solution did.

    outputs   one entry per output: an array (float64 or float32), or a complaint; empty if nothing was returned
    raised    the traceback, cut to the solution's own lines; empty if the call returned
    kind      class name of what was raised
    changed   names of the arguments that the call changed; a layer changes with its arrays
    """

    outputs: list[Any] = field(default_factory=list)
    raised: str = ""
    kind: str = ""
    changed: list[str] = field(default_factory=list)


def called(
    function: Callable[..., Any], arguments: Sequence[Any], parameters: Sequence[str], outputs: Sequence[str]
) -> Call:
    """Calls a solution once.  Everything that it raises becomes part of the result, KeyboardInterrupt excepted."""
    before = [[array.copy() for array in _arrays(a)] for a in arguments]
    try:
        with poisoned(), warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            result = function(*arguments)
            found = checked(result, outputs)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return Call(raised=own_lines(error, function), kind=type(error).__name__)
    pairs = zip(parameters, arguments, before, strict=False)
    changed = [name for name, now, old in pairs if not all(map(_equal, _arrays(now), old))]
    return Call(found, changed=changed)


def _arrays(argument: Any) -> tuple[Any, ...]:
    """The arrays of an argument that a call could change."""
    if isinstance(argument, Layer):
        return argument.arrays
    return (argument,) if isinstance(argument, np.ndarray) else ()


def _equal(a: Any, b: Any) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and bool(np.array_equal(a, b, equal_nan=True))


@contextlib.contextmanager
def poisoned() -> Iterator[None]:
    """A context in which numpy.empty and numpy.empty_like fill floating arrays with a NaN of its own bits.

    An element that a solution forgets to write is then wrong in every run, and differs from a computed NaN.  Contexts
    may nest, and may overlap in several threads: the last one to close restores both functions.
    """
    global _contexts
    with _lock:
        _contexts += 1
        if _contexts == 1:
            for name in ("empty", "empty_like"):
                _unpatched[name] = getattr(np, name)
                setattr(np, name, _filling(_unpatched[name]))
    try:
        yield
    finally:
        with _lock:
            _contexts -= 1
            if not _contexts:
                for name, function in _unpatched.items():
                    setattr(np, name, function)


def _filling(function: Callable[..., Any]) -> Callable[..., Any]:
    def filled(*arguments: Any, **options: Any) -> Any:
        array = function(*arguments, **options)
        if array.dtype.kind in "fc":
            array[...] = POISON_NAN
        return array

    return filled


def unwritten(array: Array) -> Array:
    """Where an array holds the NaN of `poisoned`, as a mask.  Arithmetic keeps the bits, but may set the sign."""
    bits = np.ascontiguousarray(array, np.float64).view(np.uint64)
    return (bits & np.uint64(0x7FFF_FFFF_E000_0000)) == np.uint64(POISON)


def checked(result: Any, names: Sequence[str]) -> list[Any]:
    """One entry per output: a copy as a floating array, or a complaint."""
    if result is None:
        return [f"{name} is missing: the function returned None" for name in names]
    if len(names) == 1:
        return [as_array(result[0] if isinstance(result, tuple) and len(result) == 1 else result, names[0])]
    listed = ", ".join(names)
    if not isinstance(result, tuple | list) or len(result) != len(names):
        came = f"{len(result)} values" if isinstance(result, tuple | list) else f"one {type(result).__name__}"
        return [f"the function returned {came}; it must return ({listed})"] * len(names)
    return [as_array(value, name) for value, name in zip(result, names, strict=True)]


def as_array(value: Any, name: str) -> Any:
    if value is None:
        return f"{name} is None"
    try:
        array = np.asarray(value)
    except Exception as error:  # nested lists of different lengths, or a foreign array
        return f"{name} is no array: {type(error).__name__}"
    if array.dtype.kind == "c":
        return f"{name} is complex ({array.dtype}); it must be float64"
    if array.dtype.kind not in "fiub":
        return f"{name} is no array of numbers, but a {type(value).__name__}"
    if array.size > LARGEST:
        return f"{name} has {array.size:,} elements"
    return array.astype(np.float32 if array.dtype == np.float32 else np.float64)  # a copy


def own_lines(error: BaseException, function: Any = None, file: str = "") -> str:
    """The traceback of an error, cut to the lines of the solution's file."""
    file = file or getattr(getattr(function, "__code__", None), "co_filename", "")
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    kept = frames if len(frames) <= LINES else [*frames[:2], *frames[-(LINES - 2) :]]
    lines = [f"{Path(f.filename).name}, line {f.lineno}, in {f.name}\n    {f.line or ''}".rstrip() for f in kept]
    if isinstance(error, SyntaxError) and error.filename == file:
        lines.append(f"{Path(file).name}, line {error.lineno}\n    {(error.text or '').strip()}".rstrip())
        return "\n".join([*lines, f"{type(error).__name__}: {error.msg}"])
    text = str(error)
    return "\n".join([*lines, f"{type(error).__name__}: {text[:500]}" if text else type(error).__name__])
