"""Loads weight files into networks, saves networks, and converts weight files: `load`, `save` and `convert`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import numpy as np
import safetensors.numpy

from minires import _checks, models
from minires._atomic import write_bytes
from minires._checks import choice, flag, mapping
from minires._repr import shown
from minires.arrays import Array, is_array, on_cpu
from minires.nn import Module, init
from minires.weights import hints
from minires.weights.reading import read_any
from minires.weights.recognition import STRIDE_IN, Match, WeightsMismatch, recognise
from minires.weights.weight_file import WeightFile, WeightsError

DTYPES = ("float64", "float32", "float16")  # data types that `save` writes


class Loaded(NamedTuple):
    """A network in evaluation mode, and the `Match` of its file: `model, match = load(path)`."""

    model: Module
    match: Match

    def __repr__(self) -> str:
        parameters = list(self.model.parameters())
        size, kinds = sum(p.size for p in parameters), " and ".join(sorted({str(p.dtype) for p in parameters}))
        model = f"{type(self.model).__name__} of {size:,} parameters, {kinds}"
        return f"Loaded(\n  model: {model}\n  match: {self.match!r}\n)"


def load(
    path: str | os.PathLike[str],
    *,
    network: str | None = None,
    stride_in: str | None = None,
    zero_channels: str | None = None,
    strict: bool = True,
    dtype: str = "float32",
    check_values: bool = True,
) -> Loaded:
    """Loads the network of a weight file, a run folder or a checkpoint; returns it with the file's `Match`.

    The network is in evaluation mode.

    network, stride_in, zero_channels   as for `recognise`
    strict         False: missing parameters stay as initialised and arrays left over are ignored; shapes must agree
    dtype          float32 or float64, to which the arrays are converted
    check_values   False: allows infinities, NaN and negative variances

    Raises FileNotFoundError and WeightsError as `read` does, and WeightsError for impossible numbers.  Raises
    WeightsMismatch for a file that does not fit, or if an undecided option must be passed as an argument.
    """
    choice(dtype, "dtype", ("float32", "float64"))
    flag(strict, "strict")
    flag(check_values, "check_values")
    file = read_any(path)
    match = recognise(file, network=network, stride_in=stride_in, zero_channels=zero_channels)
    state = _checked_state(file, match, strict, check_values)
    with nullcontext() if match.missing else init.skipped():
        model = models.create(match.network, **match.options)
    model.astype(dtype)
    try:
        model.load_state_dict(state, strict=strict)
    except ValueError as error:  # numbers beyond float32
        raise WeightsError(f"{file.path}: {' '.join(str(error).split())}") from None
    return Loaded(model.eval(), match)


def _checked_state(file: WeightFile, match: Match, strict: bool = True, check_values: bool = True) -> dict[str, Array]:
    """The network's state dict in the file.

    Raises WeightsMismatch if the file does not fit or the stride is undecided, and WeightsError for impossible numbers.
    """
    if match.different or (strict and not match.complete):
        raise WeightsMismatch(f"{file.path} does not fit {match.network}: {match.differences()}")
    if "stride_in" in match.undecided:
        raise WeightsMismatch(f"{file.path} holds a {match.network}, but {STRIDE_IN}")
    state = match.state_dict(file)
    if check_values and (wrong := impossible(state)):
        more = f", and {len(wrong) - 1} more arrays" if len(wrong) > 1 else ""
        raise WeightsError(f"{file.path} is broken: {wrong[0]}{more}")
    return state


def impossible(arrays: Mapping[str, Array]) -> list[str]:
    """A line for each array with numbers that no trained network has: infinities, NaN, negative running variances."""
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
    """Writes a network's weights and running statistics as safetensors, with metadata that describe the network.

    model           a Module or its state dict
    network, options   as for `models.create`; options that are not given have their defaults
    preprocessing   resize, crop, mean, std, interpolation, grey: the known ones
    classes         names of the classes
    dtype           float64, float32 or float16; None: the dtype of each array
    assumed         "network" and names of options that are assumptions; the metadata mark them

    Writes the file completely or not at all, and replaces an existing file.  The file lacks PyTorch's batch counters
    (num_batches_tracked); PyTorch loads it with strict=True.
    Raises ValueError or TypeError if the state does not fit the network or the dtype, and OSError.
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
    wanted = models.shapes(network, **mapping(options, "options", "names to values"))
    wrong = [name for name in {**wanted, **state} if name not in state or state[name].shape != wanted.get(name)]
    if wrong:
        raise ValueError(f"model does not fit {network} with these options: {', '.join(wrong[:3])}")
    for name in (assumed := _checks.iterable(assumed, "assumed", "names of options")):
        if name not in ("network", *options):
            raise ValueError(f'assumed must be "network" or one of the options, got {shown(name)}')
    metadata = hints.encode(network, options, preprocessing, classes, assumed)
    arrays = {name: _converted(name, array, dtype) for name, array in state.items()}
    write_bytes(target, safetensors.numpy.save(arrays, metadata))


def _converted(name: str, array: Any, dtype: str | None) -> Array:
    """The array in `dtype`, contiguous and in the CPU's memory."""
    array = on_cpu(array)
    if dtype is None and str(array.dtype) not in DTYPES:
        raise TypeError(f"model: {name} is {array.dtype}, not one of {', '.join(DTYPES)}")
    with np.errstate(over="ignore"):  # overflows are reported below, with the array's name
        converted = np.ascontiguousarray(array, dtype)
    if np.count_nonzero(np.isfinite(converted)) < np.count_nonzero(np.isfinite(array)):
        raise ValueError(f"{name} holds numbers beyond {dtype}")
    return converted


def convert(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    network: str | None = None,
    stride_in: str | None = None,
    zero_channels: str | None = None,
    dtype: str | None = None,
) -> Match:
    """Reads `source`, writes bit-identical numbers to `target` in torchvision's names, and returns the file's `Match`.

    source   a weight file, a run folder or a checkpoint
    network, stride_in, zero_channels   as for `recognise`.  The metadata of `target` specify the whole network, and
                                        mark assumed options (`Match.undecided`)
    dtype    float64, float32 or float16; None: as stored, but bfloat16 and float8 as float32, which holds them exactly

    Raises the errors of `load` and `save`; then `target` is not written.
    """
    source, target = _checks.path(source, "source"), _checks.path(target, "target")
    file = read_any(source)
    match = recognise(file, network=network, stride_in=stride_in, zero_channels=zero_channels)
    state = _checked_state(file, match)
    if dtype is None:
        for name, array in state.items():
            stored = file.stored[match.names[name]]
            state[name] = array.astype(stored) if stored in DTYPES else array
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
