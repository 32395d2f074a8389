"""The bugs that are planted in the CUDA kernels of csrc/cuda, run by the emulator."""

from __future__ import annotations

from collections.abc import Iterator

from minires.verify.planted.cuda import convolutions, headers, passes, products
from minires.verify.planted.mutant import Mutant


def mutants() -> Iterator[Mutant]:
    for those in (products, convolutions, passes, headers):
        yield from those.mutants()
