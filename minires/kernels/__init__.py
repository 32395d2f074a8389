"""What is done with a single CUDA kernel on a machine without a GPU, a rung of the ladders or a file of your own.

step           runs it in gdb
check          compares results with the definition on awkward sizes; finds races, accesses out of bounds, and more
profile        counts what a kernel asks of the memory, line by line
machine_code   registers, occupancy and instructions of a rung, as NVRTC compiles it

`launches` lists what a rung launches, and `model` estimates the times of the GEMM ladder.  `build` compiles a kernel
for the emulator, with a report before each access to memory.  `watch` runs that program in a process of its own;
csrc/emulation/watch.cpp counts requests, races and faults there.
"""
