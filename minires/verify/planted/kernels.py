"""The bugs that are planted in the hand-written kernels: those of csrc/cuda and those of csrc/cpu."""

from __future__ import annotations

from minires.verify.planted import cpu, cuda
from minires.verify.planted.mutant import Mutant

KERNELS: tuple[Mutant, ...] = (*cuda.mutants(), *cpu.mutants())
