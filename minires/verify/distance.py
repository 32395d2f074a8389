"""Distances between two arrays."""

from __future__ import annotations

import numpy as np

from minires.arrays import Array


def relative_norm(array: Array, expected: Array, scale: float = 0.0) -> float:
    """‖array − expected‖ / ‖expected‖ in float64; ‖array − expected‖ if `expected` is zero.

    scale   smallest divisor, for sums whose terms cancel
    """
    difference = float(np.linalg.norm((array.astype(np.float64) - expected).ravel()))
    norm = max(float(np.linalg.norm(expected.astype(np.float64).ravel())), scale)
    return difference / norm if norm else difference


def ulps(array: Array, expected: Array) -> float:
    """The largest difference in units in the last place of the root mean square of `expected`."""
    if not expected.size:
        return 0.0
    mean_square = float(np.mean(np.square(expected, dtype=np.float64)))
    unit = float(np.spacing(expected.dtype.type(mean_square**0.5)))
    return float(np.abs(array.astype(np.float64) - expected).max()) / unit
