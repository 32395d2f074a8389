// Shared by all kernel files: the number type, and the declaration of kernels.
//
// Each file is compiled for float and, with -DMINIRES_DOUBLE, for double, whose kernels' names end in _f64.  Finite
// differences need double.  Tensor-core kernels exist for float only.
#pragma once

// The launch bounds of the kernels that follow; none here.
#define BOUNDS

// Bounds with which two blocks of 256 threads share a multiprocessor: at most 128 registers a thread.  In double the sums
// alone need as many.
#ifdef MINIRES_DOUBLE
#define TWO_BLOCKS __launch_bounds__(256)
#else
#define TWO_BLOCKS __launch_bounds__(256, 2)
#endif

#ifdef MINIRES_DOUBLE
typedef double real;
#define KERNEL(name) extern "C" __global__ void BOUNDS name##_f64
#else
typedef float real;
#define KERNEL(name) extern "C" __global__ void BOUNDS name
#endif

// Four neighbours, loaded or stored by one instruction (two for double).
struct alignas(16) real4 {
    real x, y, z, w;
};

// The index of element (i, j).  Sizes fit an int, but products of sizes may not.
__device__ __forceinline__ long long at(int i, int row, int j, int col) {
    return (long long)i * row + (long long)j * col;
}

__device__ __forceinline__ real infinity() { return __uint_as_float(0x7f800000u); }

__device__ __forceinline__ bool is_aligned(const void* address) {
    return (unsigned long long)address % sizeof(real4) == 0;
}
