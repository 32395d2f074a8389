"""Arrays of recorded calls inside the page: the first image's, so that a click can explain a number."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from minires.arrays import Array, on_cpu
from minires.inspect.explaining import Call, batch_norm_means

BUDGET = 6 * 2**20  # bytes of arrays in a page that is saved
NOTEBOOK = 2**18  # in the page of a notebook, whose file holds every output
OPTIONS = ("stride", "padding", "dilation", "groups", "kernel", "count_include_pad", "training", "eps")


class Pool:
    """Each array once, as base64, up to a number of bytes."""

    def __init__(self, budget: int) -> None:
        self.left = budget
        self.arrays: list[dict[str, Any]] = []
        self.numbers: dict[tuple[int, bool], int] = {}
        self.held: list[Array] = []  # while an array lives, its id is its own

    def add_all(self, arrays: Iterable[tuple[Array, bool]]) -> list[int] | None:
        """The numbers of the arrays, of which `first` takes the first image alone; None if they do not fit."""
        arrays = list(arrays)
        new = {(id(a), first): a[:1] if first else a for a, first in arrays if (id(a), first) not in self.numbers}
        size = sum(a.nbytes for a in new.values()) * 4 // 3
        if size > self.left:
            return None
        self.left -= size
        self.held += [a for a, _ in arrays]
        for key, a in new.items():
            values = np.ascontiguousarray(on_cpu(a))
            kind = "f4" if values.dtype.itemsize <= 4 else "f8"
            data = base64.b64encode(values.astype(f"<{kind}").tobytes()).decode()
            self.numbers[key] = len(self.arrays)
            self.arrays.append({"shape": list(values.shape), "kind": kind, "data": data})
        return [self.numbers[id(a), first] for a, first in arrays]


def embedded(call: Call, pool: Pool) -> dict[str, Any] | None:
    """A call as the page's JSON; None where it does not fit or where the page cannot explain the operation."""
    x = call.inputs.get("x")
    if x is None or x.ndim not in (2, 4) or call.output.ndim not in (2, 4):
        return None
    whole = {name: a for name, a in call.inputs.items() if name in ("weight", "bias")}
    batches = {name: a for name, a in call.inputs.items() if name not in whole}
    grads = {f"∂{name}": a for name, a in call.grads.items() if name in batches}
    if any(a.shape != x.shape for a in batches.values()):  # of Add, repeated along an axis
        return None
    named = {**batches, "output": call.output, **grads}
    if call.grad_output is not None:
        named["grad_output"] = call.grad_output
    wanted = [(a, False) for a in whole.values()] + [(a, True) for a in named.values()]
    numbers = pool.add_all(wanted)
    if numbers is None:
        return None
    options = {name: call.options[name] for name in OPTIONS if name in call.options}
    found: dict[str, Any] = {"options": options, "arrays": dict(zip((*whole, *named), numbers, strict=True))}
    if call.operation == "BatchNorm":
        means = batch_norm_means(call)  # JSON lacks NaN and infinities
        found["means"] = {name: [m if math.isfinite(m) else None for m in values] for name, values in means.items()}
    return found
