"""The backend `cublas`: the kernels of csrc/cuda, but every product of matrices, im2col's included, by cuBLAS."""

from __future__ import annotations

from minires.backends.kernels.backend import KernelBackend
from minires.backends.kernels.provider import device


def create() -> KernelBackend:
    """im2col, then cuBLAS."""
    backend = KernelBackend("cublas", device(), "cublas", "conv_02_im2col")
    backend.path = "cublas"  # which has no options
    return backend
