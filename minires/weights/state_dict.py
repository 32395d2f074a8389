"""Where the state dict is in what a PyTorch file holds."""

from __future__ import annotations

from typing import Any

from minires.weights.file import WeightsError, quoted
from minires.weights.torch_objects import Tensor

KEYS = ("state_dict", "model_state_dict", "state_dict_ema", "model", "net", "module", "weights", "params")


def find(loaded: Any) -> tuple[dict[str, Tensor], str]:
    """The tensors by name, and the key of the checkpoint under which they stood ("" where there is no checkpoint).

    Raises WeightsError where there is no state dict or more than one.
    """
    if type(loaded) is Tensor:
        raise WeightsError("holds a single tensor, not a state dict")
    if type(loaded) is not dict:
        raise WeightsError(f"holds a {type(loaded).__name__}, not a state dict")
    usual = [key for key in KEYS if _holds_tensors(loaded.get(key))]
    if len(usual) > 1:
        raise WeightsError(f"holds several state dicts, under {_listed(usual)}: save the one that is meant alone")
    if usual:
        return _named(loaded[usual[0]]), usual[0]
    if not any(type(value) is Tensor for value in loaded.values()):
        entries = {id(value): value for value in loaded.values()}  # the same one may stand under very many keys
        holding = {number for number, value in entries.items() if _holds_tensors(value)}
        others = [key for key, value in loaded.items() if id(value) in holding]
        if others:
            raise WeightsError(f"holds tensors under {_listed(others)}, none of which is one of {', '.join(KEYS)}")
        held = f"; its keys are {_listed(list(loaded))}" if loaded else ": it is an empty dictionary"
        raise WeightsError(f"holds no state dict{held}")
    return _named(loaded), ""


def _holds_tensors(value: object) -> bool:
    return type(value) is dict and any(type(entry) is Tensor for entry in value.values())


def _named(entries: dict[Any, Any]) -> dict[str, Tensor]:
    for name, entry in entries.items():
        if type(name) is not str:
            raise WeightsError(f"holds no state dict: {name} is the name of a tensor")
        if type(entry) is not Tensor:
            raise WeightsError(f"holds no state dict: entry {quoted(name)} is no tensor, but {type(entry).__name__}")
    return entries


def _listed(keys: list[Any]) -> str:
    shown = ", ".join(quoted(key) for key in keys[:6])
    return shown + (f" and {len(keys) - 6} more" if len(keys) > 6 else "")
