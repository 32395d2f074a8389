"""Odd values: words, numbers and objects of every kind, and arrays of every dtype, shape, content and memory."""

from __future__ import annotations

import ctypes
import datetime
import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st

import minires as mr


def _endless() -> list[Any]:
    """A list that holds itself."""
    value: list[Any] = []
    value.append(value)
    return value


def _deep(depth: int) -> list[Any]:
    value: list[Any] = [1.0]
    for _ in range(depth):
        value = [value]
    return value


class Nothing:
    """An object of no use, whose own `__repr__` fails."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")


NUMBERS: tuple[Any, ...] = (
    *(0, 1, -1, 2, 3, -2, 7, 255, 2**31 - 1, 2**31, -(2**31), 2**32, 2**63 - 1, 2**63, 10**30, 10**400, -(10**400)),
    *(0.0, -0.0, 0.5, 1.0, 2.5, -1.5, 1e-300, 1e300, -1e300, math.nan, math.inf, -math.inf, 1j, Fraction(1, 3)),
    *(True, False, np.True_, np.int8(-3), np.uint64(2**63), np.float16(0.5), np.float32(math.nan), np.complex64(1j)),
    *(np.timedelta64(1, "s"), np.datetime64("2015-12-10"), np.str_("x"), np.bytes_(b"x")),
)
WORDS: tuple[Any, ...] = (
    *(
        "",
        " ",
        "a",
        "0",
        "1",
        "-1",
        "nan",
        "None",
        "mean",
        "same",
        "auto",
        "cuda",
        "cpu",
        "float16",
        "complex64",
        ">f4",
    ),
    *("résumé ☃", "\x00", "\n", "a\nb", "../..", "/", "/dev/null/x", ".", "{}", "%s", "-" * 5000, "\ud800", "x" * 300),
    *(b"", b"bytes", b"\xff\xfe", bytearray(b"x"), Path("nowhere"), Path(), Path("/dev/null")),
)
OBJECTS: tuple[Callable[[], Any], ...] = (
    *(lambda: None, list, lambda: (), dict, lambda: set(), lambda: (1,), lambda: (1, 2), lambda: (1, 2, 3)),
    *(
        lambda: (2, 2.5),
        lambda: (None, None),
        lambda: ("a", 1),
        lambda: (-1, 0),
        lambda: (0, 10**30),
        lambda: [[1], [2, 3]],
    ),
    *(lambda: [1.0, 2.0, 3.0], lambda: [[0.0] * 3] * 2, lambda: ["a", None], lambda: [None, object()], _endless),
    *(
        lambda: _deep(3),
        lambda: _deep(200),
        lambda: {"a": 1},
        lambda: {1: 2},
        lambda: {"weight": None},
        lambda: {None: 0},
    ),
    *(
        lambda: range(3),
        lambda: iter([1, 2]),
        lambda: (i for i in range(3)),
        lambda: slice(0, 2),
        lambda: slice("a", None),
    ),
    *(
        lambda: ...,
        lambda: NotImplemented,
        object,
        Nothing,
        lambda: Nothing,
        lambda: int,
        lambda: len,
        lambda: lambda *a: 1,
    ),
    *(lambda: datetime.date(2015, 12, 10), lambda: memoryview(b"abcd"), lambda: np.random.default_rng(0), lambda: np),
    *(lambda: np.dtype("float32"), lambda: np.float64, lambda: ValueError("x"), lambda: ctypes.c_float(1.0)),
    *(lambda: mr.tensor(2.0), lambda: mr.tensor([1, 2]), lambda: mr.tensor(np.ones(3, bool)), lambda: mr.nn.ReLU()),
    *(lambda: mr.tensor(np.ones((2, 3)), requires_grad=True) * 2, lambda: mr.nn.Linear, lambda: mr.data.Augmentation()),
    *(lambda: mr.models.create, lambda: [mr.tensor(1.0)] * 2, lambda: [mr.nn.ReLU()], lambda: mr.optim.Constant(0.1)),
)

DTYPES = (
    *("float32", "float64", "float16", "longdouble", "int8", "int32", "int64", "uint8", "uint64", "bool", "complex64"),
    *("complex128", "O", "S3", "U3", "M8[s]", "m8[s]", ">f4", ">f8", ">i8", "V4", [("a", "f4"), ("b", "i4")]),
)
# float32 and float64 as often as all others together: what is odd then lies in shape, content or memory.
LIKELY = st.one_of(st.sampled_from(["float32", "float32", "float64"]), st.sampled_from(DTYPES))


def _ordinary(a: np.ndarray) -> np.ndarray:
    return a


def _fortran(a: np.ndarray) -> np.ndarray:
    return np.asfortranarray(a)


def _gaps(a: np.ndarray) -> np.ndarray:
    return np.repeat(a, 2, axis=-1)[..., ::2] if a.ndim else a


def _backwards(a: np.ndarray) -> np.ndarray:
    return a[..., ::-1].copy()[..., ::-1] if a.ndim else a


def _spread_out(a: np.ndarray) -> np.ndarray:
    """Every number is the first one: all strides are 0."""
    return np.broadcast_to(a.ravel()[:1].reshape(()), a.shape) if a.size else a


def _constant(a: np.ndarray) -> np.ndarray:
    a.flags.writeable = False
    return a


def _misaligned(a: np.ndarray) -> np.ndarray:
    if a.dtype.hasobject or a.nbytes == 0:
        return a
    return np.frombuffer(bytearray(b"\0" + a.tobytes()), np.uint8)[1:].view(a.dtype).reshape(a.shape)


def _foreign(a: np.ndarray) -> np.ndarray:
    """Over the memory of another library."""
    if a.dtype.hasobject or a.nbytes == 0:
        return a
    memory = (ctypes.c_char * a.nbytes).from_buffer_copy(a.tobytes())
    return np.frombuffer(memory, a.dtype).reshape(a.shape)


def _masked(a: np.ndarray) -> np.ndarray:
    return np.ma.masked_array(a, np.arange(a.size).reshape(a.shape) % 2 == 0) if a.dtype.names is None else a


def _matrix(a: np.ndarray) -> np.ndarray:
    return a.view(np.matrix) if a.ndim == 2 else a


def _recorded(a: np.ndarray) -> np.ndarray:
    return a.view(np.recarray)


MEMORIES: tuple[Callable[[np.ndarray], np.ndarray], ...] = (
    *(
        _ordinary,
        _fortran,
        _gaps,
        _backwards,
        _spread_out,
        _constant,
        _misaligned,
        _foreign,
        _masked,
        _matrix,
        _recorded,
    ),
)
CONTENTS = ("normal", "normal", "normal", "ones", "zeros", "negative", "nan", "inf", "one nan", "huge", "tiny", "mixed")


def filled(shape: tuple[int, ...], dtype: Any, content: str) -> np.ndarray:
    size = math.prod(shape)
    numbers = {
        "normal": np.random.default_rng(size).standard_normal(size),
        "ones": np.ones(size),
        "zeros": np.zeros(size),
        "negative": -np.arange(1.0, size + 1),
        "nan": np.full(size, np.nan),
        "inf": np.full(size, np.inf),
        "one nan": np.where(np.arange(size) == size // 2, np.nan, 1.0),
        "huge": np.full(size, 3e38) * np.where(np.arange(size) % 2, 1, -1),
        "tiny": np.full(size, 1e-42),
        "mixed": np.resize([np.inf, -np.inf, 0.0, np.nan, 1.0], size),
    }[content].reshape(shape)
    dtype = np.dtype(dtype)
    with np.errstate(all="ignore"):
        if dtype.kind in "iuMm":
            return np.nan_to_num(numbers, posinf=100, neginf=-100).clip(-100, 100).astype("int64").astype(dtype)
        if dtype.kind in "fcb":
            return numbers.astype(dtype)
        if dtype.kind in "SUO":
            return numbers.astype("float32").astype(dtype)
    return np.zeros(shape, dtype)


def shapes_near(shape: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """The shape itself, and what is almost it."""
    yield shape
    yield shape[1:]
    yield (1, *shape)
    yield (*shape, 2)
    yield shape[::-1]
    for axis, size in enumerate(shape):
        for other in (0, 1, size - 1, size + 1):
            yield (*shape[:axis], other, *shape[axis + 1 :])


@st.composite
def arrays(draw: st.DrawFn, shape: tuple[int, ...]) -> Any:
    chosen = draw(st.sampled_from([shape] * 4 + list(shapes_near(shape)) + [(), (0,), (3,), (1,) * 12]))
    array = np.array(filled(chosen, draw(LIKELY), draw(st.sampled_from(CONTENTS))))
    array = draw(st.sampled_from(MEMORIES))(array)
    how = draw(st.sampled_from(["array", "array", "tensor", "leaf", "list"]))
    try:
        return {"array": lambda: array, "list": array.tolist}.get(how, lambda: mr.tensor(array, how == "leaf"))()
    except (TypeError, ValueError):  # no tensor holds this
        return array


def odd(good: Any) -> st.SearchStrategy[Any]:
    """Values in the place of a good one."""
    junk = st.one_of(
        st.sampled_from(NUMBERS), st.sampled_from(WORDS), st.sampled_from(OBJECTS).map(lambda make: make())
    )
    if isinstance(good, (np.ndarray, mr.Tensor)):
        return st.one_of(arrays(tuple(good.shape)), arrays(tuple(good.shape)), junk)
    # like the good one, and wrong in a place
    near: list[Any] = []
    if isinstance(good, (tuple, list)) and good:
        near = [
            good[:-1],
            (*good, good[-1]),
            (None, *good[1:]),
            ("a", *good[1:]),
            (*good[:-1], -1),
            [*good[:-1], math.nan],
        ]
        near += [tuple([value] * len(good)) for value in (0, -1, 2.5, True, 10**30, object())]
    elif isinstance(good, dict) and good:
        first = next(iter(good))
        near = [{}, good | {"unknown": 1}, good | {1: 2}, dict.fromkeys(good)]
        near += [good | {first: value} for value in (None, "a", math.nan, -1, np.ones(1), [1])]
    elif isinstance(good, str):
        near = [good.upper(), good + " ", good[:-1], [good], good.encode()]
    more = [st.sampled_from(near)] if near else []
    return st.one_of(junk, arrays((2, 3)), *more, *more)
