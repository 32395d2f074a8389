// CUDA's keywords and functions for g++, so that kernel files run on the CPU with the meaning that they have on a GPU.
//
//   g++ -x c++ -include csrc/emulation/cuda_emulation.h csrc/cuda/gemm_03_shared.cu ...
//
// Each thread of a block is a fiber with its own stack, so debuggers can stop in one thread:
// `break gemm_03_shared.cu:20 if threadIdx.x == 37`.  Blocks run one after another on the calling thread.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#define MINIRES_EMULATED 1

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __restrict__ __restrict

// Shared memory is one section of the program.  launch() fills it with NaN before each block.  `extern __shared__ T s[];`
// cannot be a macro: own_build.py replaces it by EMULATION_DYNAMIC_SHARED(T, s) before it compiles a file.
#define __shared__ static __attribute__((section("cuda_shared")))

#define EMULATION_DYNAMIC_SHARED(type, name) type* const name = reinterpret_cast<decltype(+name)>(emulation::dynamic_shared)

struct uint3 {
    unsigned x, y, z;
};

struct dim3 {
    unsigned x = 1, y = 1, z = 1;
};

// The scheduler sets them whenever it resumes a thread.
extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;

namespace emulation {

// A place in a kernel's source.
struct Place {
    const char* file;
    int line;
};

constexpr unsigned MOST_DYNAMIC_SHARED = 227 << 10;
extern char dynamic_shared[MOST_DYNAMIC_SHARED];

void barrier(Place place);

// Returns the `bytes` bytes of each of the warp's 32 lanes, lane after lane.  Valid until the warp's next call.
const void* exchange(const void* mine, unsigned bytes, unsigned mask, Place place);

void copy_async(void* shared, const void* global, unsigned bytes, unsigned size, Place place);
void commit_async();
void wait_async(unsigned newest);

template <class T>
const T* all_lanes(const T& mine, unsigned mask, Place place) {
    return static_cast<const T*>(exchange(&mine, sizeof(T), mask, place));
}

inline unsigned lane() {
    return (threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) % 32;
}

template <class T>
T shuffle(unsigned mask, T value, unsigned source, Place place) {
    return all_lanes(value, mask, place)[source % 32];
}

template <class T>
T add_atomically(T* address, T value) {
    T old, sum;
    __atomic_load(address, &old, __ATOMIC_RELAXED);
    do {
        sum = old + value;
    } while (!__atomic_compare_exchange(address, &old, &sum, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
    return old;
}

}  // namespace emulation

#define EMULATION_HERE (emulation::Place{__FILE__, __LINE__})

#define __syncthreads() emulation::barrier(EMULATION_HERE)
#define __syncwarp(...) ((void)emulation::exchange(nullptr, 0, 0xffffffffu, EMULATION_HERE))
#define __shfl_sync(mask, value, source) emulation::shuffle(mask, value, source, EMULATION_HERE)
#define __shfl_xor_sync(mask, value, bits) \
    emulation::shuffle(mask, value, emulation::lane() ^ (bits), EMULATION_HERE)
#define __shfl_down_sync(mask, value, by) \
    emulation::shuffle(mask, value, emulation::lane() + (by) < 32 ? emulation::lane() + (by) : emulation::lane(), \
                       EMULATION_HERE)
#define atomicAdd(address, value) emulation::add_atomically(address, value)
#define __ldg(address) (*(address))

using std::exp;
using std::fabs;
using std::fmax;
using std::fmin;
using std::log;
using std::sqrt;

inline float __uint_as_float(unsigned bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline double rsqrt(double x) { return 1.0 / std::sqrt(x); }
template <class T> T min(T a, T b) { return b < a ? b : a; }
template <class T> T max(T a, T b) { return a < b ? b : a; }

// The instructions that CUDA C++ offers only as PTX (csrc/cuda/ptx.cuh).
#include "ptx_emulation.h"
