"""Simulates several ranks in one thread, one after the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from minires.arrays import Array
from minires.parallel import Alone, Communicator

T = TypeVar("T")


class _Waiting(Exception):
    """The rank needs a sum to which other ranks have not contributed yet."""


class _Rank(Alone):
    """A rank in one turn: all-reduces return the known sums.

    The first unknown sum ends the turn by raising _Waiting; `part` then holds this rank's contribution to it.
    """

    def __init__(self, rank: int, size: int, sums: list[Array]) -> None:
        self.rank = self.local_rank = rank
        self.size = self.local_size = size
        self.name = f"rank {rank}"
        self.sums = iter(sums)

    def allreduce(self, array: Array) -> None:
        known = next(self.sums, None)
        if known is None:
            self.part = array.copy()
            raise _Waiting
        array[...] = known


def in_turns(size: int, work: Callable[[Communicator], T]) -> list[T]:
    """Runs work(communicator) on `size` ranks; returns their results.  `allreduce` is the only collective allowed.

    Each turn restarts `work` on every rank and computes one more sum, so `work` must be repeatable.
    """
    sums: list[Array] = []
    while True:
        ranks = [_Rank(rank, size, sums) for rank in range(size)]
        results = []
        for rank in ranks:
            try:
                results.append(work(rank))
            except _Waiting:
                continue
        if len(results) == size:
            return results
        if results:
            raise AssertionError(
                f"{len(results)} of {size} ranks ended while the other ranks wait for sum {len(sums) + 1}"
            )
        total = ranks[0].part
        for rank in ranks[1:]:
            total = total + rank.part
        sums.append(total)
