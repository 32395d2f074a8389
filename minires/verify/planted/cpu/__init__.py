"""The bugs that are planted in the C++ kernels of csrc/cpu, which every instruction set is compiled from."""

from __future__ import annotations

from collections.abc import Iterator

from minires.verify.planted.cpu import convolutions, passes, products, winograd
from minires.verify.planted.mutant import Mutant


def mutants() -> Iterator[Mutant]:
    for those in (convolutions, products, winograd, passes):
        yield from those.mutants()
