"""Which images of a batch fall to which process."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Shard:
    """The images start, ..., stop − 1 of `total`."""

    start: int
    stop: int
    total: int

    @classmethod
    def of(cls, total: int, rank: int, size: int) -> Shard:
        """The part of one of `size` ranks: in order, and their sizes one apart at most."""
        return cls(total * rank // size, total * (rank + 1) // size, total)

    @property
    def size(self) -> int:
        return self.stop - self.start
