"""The hand-written kernels of csrc/cuda as a backend, run by the emulator or on a GPU.

catalogue    every rung of the ladders, with a line on what it adds
provider     what launches a kernel: the emulator on NumPy arrays, NVRTC through CuPy on a device
gemm, conv2d, batch_norm, pool, softmax, elementwise    the launches of each kernel family
backend      the contract of a backend, put together from these
"""
