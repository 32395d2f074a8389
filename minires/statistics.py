"""Statistics of an array, for cards, tables and `repr`."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

import numpy as np

from minires.arrays import Array, on_cpu


@dataclass(frozen=True)
class Statistics:
    """mean, std (population), min, max and norm (Euclidean) of the finite elements; NaN without a finite element."""

    shape: tuple[int, ...]
    dtype: str
    size: int
    mean: float
    std: float
    min: float
    max: float
    norm: float
    zeros: int
    nans: int
    infs: int

    @classmethod
    def of(cls, array: Array) -> Statistics:
        """The statistics of a real array of NumPy or CuPy, computed in float64."""
        values = on_cpu(array).astype(np.float64).ravel()
        finite = values[np.isfinite(values)]
        nans = int(np.isnan(values).sum())
        infs = values.size - finite.size - nans
        zeros = int((values == 0).sum())
        moments = (float("nan"),) * 5
        if finite.size:
            with np.errstate(over="ignore", invalid="ignore"):  # float64 near the end of its range
                norm = float(np.linalg.norm(finite))
                moments = float(finite.mean()), float(finite.std()), float(finite.min()), float(finite.max()), norm
        return cls(tuple(array.shape), str(array.dtype), values.size, *moments, zeros, nans, infs)

    def numbers(self) -> list[tuple[str, str]]:
        """(name, value) pairs in words; zeros, NaNs and Infs only if there are any."""
        pairs = [(name, f"{getattr(self, name):.4g}") for name in ("mean", "std", "min", "max", "norm")]
        pairs += [("zeros", f"{100 * self.zeros / self.size:.0f} %")] if self.zeros else []
        return pairs + [(name, f"{n:,}") for name, n in (("NaN", self.nans), ("Inf", self.infs)) if n]

    def __str__(self) -> str:
        return f"{self.shape} {self.dtype}: " + ", ".join(f"{name} {value}" for name, value in self.numbers())


def html_table(rows: list[tuple[str, Statistics]], caption: str) -> str:
    """Named arrays as an HTML table, for notebooks."""
    cell = '<td style="text-align:left">'
    lines = []
    for name, statistics in rows:
        numbers = ", ".join(f"{key} {value}" for key, value in statistics.numbers())
        cells = (name, str(statistics.shape), statistics.dtype, numbers)
        lines.append("<tr>" + "".join(f"{cell}{escape(text)}</td>" for text in cells) + "</tr>")
    return f'<table><caption style="text-align:left">{escape(caption)}</caption>{"".join(lines)}</table>'
