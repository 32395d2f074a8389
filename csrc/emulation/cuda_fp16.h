#error "cuda_fp16.h: the emulator has no half precision; use float, or the tf32 and bf16 instructions of csrc/cuda/ptx.cuh"
