"""`convert`: a weight file of any convention, or a training run, becomes a file in torchvision's names."""

from __future__ import annotations

import os

import numpy as np

from minires import _checks
from minires.arrays import Array
from minires.weights.file import WeightFile
from minires.weights.loading import check, read_any
from minires.weights.match import Match
from minires.weights.recognise import recognise
from minires.weights.saving import DTYPES, save


def convert(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    network: str | None = None,
    stride_in: str | None = None,
    zero_channels: str | None = None,
    dtype: str | None = None,
) -> Match:
    """Reads `source` and writes `target`, bit by bit the same numbers; returns what it was recognised as.

    network, stride_in, zero_channels   as for `recognise`: the metadata will say exactly which network it is,
                                        and mark what was only assumed (`Match.undecided`)
    dtype   float64, float32 or float16; None: as stored, but bfloat16 and float8 as float32, which holds them exactly

    Raises what `load` and `save` raise; then nothing is written.
    """
    source, target = _checks.path(source, "source"), _checks.path(target, "target")
    file = read_any(source)
    match = recognise(file, network=network, stride_in=stride_in, zero_channels=zero_channels)
    state = check(file, match)
    if dtype is None:
        state = {name: _as_stored(file, match.names[name], array) for name, array in state.items()}
    save(
        state,
        target,
        network=match.network,
        options=match.options,
        preprocessing=match.preprocessing,
        classes=match.classes,
        dtype=dtype,
        assumed=match.undecided,
    )
    return match


def _as_stored(file: WeightFile, name: str, array: Array) -> Array:
    stored = file.stored[name]
    return array.astype(np.dtype(stored)) if stored in DTYPES else array
