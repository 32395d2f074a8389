"""CUDA kernels examined without a GPU."""
