"""Initialisation (He et al., arXiv:1502.01852, the paper's reference [13])."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np

from minires import random
from minires._checks import choice, integer
from minires._repr import shown
from minires.arrays import Array

LARGEST_ARRAY = 2**48  # numbers: more than any machine has bytes

_skipping = ContextVar("skipping", default=False)


@contextmanager
def skipped() -> Iterator[None]:
    """Within it weights are zeros instead of drawn: for networks that are filled right away.

    A large network is then there at once: the system gives out zeros without touching memory before it is written.
    """
    token = _skipping.set(True)
    try:
        yield
    finally:
        _skipping.reset(token)


def he_normal(shape: tuple[int, ...], fan: str = "out") -> Array:
    """Weights (out, in, ...) from a normal distribution with variance 2 / fan, float32.

    fan   "out": out · (kernel size), the number of products that a unit's gradient is summed from: the variance of the
          gradients then stays the same from layer to layer under ReLU (equation 14 there); "in": in · (kernel size),
          those that its output is summed from: the same for the responses (equation 10).  For a convolution of the
          paper the two seldom differ; for a classifier with few classes only "in" keeps the logits in proportion.
    """
    if not isinstance(shape, tuple) or len(shape) < 2:
        raise TypeError(f"shape must be a tuple (out, in, ...), got {shown(shape)}")
    shape = tuple(integer(n, "shape", 1) for n in shape)
    if math.prod(shape) > LARGEST_ARRAY:
        raise MemoryError(f"weights of shape {shape} are too large for any memory")
    choice(fan, "fan", ("out", "in"))
    if _skipping.get():
        return np.zeros(shape, np.float32)
    units = shape[0] if fan == "out" else shape[1]
    deviation = math.sqrt(2 / (units * math.prod(shape[2:])))
    return (random.generator().standard_normal(shape) * deviation).astype(np.float32)
