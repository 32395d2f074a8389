"""`save`: a network becomes a safetensors file in torchvision's names."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import safetensors.numpy

from minires import _checks
from minires._atomic import write_bytes
from minires._checks import choice
from minires._repr import shown
from minires.arrays import Array, is_array, on_cpu
from minires.nn import Module
from minires.weights import metadata, structure

DTYPES = ("float64", "float32", "float16")


def save(
    model: Module | Mapping[str, Array],
    path: str | os.PathLike[str],
    *,
    network: str,
    options: Mapping[str, Any],
    preprocessing: Mapping[str, Any] | None = None,
    classes: Sequence[str] | None = None,
    dtype: str | None = None,
    assumed: Sequence[str] = (),
) -> None:
    """Writes a network's weights and running statistics, and says in the metadata what they are.

    model           a Module or its state dict
    network, options   as for `models.create`; options that are not given have their defaults
    preprocessing   resize, crop, mean, std, interpolation, grey, as far as they are known
    classes         names of the classes
    dtype           float64, float32 or float16; None: each array as it is
    assumed         "network" and names of options that are a guess: the metadata mark them

    The file is there complete or not at all; one that was there is replaced.  The counters of batches that PyTorch
    keeps are not in it: PyTorch loads it without them, with strict=True.
    Raises ValueError or TypeError where the state does not fit the network or the type, and OSError.
    """
    if dtype is not None:
        choice(dtype, "dtype", DTYPES)
    target = _checks.path(path, "path")
    if not isinstance(model, (Module, Mapping)):
        raise TypeError(f"model must be a Module or its state dict, got {type(model).__name__}")
    state = model.state_dict() if isinstance(model, Module) else model
    for name, array in state.items():
        if not isinstance(name, str) or not is_array(array):
            raise TypeError(f"model must map names to arrays, got {type(array).__name__} for {shown(name)}")
    wanted = structure.expected(network, options)
    wrong = [name for name in {**wanted, **state} if name not in state or state[name].shape != wanted.get(name)]
    if wrong:
        raise ValueError(f"model does not fit {network} with these options: {', '.join(wrong[:3])}")
    for name in (assumed := _checks.iterable(assumed, "assumed", "names of options")):
        if name not in ("network", *options):
            raise ValueError(f'assumed must be "network" or one of the options, got {shown(name)}')
    told = metadata.encode(network, options, preprocessing, classes, assumed)
    arrays = {name: _converted(name, array, dtype) for name, array in state.items()}
    write_bytes(target, safetensors.numpy.save(arrays, told))


def _converted(name: str, array: Any, dtype: str | None) -> Array:
    """A contiguous array in the memory of the CPU."""
    array = on_cpu(array)
    if dtype is None and str(array.dtype) not in DTYPES:
        raise TypeError(f"state: {name} is {array.dtype}, not one of {', '.join(DTYPES)}")
    with np.errstate(over="ignore"):  # what overflows is reported with its name
        converted = np.ascontiguousarray(array, dtype)
    if np.count_nonzero(np.isfinite(converted)) < np.count_nonzero(np.isfinite(array)):
        raise ValueError(f"{name} holds numbers beyond {dtype}")
    return converted
