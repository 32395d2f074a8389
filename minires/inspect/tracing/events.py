"""The events of a trace: one forward or backward of a node each, and the arrays in it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from minires.arrays import Array, on_cpu
from minires.inspect.explaining import Call
from minires.inspect.tracing import pictures
from minires.statistics import Statistics


@dataclass(frozen=True)
class View:
    """An array as it is shown.

    name        forward's name for it; "output", "grad_output", or "∂x" for the gradient of x
    leaf        the parameter's path, for a parameter or its gradient
    histogram   counts of 24 equal bins from min to max
    picture     a PNG of feature maps or filters; None for arrays without one
    """

    name: str
    leaf: str
    statistics: Statistics
    histogram: tuple[int, ...] = field(repr=False)
    picture: bytes | None = field(repr=False)

    @classmethod
    def of(cls, name: str, array: Array, leaf: str = "") -> View:
        values: np.ndarray = on_cpu(array)
        picture = pictures.filters(values) if leaf or name == "weight" else pictures.maps(values)
        return cls(name, leaf, Statistics.of(array), _histogram(values), picture)


def _histogram(array: np.ndarray) -> tuple[int, ...]:
    """Counts of the finite elements in 24 equal bins; numpy.histogram refuses ranges of a few rounding errors."""
    values = array[np.isfinite(array)].astype(np.float64)
    low, high = (values.min(), values.max()) if values.size else (0.0, 0.0)
    place = (values - low) / (high - low) if high > low else np.zeros(values.size)
    return tuple(np.bincount(np.minimum((24 * place).astype(int), 23), minlength=24).tolist())


@dataclass(frozen=True)
class Join:
    """One of the gradients that were summed to a node's grad_output, and the node that it came from."""

    source: int
    view: View


@dataclass
class Event:
    """A node's forward or backward.

    number, phase    `number` counts forward nodes from 0; a node's backward has the same number
    begin, seconds   start and duration: medians of several runs, see `Trace.runs`
    parents          numbers of the nodes that made the inputs; None for leaves and where no gradient is needed
    arrays, results  the inputs and the outputs
    joins            in backward, if several nodes use the output: the gradient from each of them
    macs             multiply-adds
    kept, alive      bytes of activations that backward needs: of this node, and in total after this event
    call             the arrays themselves, for `explain`; None where the trace's arrays exceed their limit
    """

    number: int
    phase: str
    operation: str
    module: str
    options: str
    place: str
    parents: tuple[int | None, ...]
    arrays: tuple[View, ...]
    begin: float = 0.0
    seconds: float = 0.0
    results: tuple[View, ...] = ()
    joins: tuple[Join, ...] = ()
    macs: int = 0
    params: int = 0
    kept: int = 0
    alive: int = 0
    call: Call | None = field(repr=False, default=None)

    def __repr__(self) -> str:
        of = f" of {self.module}" if self.module else ""
        return f"<{self.operation}{of}, {self.phase}: {1e3 * self.seconds:.3g} ms>"
