"""The interface between the ranks of a run, and its implementation for a single process."""

from __future__ import annotations

from typing import Any, NoReturn, Protocol, TypeVar

from minires._repr import shown
from minires.arrays import Array

T = TypeVar("T")


class Request(Protocol):
    """A running all-reduce."""

    def poll(self) -> None:
        """Makes progress, for libraries that only work during calls."""

    def wait(self) -> None:
        """Returns when the array holds the sum."""


class Communicator(Protocol):
    """The ranks 0, ..., size − 1: processes that run the same program on different parts of the data.

    Every rank calls the same methods in the same order, with contiguous arrays of the same shape and dtype.  All ranks
    get the same bits.

    name         of this rank, for messages: "rank 1 (host, process 4711)"
    local_rank   index among the ranks of the same machine
    local_size   number of ranks on the same machine
    """

    rank: int
    size: int
    name: str
    local_rank: int
    local_size: int

    def allreduce(self, array: Array) -> None:
        """Replaces the array by the sum of all ranks' arrays."""

    def iallreduce(self, array: Array) -> Request:
        """Starts an all-reduce; leave the array alone until `wait()`."""

    def broadcast(self, array: Array) -> None:
        """Replaces the array by rank 0's."""

    def allgather(self, value: T) -> list[T]:
        """Every rank's value, in the order of the ranks; pickle must support the values."""

    def abort(self, code: int) -> NoReturn:
        """Ends all ranks at once, with exit code `code`; print the message before."""


class Alone:
    """The communicator of a single process."""

    rank, size, local_rank, local_size = 0, 1, 0, 1
    name = "the only process"

    def allreduce(self, array: Array) -> None: ...

    def iallreduce(self, array: Array) -> Request:
        return Done()

    def broadcast(self, array: Array) -> None: ...

    def allgather(self, value: T) -> list[T]:
        return [value]

    def abort(self, code: int) -> NoReturn:
        raise SystemExit(code)


def as_communicator(value: Any, argument: str) -> Communicator:
    """Checks that `value` is a communicator; `Alone` for None."""
    if value is None:
        return Alone()
    if isinstance(value, type) or not hasattr(value, "iallreduce"):
        raise TypeError(f"{argument} must be a communicator of minires.parallel or None, got {shown(value)}")
    communicator: Communicator = value
    return communicator


class Done:
    """The request of a complete all-reduce."""

    def poll(self) -> None: ...

    def wait(self) -> None: ...
