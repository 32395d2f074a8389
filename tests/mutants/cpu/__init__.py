"""The bugs that are planted in the C++ kernels of csrc/cpu, which every instruction set is compiled from."""

from . import convolutions, passes, products, winograd

BUGS = tuple(bug for file in (convolutions, products, winograd, passes) for bug in file.bugs())
