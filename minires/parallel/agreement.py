"""Agreement between ranks: all raise an error together, and all compute with the same numbers."""

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
    """The ranks have different numbers in place of equal ones."""


def together(communicator: Communicator, make: Callable[[], T]) -> T:
    """make() on every rank.  An error on any rank is raised on all ranks, from the first rank with an error.

    So all ranks end with one message; `agreed` recognises such an error.
    """
    value: Any = None
    error: Exception | None = None
    try:
        value = make()
    except Exception as caught:
        if communicator.size == 1:
            raise
        error = caught
    errors = communicator.allgather(None if error is None else (communicator.name, _portable(error)))
    failed = [found for found in errors if found is not None]
    if failed:
        name, first = failed[0]
        raise _marked(first, "" if len(failed) == communicator.size else name)
    result: T = value
    return result


def by_first(communicator: Communicator, make: Callable[[], T]) -> T:
    """make() on rank 0 alone; all ranks return its result, or raise its error."""
    made = together(communicator, lambda: make() if communicator.rank == 0 else None)
    result: Any = communicator.allgather(made)[0]
    return result


def as_agreed(error: E, cause: BaseException) -> E:
    """`error`, a more detailed form of `cause`, marked as agreed if `cause` is."""
    name = agreed(cause)
    return error if name is None else _marked(error, name)


def agreed(error: BaseException) -> str | None:
    """None for an error of this rank alone; otherwise the name of the rank with the error, "" for all ranks."""
    name: str | None = vars(error).get("rank_of_minires")
    return name


def expect_same(communicator: Communicator, what: str, arrays: Iterable[Array]) -> None:
    """Raises RanksDisagree, on every rank, that names the ranks whose arrays differ in any bit from the majority's."""
    if communicator.size == 1:
        return
    found = communicator.allgather((communicator.name, digest(arrays)))
    majority = Counter(checksum for _, checksum in found).most_common(1)[0][0]  # of equal counts rank 0's
    others = [name for name, checksum in found if checksum != majority]
    if others:
        first = next(name for name, checksum in found if checksum == majority)
        raise _marked(RanksDisagree(f"{what} of {', '.join(others)} are not those of {first}"), "")


def digest(arrays: Iterable[Array]) -> str:
    """A checksum of shapes, dtypes and bits."""
    checksum = hashlib.blake2b(digest_size=16)
    for array in arrays:
        host = on_cpu(array)
        checksum.update(f"{host.dtype}{host.shape}".encode())
        checksum.update(np.ascontiguousarray(host).data)
    return checksum.hexdigest()


def _marked(error: E, name: str) -> E:
    vars(error)["rank_of_minires"] = name
    return error


def _portable(error: Exception) -> Exception:
    """The error itself if pickle supports it, otherwise a RuntimeError with its message."""
    try:
        pickle.loads(pickle.dumps(error))
        return error
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
