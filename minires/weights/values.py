"""Numbers that no trained network holds."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from minires._checks import mapping
from minires.arrays import Array, is_array


def impossible(arrays: Mapping[str, Array]) -> list[str]:
    """A line for each array with infinities or NaN, and for each running variance below zero."""
    lines = []
    for name, array in mapping(arrays, "arrays", "names to arrays").items():
        if not is_array(array):
            raise TypeError(f"arrays must hold arrays, got {type(array).__name__} for {name}")
        if array.dtype.kind != "f":
            continue
        wrong = array.size - int(np.count_nonzero(np.isfinite(array)))
        if wrong:
            lines.append(f"{name}: {wrong:,} of {array.size:,} numbers are not finite")
        elif name.endswith("running_var") and array.size and not array.min() >= 0:
            lines.append(f"{name}: {np.count_nonzero(array < 0):,} of {array.size:,} variances are negative")
    return lines
