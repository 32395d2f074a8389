"""Splits a batch into micro-batches, and each micro-batch into one shard a rank."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from minires.parallel import Communicator, Shard


def micro_batches(N: int, micro_batch: int | None) -> list[Shard]:
    """The fewest micro-batches of at most `micro_batch` images (None: one); their sizes differ by one at most.

    Equal sizes avoid a small remainder with poor batch-norm statistics.
    """
    count = 1 if micro_batch is None else -(-N // micro_batch)
    return [Shard.of(N, part, count) for part in range(count)]


def shards(N: int, micro_batch: int | None, ranks: Communicator) -> Iterator[tuple[Shard, bool]]:
    """This rank's shard of each micro-batch of a batch of N images, and whether the micro-batch is the last."""
    for part in micro_batches(N, micro_batch):
        yield Shard.of(part.size, ranks.rank, ranks.size), part.stop == N


def places(N: int, micro_batch: int | None, ranks: Communicator) -> NDArray[np.intp]:
    """Indices of this rank's images in a batch of N: its shard of the first micro-batch, then of the next, ..."""
    own = zip(micro_batches(N, micro_batch), shards(N, micro_batch, ranks), strict=True)
    return np.concatenate([part.start + np.arange(shard.start, shard.stop) for part, (shard, _) in own])
