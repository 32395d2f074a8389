"""The backend `cuda`: the kernels of csrc/cuda on CuPy arrays, compiled by NVRTC for the device at hand."""

from __future__ import annotations

from minires.backends.kernels.backend import KernelBackend
from minires.backends.kernels.provider import device


def create(gemm: str = "auto", conv2d: str = "auto", compiler: str = "nvrtc") -> KernelBackend:
    """gemm, conv2d: rungs by name, see `minires kernels`; compiler: "nvrtc" at run time, or "nvcc" ahead of time."""
    return KernelBackend("cuda", device(compiler), gemm, conv2d)
