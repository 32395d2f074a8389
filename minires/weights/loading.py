"""`load`: a weight file becomes a network."""

from __future__ import annotations

import os
from typing import NamedTuple

from minires import _checks, models
from minires._checks import choice, flag
from minires.arrays import Array
from minires.nn import Module, init
from minires.training.checkpoint import is_checkpoint
from minires.weights.checkpoints import read_checkpoint
from minires.weights.file import WeightFile, WeightsError
from minires.weights.match import STRIDE_IN, Match, WeightsMismatch
from minires.weights.reading import read
from minires.weights.recognise import recognise
from minires.weights.values import impossible


def read_any(path: str | os.PathLike[str]) -> WeightFile:
    """A weight file, or a run folder or checkpoint of minires.  Raises what `read` raises."""
    path = _checks.path(path, "path")
    return read_checkpoint(path) if is_checkpoint(path) else read(path)


class Loaded(NamedTuple):
    """A network in evaluation mode, and what its file was recognised as: `model, match = load(path)`."""

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
    """The network of a weight file, a run folder or a checkpoint, in evaluation mode, and what it was recognised as.

    network, stride_in, zero_channels   as for `recognise`
    strict         False: what is missing stays as initialised and what is left over is passed over; shapes must agree
    dtype          float32 or float64; what the file holds is converted
    check_values   False: a file with infinities, NaN or negative variances is loaded as it is

    Raises FileNotFoundError and WeightsError as `read` does, WeightsError for impossible numbers, and WeightsMismatch
    for a file that does not fit or that needs a word to decide: nothing is half loaded.
    """
    choice(dtype, "dtype", ("float32", "float64"))
    flag(strict, "strict")
    flag(check_values, "check_values")
    file = read_any(path)
    match = recognise(file, network=network, stride_in=stride_in, zero_channels=zero_channels)
    state = check(file, match, strict, check_values)
    if match.missing:
        model = models.create(match.network, **match.options)
    else:
        with init.skipped():
            model = models.create(match.network, **match.options)
    model.astype(dtype)
    try:
        model.load_state_dict(state, strict=strict)
    except ValueError as error:  # numbers beyond float32
        raise WeightsError(f"{file.path}: {' '.join(str(error).split())}") from None
    return Loaded(model.eval(), match)


def check(file: WeightFile, match: Match, strict: bool = True, check_values: bool = True) -> dict[str, Array]:
    """The state dict of the network in the file, if it fits, if nothing that must be said is undecided, and if its
    numbers can be those of a network.  Raises WeightsMismatch and WeightsError."""
    if match.different or (strict and not match.complete):
        raise WeightsMismatch(f"{file.path} does not fit {match.network}: {match.differences()}")
    if "stride_in" in match.undecided:
        raise WeightsMismatch(f"{file.path} holds a {match.network}, but {STRIDE_IN}")
    state = match.state_dict(file)
    if check_values and (wrong := impossible(state)):
        more = f", and {len(wrong) - 1} more arrays" if len(wrong) > 1 else ""
        raise WeightsError(f"{file.path} is broken: {wrong[0]}{more}")
    return state
