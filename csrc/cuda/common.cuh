// What every kernel file shares: the number type, and how a kernel is declared.
//
// Each file is compiled twice, for float and (-DMINIRES_DOUBLE) for double, whose kernels end in _f64: finite
// differences need 52 bits.  Tensor-core kernels exist for float alone.
#pragma once

#ifdef MINIRES_DOUBLE
typedef double real;
#define KERNEL(name) extern "C" __global__ void name##_f64
#else
typedef float real;
#define KERNEL(name) extern "C" __global__ void name
#endif

// Four neighbours, moved by one instruction (two for double).
struct alignas(16) real4 {
    real x, y, z, w;
};

// Index of element (i, j): sizes fit an int, products of sizes may not.
__device__ __forceinline__ long long at(int i, int row, int j, int col) {
    return (long long)i * row + (long long)j * col;
}

__device__ __forceinline__ real infinity() { return __uint_as_float(0x7f800000u); }

__device__ __forceinline__ bool is_aligned(const void* address) {
    return (unsigned long long)address % sizeof(real4) == 0;
}
