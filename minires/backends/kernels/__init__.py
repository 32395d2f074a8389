"""The hand-written kernels of csrc/cuda as a backend, run by the emulator or on a GPU.

catalogue    every rung of the ladders, with a line on what it adds
provider     what launches a kernel: the emulator on NumPy arrays, NVRTC through CuPy on a device
gemm, conv2d, batch_norm, pool, softmax, elementwise    the launches of each kernel family
own, launch_line    a kernel of your own: its .cu file, and the launch on its first line
own_build, own_rung    compiling it for the CPU, and putting it in the place of a rung
backend      the contract of a backend, put together from these
"""
