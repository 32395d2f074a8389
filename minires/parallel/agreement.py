"""What the ranks have to be of one mind about: errors, and the numbers that they compute with."""

from __future__ import annotations

import hashlib
import pickle
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import numpy as np

from minires.arrays import Array, on_cpu
from minires.parallel.communicator import Communicator

T = TypeVar("T")
E = TypeVar("E", bound=Exception)


class RanksDisagree(RuntimeError):
    """Ranks that should hold the same numbers do not."""


def together(communicator: Communicator, make: Callable[[], T]) -> T:
    """make() on every rank; where it fails on one, every rank raises the error of the first such rank.

    So all of them end, in order and with one message: `agreed` tells that the error is everybody's.
    """
    value: Any = None
    error: Exception | None = None
    try:
        value = make()
    except Exception as caught:
        if communicator.size == 1:
            raise
        error = caught
    told = communicator.allgather(None if error is None else (communicator.name, _portable(error)))
    failed = [report for report in told if report is not None]
    if failed:
        name, first = failed[0]
        raise _as_everybodys(first, "" if len(failed) == communicator.size else name)
    result: T = value
    return result


def by_first(communicator: Communicator, make: Callable[[], T]) -> T:
    """make() on rank 0 alone; all ranks get its result, or raise its error."""
    made = together(communicator, lambda: make() if communicator.rank == 0 else None)
    result: Any = communicator.allgather(made)[0]
    return result


def as_agreed(error: E, cause: BaseException) -> E:
    """`error`, which says more than its cause, is everybody's if the cause was."""
    vars(error).update({key: value for key, value in vars(cause).items() if key == "rank_of_minires"})
    return error


def agreed(error: BaseException) -> str | None:
    """None for an error of this rank alone; otherwise the name of the rank that it is of, "" for all of them."""
    name: str | None = vars(error).get("rank_of_minires")
    return name


def expect_same(communicator: Communicator, what: str, arrays: Iterable[Array]) -> None:
    """Raises RanksDisagree, on every rank, that names those whose arrays are not bit for bit the others'."""
    if communicator.size == 1:
        return
    told = communicator.allgather((communicator.name, digest(arrays)))
    digests = [found for _, found in told]
    most = Counter(digests).most_common(1)[0][0]  # rank 0's, where as many have others
    others = [name for name, found in told if found != most]
    if others:
        first = next(name for name, found in told if found == most)
        raise _as_everybodys(RanksDisagree(f"{what} of {', '.join(others)} are not those of {first}"), "")


def digest(arrays: Iterable[Array]) -> str:
    """A checksum of shapes, dtypes and bits."""
    found = hashlib.blake2b(digest_size=16)
    for array in arrays:
        host = on_cpu(array)
        found.update(f"{host.dtype}{host.shape}".encode())
        found.update(np.ascontiguousarray(host).data)
    return found.hexdigest()


def _as_everybodys(error: E, name: str) -> E:
    vars(error)["rank_of_minires"] = name
    return error


def _portable(error: Exception) -> Exception:
    """The error itself where pickle can carry it, or else one with its words."""
    try:
        pickle.loads(pickle.dumps(error))
        return error
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
