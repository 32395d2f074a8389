"""The limits of this processor, as far as any library here reaches them.

The peak is the fastest product of two 2048×2048 matrices in float32, by NumPy's BLAS, the native kernel or PyTorch.
The memory bandwidth is that of adding two arrays larger than every cache, counted as in STREAM: two reads, one write.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np

from minires import backends
from minires.bench.peers import environment
from minires.bench.race import Contender, race, workers

N = 2048
LENGTH = 1 << 25  # float32 numbers of an array: 128 MiB
OPERATIONS = 2 * N**3
BYTES = 3 * 4 * LENGTH


def _arrays() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.random(shape, np.float32) for shape in ((N, N), (N, N), (LENGTH,), (LENGTH,))]


class NumPy:
    def __init__(self, threads: int) -> None:
        backends.set_num_threads(threads)
        self.left, self.right, *addends = _arrays()
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
        left, right, *addends = _arrays()
        self.multiply = partial(backends.active().linear_forward, left, right, None)
        self.add = partial(backends.active().add_forward, *addends)


class Torch:
    def __init__(self, threads: int) -> None:
        import torch  # optional

        torch.set_num_threads(threads)
        left, right, *addends = map(torch.from_numpy, _arrays())
        self.multiply = partial(torch.mm, left, right, out=torch.empty_like(left))
        self.add = partial(torch.add, *addends, out=torch.empty_like(addends[0]))


def measure(threads: int, rounds: int, torch: bool) -> dict[str, Any]:
    """The best round of each contender, in GFLOP/s and GB/s, and the best of all."""
    contenders = [Contender("numpy", partial(NumPy, threads), environment(threads))]
    if not backends.available()["native"]:
        contenders.append(Contender("native", partial(Native, threads), environment(threads, "native")))
    if torch:
        contenders.append(Contender("torch", partial(Torch, threads), environment(threads)))
    with workers(contenders) as ready:
        seconds = race(ready, ("multiply", "add"), rounds, budget=15)
    gemm = {name: OPERATIONS / min(taken) / 1e9 for name, taken in seconds["multiply"].items()}
    memory = {name: BYTES / min(taken) / 1e9 for name, taken in seconds["add"].items()}
    best = {"peak_gflops": max(gemm.values()), "bandwidth_gbs": max(memory.values())}
    return {"gemm_gflops": gemm, "add_gbs": memory, **best}
