"""Weight files in memory: the networks' own arrays under other programs' names."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from minires import models
from minires.nn import init
from minires.weights import WeightFile
from minires.weights.conventions import CONVENTIONS

BY_NAME = {convention.name: convention for convention in CONVENTIONS}
SMALL = {"num_classes": 7, "in_channels": 2}


def small(name, **options):
    """Options of a narrow network."""
    width = {"width": 4} | ({"hidden": 6} if name.startswith("vgg") else {})
    return SMALL | width | options


def state(name, rng=None, **options):
    """A network's state dict with every number drawn (zeros without a generator)."""
    with init.skipped():
        arrays = models.create(name, **small(name, **options)).state_dict()
    for array in arrays.values():
        array[...] = 0 if rng is None else rng.uniform(0.5, 1.5, array.shape)
    return arrays


def renamed(arrays, convention, prefix=""):
    """The same arrays as the convention names and shapes them."""
    convention = BY_NAME[convention]
    found = {}
    for ours, array in arrays.items():
        if ours in convention.flattened:
            side = 7 if ours == "classifier.0.weight" else 1
            array = array.reshape(len(array), -1, side, side)
        theirs = convention.theirs(ours)
        assert theirs is not None, ours
        found[prefix + theirs] = array
    return found


def file(arrays, path="x.pth", stored=None, metadata=None, format="PyTorch zip"):
    kinds = {name: str(array.dtype) for name, array in arrays.items()} | (stored or {})
    return WeightFile(Path(path), format, dict(arrays), kinds, metadata or {})


def counters(arrays):
    """The arrays with the counters that PyTorch keeps beside each running variance."""
    found = dict(arrays)
    for name in arrays:
        if name.endswith("running_var"):
            found[name.replace("running_var", "num_batches_tracked")] = np.array(3)
    return found
