"""The random generator that initialisation and dropout draw from; each thread has its own.

Processes that share a batch draw what one process would draw for the whole of it, and keep what falls to their images:
the same masks whatever their number, and generators that stand alike on all of them.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from minires._checks import integer
from minires._lazy import directory
from minires.parallel.shard import Shard

__all__ = ["generator", "manual_seed", "sharded", "uniform"]
__dir__ = directory(globals())


class _State(threading.local):
    """What each thread has of its own."""

    shard: Shard | None = None

    def __init__(self) -> None:
        self.generator = np.random.default_rng()


_state = _State()


def manual_seed(seed: int) -> None:
    """Starts this thread's generator anew: the same seed gives the same weights and the same dropout masks."""
    _state.generator = np.random.default_rng(integer(seed, "seed", 0))


def generator() -> np.random.Generator:
    """This thread's generator; its `bit_generator.state` is what a checkpoint keeps."""
    return _state.generator


@contextmanager
def sharded(shard: Shard | None) -> Iterator[None]:
    """Within it this thread has only that part of a batch: `uniform` draws for all of it."""
    outer, _state.shard = _state.shard, shard
    try:
        yield
    finally:
        _state.shard = outer


def uniform(shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Numbers in [0, 1), an image (N, ...) after the other; within `sharded` those of this part's images."""
    shard, drawn = _state.shard, _state.generator
    if shard is None or shard.size == shard.total:
        return drawn.random(shape)
    if shape[:1] != (shard.size,):
        raise ValueError(f"shape must begin with the {shard.size} images of this part of a batch, got {shape}")
    bits, each = drawn.bit_generator, math.prod(shape[1:])
    assert isinstance(bits, np.random.PCG64)
    bits.advance(shard.start * each)  # PCG64 gives one number a step
    own = drawn.random(shape)
    bits.advance((shard.total - shard.stop) * each)
    return own
