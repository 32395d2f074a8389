"""The backend `emulated`: the CUDA kernels of csrc/cuda, run thread by thread on the CPU, on NumPy arrays."""

from __future__ import annotations

from pathlib import Path

from minires.backends.kernels.backend import KernelBackend
from minires.backends.kernels.provider import Emulator


def create(gemm: str | Path = "auto", conv2d: str | Path = "auto", seed: int | None = None) -> KernelBackend:
    """gemm, conv2d: rungs by name, see `minires kernels`, or .cu files of your own.

    seed   of the order of the threads of a block
    """
    return KernelBackend("emulated", Emulator(seed), gemm, conv2d)
