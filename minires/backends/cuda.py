"""The backend `cuda`: the kernels of csrc/cuda on CuPy arrays, compiled by NVRTC for the device at hand."""

from __future__ import annotations

from minires.backends.kernels.backend import KernelBackend
from minires.backends.kernels.provider import device


def create(gemm: str = "auto", conv2d: str = "auto") -> KernelBackend:
    """gemm, conv2d: rungs by name, see `minires kernels`."""
    return KernelBackend("cuda", device(), gemm, conv2d)
