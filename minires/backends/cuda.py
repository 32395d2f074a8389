"""The backend `cuda`: the kernels of csrc/cuda on CuPy arrays, compiled by NVRTC for the device at hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from minires.arrays import Array
from minires.backends import composed
from minires.backends.kernels.backend import KernelBackend
from minires.backends.kernels.graph import GraphRecording, current
from minires.backends.kernels.provider import device


class CudaBackend(KernelBackend):
    """On a GPU, where `mr.capture` records CUDA graphs."""

    def recording(self, constants: bool, bytes: int, eager: bool) -> GraphRecording:
        """What `mr.capture` records with.  CuPy's arrays cannot be locked, so that no launch counts as constant."""
        return GraphRecording(self.array_module, bytes, eager)

    def check_values(self, check: Callable[[Array], None], values: Array, each: bool) -> None:
        recording = current()
        if recording is None:
            composed.check_values(self, check, values, each)
        elif each:
            recording.check_input(check, values)


def create(gemm: str | Path = "auto", conv2d: str | Path = "auto", compiler: str = "nvrtc") -> CudaBackend:
    """gemm, conv2d: rungs by name, see `minires kernels`, or .cu files of your own, which NVRTC compiles.

    compiler   "nvrtc" at run time, or "nvcc" ahead of time
    """
    return CudaBackend("cuda", device(compiler), gemm, conv2d)
