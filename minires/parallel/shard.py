"""One process's images of a batch, and the random numbers of these images.

Every process draws the random numbers of the whole batch and keeps the ones of its own images.  So dropout masks don't
depend on the number of processes, and all generators stay in the same state.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from minires import random


@dataclass(frozen=True)
class Shard:
    """The images start, ..., stop − 1 of `total`."""

    start: int
    stop: int
    total: int

    @classmethod
    def of(cls, total: int, rank: int, size: int) -> Shard:
        """The shard of one of `size` ranks; shards are in order, and their sizes differ by one at most."""
        return cls(total * rank // size, total * (rank + 1) // size, total)

    @property
    def size(self) -> int:
        return self.stop - self.start

    def drawing(self) -> AbstractContextManager[None]:
        """A context in which `random.uniform` returns this shard's part of the numbers of the whole batch."""
        return random.drawing(self._draw)

    def _draw(self, generator: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float64]:
        if self.size == self.total:
            return generator.random(shape)
        if shape[:1] != (self.size,):
            raise ValueError(f"shape must begin with the {self.size} images of this part of a batch, got {shape}")
        bits, each = generator.bit_generator, math.prod(shape[1:])
        assert isinstance(bits, np.random.PCG64)
        bits.advance(self.start * each)  # PCG64 makes one number a step
        own = generator.random(shape)
        bits.advance((self.total - self.stop) * each)
        return own
