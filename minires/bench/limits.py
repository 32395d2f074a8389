"""What this processor can do at best, as far as anybody here reaches it: the measure that shares are told in.

The peak is the fastest product of two 2048×2048 matrices in float32, by NumPy's BLAS, our kernel or PyTorch.  The
bandwidth of memory is that of adding two arrays which no cache holds, counted as STREAM does: two read, one written.
"""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from minires import backends
from minires.bench.race import Side, players, race
from minires.bench.sides import environment

N = 2048
LENGTH = 1 << 25  # float32 numbers of an array: 128 MiB
OPERATIONS = 2 * N**3
BYTES = 3 * 4 * LENGTH


def _arrays(n: int, length: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.random(shape, np.float32) for shape in ((n, n), (n, n), (length,), (length,))]


class NumPy:
    def __init__(self, threads: int) -> None:
        backends.set_num_threads(threads)
        self.left, self.right, *addends = _arrays(N, LENGTH)
        self.product, self.sum = np.empty_like(self.left), np.empty_like(addends[0])
        self.parts = list(zip(*(np.array_split(array, threads) for array in (*addends, self.sum)), strict=True))
        self.pool = ThreadPoolExecutor(threads)

    def multiply(self) -> None:
        np.matmul(self.left, self.right, out=self.product)

    def add(self) -> None:
        list(self.pool.map(lambda part: np.add(part[0], part[1], out=part[2]), self.parts))


class Native:
    def __init__(self, threads: int) -> None:
        backends.set_num_threads(threads)
        self.left, self.right, *self.addends = _arrays(N, LENGTH)

    def multiply(self) -> None:
        backends.active().linear_forward(self.left, self.right, None)

    def add(self) -> None:
        backends.active().add_forward(*self.addends)


class Torch:
    def __init__(self, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        left, right, *addends = map(torch.from_numpy, _arrays(N, LENGTH))
        product, total = torch.empty_like(left), torch.empty_like(addends[0])
        self.multiply = functools.partial(torch.mm, left, right, out=product)
        self.add = functools.partial(torch.add, *addends, out=total)


def measure(threads: int, rounds: int, torch: bool) -> dict[str, Any]:
    """The best of each side, in GFLOP/s and GB/s, and the best of all."""
    sides = [Side("numpy", functools.partial(NumPy, threads), environment(threads))]
    if not backends.available()["native"]:
        sides.append(Side("native", functools.partial(Native, threads), environment(threads, "native")))
    if torch:
        sides.append(Side("torch", functools.partial(Torch, threads), environment(threads)))
    with players(sides) as ready:
        seconds = race(ready, ("multiply", "add"), rounds, budget=15)
    gemm = {name: OPERATIONS / min(taken) / 1e9 for name, taken in seconds["multiply"].items()}
    memory = {name: BYTES / min(taken) / 1e9 for name, taken in seconds["add"].items()}
    return {
        "gemm_gflops": gemm,
        "peak_gflops": max(gemm.values()),
        "add_gbs": memory,
        "bandwidth_gbs": max(memory.values()),
    }
