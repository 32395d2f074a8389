"""The random generator that initialisation and dropout draw from; each thread has its own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from minires._checks import integer
from minires._lazy import directory

__all__ = ["drawing", "generator", "manual_seed", "uniform"]
__dir__ = directory(globals())

Draw = Callable[[np.random.Generator, tuple[int, ...]], NDArray[np.float64]]


class _State(threading.local):
    """What each thread has of its own."""

    def __init__(self) -> None:
        self.generator = np.random.default_rng()
        self.draw: Draw = np.random.Generator.random


_state = _State()


def manual_seed(seed: int) -> None:
    """Starts this thread's generator anew: the same seed gives the same weights and the same dropout masks."""
    _state.generator = np.random.default_rng(integer(seed, "seed", 0))


def generator() -> np.random.Generator:
    """This thread's generator; its `bit_generator.state` is what a checkpoint keeps."""
    return _state.generator


@contextmanager
def drawing(draw: Draw) -> Iterator[None]:
    """Within it `uniform` returns draw(generator, shape): how processes that share a batch draw alike."""
    outer, _state.draw = _state.draw, draw
    try:
        yield
    finally:
        _state.draw = outer


def uniform(shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Numbers in [0, 1), an image (N, ...) after the other."""
    return _state.draw(_state.generator, shape)
