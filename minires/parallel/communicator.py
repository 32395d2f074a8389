"""What a process asks of the others that train with it, and the answer where there are none."""

from __future__ import annotations

from typing import Any, NoReturn, Protocol, TypeVar

from minires._repr import shown
from minires.arrays import Array

T = TypeVar("T")


class Request(Protocol):
    """A sum that is under way."""

    def poll(self) -> None:
        """Lets it go on, for libraries that only work while they are called."""

    def wait(self) -> None:
        """Returns when the array that it was started with holds the sum."""


class Communicator(Protocol):
    """A number of processes, the ranks 0, ..., size − 1, that run the same program on different parts of the data.

    Every rank calls the same methods in the same order, with arrays of the same shape and dtype; the arrays are
    contiguous.  All ranks get the same bits.

    name         who this is, for messages: "rank 1 (host, process 4711)"
    local_rank   place among the ranks of the same machine
    local_size   how many those are
    """

    rank: int
    size: int
    name: str
    local_rank: int
    local_size: int

    def allreduce(self, array: Array) -> None:
        """Replaces the array by the sum of all ranks' arrays."""

    def iallreduce(self, array: Array) -> Request:
        """Begins to; until the request was waited for, nobody else touches the array."""

    def broadcast(self, array: Array) -> None:
        """Replaces the array by rank 0's."""

    def allgather(self, value: T) -> list[T]:
        """Every rank's value, in the order of the ranks; anything that pickle can carry."""

    def abort(self, code: int) -> NoReturn:
        """Ends all ranks at once, this one's message having been printed; the job's exit code is `code`."""


class Alone:
    """The communicator of a process that has no others."""

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
    """`value`, if it is a communicator; `Alone` for None."""
    if value is None:
        return Alone()
    if isinstance(value, type) or not hasattr(value, "iallreduce"):
        raise TypeError(f"{argument} must be one of minires.parallel or None, got {shown(value)}")
    communicator: Communicator = value
    return communicator


class Done:
    """The request of a sum that is complete."""

    def poll(self) -> None: ...

    def wait(self) -> None: ...
