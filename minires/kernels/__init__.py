"""CUDA kernels checked and profiled without a GPU.

g++ compiles a kernel for the emulator, with a report before each access to memory (`build`).  A program runs it in a
process of its own and counts requests, races and faults (csrc/emulation/watch.cpp, `watch`).  `check` compares results
with the definition on awkward sizes, and `profile` counts what a kernel asks of the memory.
"""
