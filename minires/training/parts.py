"""What goes through the network at a time: a batch in parts, and a rank's share of each."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from minires.parallel import Communicator, Shard


def parts(N: int, micro_batch: int | None) -> list[Shard]:
    """The fewest parts of at most micro_batch images (None: one part), their sizes one apart at most.

    So none is a small leftover, of whose statistics batch norm could make little.
    """
    count = 1 if micro_batch is None else -(-N // micro_batch)
    return [Shard.of(N, part, count) for part in range(count)]


def shards(N: int, micro_batch: int | None, ranks: Communicator) -> Iterator[tuple[Shard, bool]]:
    """What a rank has of each part of a batch of N images, and whether it is the last part."""
    for part in parts(N, micro_batch):
        yield Shard.of(part.size, ranks.rank, ranks.size), part.stop == N


def places(N: int, micro_batch: int | None, ranks: Communicator) -> NDArray[np.intp]:
    """Where a rank's images stand in a batch of N: its share of the first part, then of the next, ..."""
    mine = zip(parts(N, micro_batch), shards(N, micro_batch, ranks), strict=True)
    return np.concatenate([part.start + np.arange(shard.start, shard.stop) for part, (shard, _) in mine])
