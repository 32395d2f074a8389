"""The bugs that are planted in the CUDA kernels of csrc/cuda, run by the emulator."""

from . import convolutions, headers, passes, products

BUGS = tuple(bug for file in (products, convolutions, passes, headers) for bug in file.bugs())
