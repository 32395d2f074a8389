"""The one random generator that initialisation and dropout draw from."""

from __future__ import annotations

import numpy as np

from minires._checks import integer

_generator = np.random.default_rng()


def manual_seed(seed: int) -> None:
    """Starts the generator anew: the same seed gives the same weights and the same dropout masks.

    All threads draw from this one generator: each mask is drawn whole, but which thread draws first is not fixed.
    Dropout in several threads at once is therefore not reproducible.
    """
    global _generator
    _generator = np.random.default_rng(integer(seed, "seed", 0))


def generator() -> np.random.Generator:
    """The generator; its `bit_generator.state` is what a checkpoint keeps."""
    return _generator
