"""The launches of a rung, kept instead of run."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from minires.arrays import Array, channels_first
from minires.backends.kernels import conv2d
from minires.backends.kernels.catalogue import GEMMS
from minires.backends.kernels.gemm import gemm


class Kept(NamedTuple):
    kernel: str
    grid: tuple[int, ...]
    block: tuple[int, ...]
    arguments: tuple[Any, ...]


class _Provider:
    """A provider (backends/kernels/provider.py) that runs nothing."""

    module: ModuleType = np

    def __init__(self) -> None:
        self.kept: list[Kept] = []

    def launch(self, kernel: str, dtype: Any, grid: tuple[int, ...], block: tuple[int, ...], *arguments: Any) -> None:
        if all(grid):
            self.kept.append(Kept(kernel, grid, block, arguments))

    def upload(self, host: Array) -> Array:
        return host


def launches_of(rung: str, sizes: Mapping[str, int], left: Array, right: Array, out: Array) -> list[Kept]:
    """What the rung launches for these arrays; those of a convolution are channels-last."""
    provider = _Provider()
    if rung in GEMMS:
        gemm(provider, rung, left, right, out)
    else:
        stride, padding = ((sizes[name],) * 2 for name in ("stride", "padding"))
        shapes = channels_first(left).shape, channels_first(right).shape
        geometry = conv2d.Geometry.of(*shapes, stride, padding, (1, 1), 1)
        conv2d.forward(provider, rung, "gemm_07_warps", left, right, out, geometry)
    return provider.kept
