"""What an array holds, told in a line: what cards, tables and `repr` show instead of a million numbers."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

import numpy as np

from minires.arrays import Array, on_cpu


@dataclass(frozen=True)
class Statistics:
    """mean, std (population), min, max and norm (Euclidean) are of the finite elements, NaN where there is none."""

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
        """Of any real array, NumPy's or CuPy's; computed in float64."""
        values = on_cpu(array).astype(np.float64).ravel()
        finite = values[np.isfinite(values)]
        nans = int(np.isnan(values).sum())
        infs = values.size - finite.size - nans
        zeros = int((values == 0).sum())
        shown = (float("nan"),) * 5
        if finite.size:
            with np.errstate(over="ignore", invalid="ignore"):  # float64 inputs near the end of their range
                norm = float(np.linalg.norm(finite))
                shown = float(finite.mean()), float(finite.std()), float(finite.min()), float(finite.max()), norm
        return cls(tuple(array.shape), str(array.dtype), values.size, *shown, zeros, nans, infs)

    def numbers(self) -> list[tuple[str, str]]:
        """(name, value) pairs, as they are shown; zeros, NaNs and Infs only where there are any."""
        told = [("mean", f"{self.mean:.4g}"), ("std", f"{self.std:.4g}"), ("min", f"{self.min:.4g}")]
        told += [("max", f"{self.max:.4g}"), ("norm", f"{self.norm:.4g}")]
        told += [("zeros", f"{100 * self.zeros / self.size:.0f} %")] if self.zeros else []
        told += [("NaN", f"{self.nans:,}")] if self.nans else []
        return told + ([("Inf", f"{self.infs:,}")] if self.infs else [])

    def __str__(self) -> str:
        return f"{self.shape} {self.dtype}: " + ", ".join(f"{name} {value}" for name, value in self.numbers())


def html_table(rows: list[tuple[str, Statistics]], caption: str) -> str:
    """Named arrays as an HTML table, for notebooks."""
    cell = '<td style="text-align:left">'
    lines = []
    for name, told in rows:
        numbers = ", ".join(f"{key} {value}" for key, value in told.numbers())
        cells = (name, str(told.shape), told.dtype, numbers)
        lines.append("<tr>" + "".join(f"{cell}{escape(text)}</td>" for text in cells) + "</tr>")
    return f'<table><caption style="text-align:left">{escape(caption)}</caption>{"".join(lines)}</table>'
