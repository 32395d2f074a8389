"""Initialisation (He et al., arXiv:1502.01852, the paper's reference [13])."""

from __future__ import annotations

import math

import numpy as np

from minires import random
from minires.arrays import Array


def he_normal(shape: tuple[int, ...]) -> Array:
    """Weights (out, in, ...) from a normal distribution with variance 2 / fan_out, float32.

    fan_out = out · (kernel size) is the number of products that a unit's gradient is summed from: the variance of the
    gradients then stays the same from layer to layer under ReLU (equation 14 there).
    """
    fan_out = shape[0] * math.prod(shape[2:])
    return (random.generator().standard_normal(shape) * math.sqrt(2 / fan_out)).astype(np.float32)


def uniform(shape: tuple[int, ...], bound: float) -> Array:
    """Values drawn evenly from [−bound, bound], float32."""
    return random.generator().uniform(-bound, bound, shape).astype(np.float32)
