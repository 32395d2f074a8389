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
#include <type_traits>

#include "watcher.h"

#define MINIRES_EMULATED 1

#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __forceinline__ inline
#define __align__(bytes) alignas(bytes)
#define __launch_bounds__(...)
#define __restrict__ __restrict

// Shared memory is one section of the program.  launch() fills it with NaN before each block.  No macro can
// give `extern __shared__ T s[];` a meaning: before g++ compiles a file, EMULATION_DYNAMIC_SHARED(T, s) replaces it.
#define __shared__ static __attribute__((section("cuda_shared")))

#define EMULATION_DYNAMIC_SHARED(type, name) type* const name = reinterpret_cast<decltype(+name)>(emulation::dynamic_shared)

struct uint3 {
    unsigned x, y, z;
};

#define EMULATION_VECTORS(type, name)                                                              \
    struct alignas(2 * sizeof(type)) name##2 {                                                     \
        type x, y;                                                                                 \
    };                                                                                             \
    struct alignas(4 * sizeof(type)) name##4 {                                                     \
        type x, y, z, w;                                                                           \
    };                                                                                             \
    inline name##2 make_##name##2(type x, type y) { return {x, y}; }                               \
    inline name##4 make_##name##4(type x, type y, type z, type w) { return {x, y, z, w}; }

EMULATION_VECTORS(float, float)
EMULATION_VECTORS(int, int)
EMULATION_VECTORS(unsigned, uint)

struct dim3 {
    unsigned x = 1, y = 1, z = 1;
};

// The scheduler sets them whenever it resumes a thread.
extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
constexpr int warpSize = 32;

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
EMULATION_UNWATCHED const T* all_lanes(const T& mine, unsigned mask, Place place) {
    return static_cast<const T*>(exchange(&mine, sizeof(T), mask, place));
}

constexpr unsigned lanes_of(unsigned mask = 0xffffffffu) { return mask; }

EMULATION_UNWATCHED inline unsigned thread_number() {
    return threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
}

EMULATION_UNWATCHED inline unsigned lane() { return thread_number() % 32; }

// The lanes that exist in this warp.
EMULATION_UNWATCHED inline unsigned lanes_of_warp() {
    const unsigned left = blockDim.x * blockDim.y * blockDim.z - thread_number() / 32 * 32;
    return left < 32 ? (1u << left) - 1 : 0xffffffffu;
}

// The shuffles.  `width` divides the warp into parts, and a lane outside of the part keeps its own value.
enum class Shuffle { from, xor_, down, up };

template <class T>
EMULATION_UNWATCHED T shuffle(Shuffle how, Place place, unsigned mask, T value, unsigned by, unsigned width = 32) {
    const unsigned me = lane(), first = me / width * width;
    unsigned source = how == Shuffle::from ? first + by % width : how == Shuffle::xor_ ? me ^ by
                    : how == Shuffle::down ? me + by : me - by;
    if (how == Shuffle::xor_ ? source >= first + width : source - first >= width) source = me;
    return all_lanes(value, mask, place)[source % 32];
}

EMULATION_UNWATCHED inline unsigned ballot(unsigned mask, bool predicate, Place place) {
    const bool* all = all_lanes(predicate, mask, place);
    unsigned lanes = 0;
    for (unsigned i = 0; i < 32; i++)
        if ((mask & lanes_of_warp()) >> i & 1 && all[i]) lanes |= 1u << i;
    return lanes;
}

// *address = next(*address), and the old value.
template <class T, class Next>
EMULATION_UNWATCHED T update(T* address, Place place, Next next) {
    EMULATION_WATCH(updated(address, sizeof(T), place));
    (void)place;
    T old, desired;
    __atomic_load(address, &old, __ATOMIC_RELAXED);
    do {
        desired = next(old);
    } while (!__atomic_compare_exchange(address, &old, &desired, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
    return old;
}

}  // namespace emulation

#define EMULATION_HERE (emulation::Place{__FILE__, __LINE__})

#define __syncthreads() emulation::barrier(EMULATION_HERE)
#define __syncwarp(...) ((void)emulation::exchange(nullptr, 0, emulation::lanes_of(__VA_ARGS__), EMULATION_HERE))
#define __shfl_sync(...) emulation::shuffle(emulation::Shuffle::from, EMULATION_HERE, __VA_ARGS__)
#define __shfl_xor_sync(...) emulation::shuffle(emulation::Shuffle::xor_, EMULATION_HERE, __VA_ARGS__)
#define __shfl_down_sync(...) emulation::shuffle(emulation::Shuffle::down, EMULATION_HERE, __VA_ARGS__)
#define __shfl_up_sync(...) emulation::shuffle(emulation::Shuffle::up, EMULATION_HERE, __VA_ARGS__)
#define __ballot_sync(mask, predicate) emulation::ballot(mask, predicate, EMULATION_HERE)
#define __any_sync(mask, predicate) (__ballot_sync(mask, predicate) != 0)
#define __all_sync(mask, predicate) (__ballot_sync(mask, !(predicate)) == 0)
#define __threadfence() __atomic_signal_fence(__ATOMIC_SEQ_CST)
#define __threadfence_block() __threadfence()
#define __ldg(address) (*(address))

#define EMULATION_UPDATE(address, value, expression) \
    emulation::update(address, EMULATION_HERE, [operand = (value)](auto old) -> decltype(old) { return expression; })
#define atomicAdd(address, value) EMULATION_UPDATE(address, value, old + operand)
#define atomicMax(address, value) EMULATION_UPDATE(address, value, max(old, operand))
#define atomicMin(address, value) EMULATION_UPDATE(address, value, min(old, operand))

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
template <class T, class U> std::common_type_t<T, U> min(T a, U b) { return b < a ? b : a; }
template <class T, class U> std::common_type_t<T, U> max(T a, U b) { return a < b ? b : a; }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
inline int __clz(int bits) { return bits ? __builtin_clz(unsigned(bits)) : 32; }
inline int __ffs(int bits) { return __builtin_ffs(bits); }

// The instructions that CUDA C++ offers only as PTX (csrc/cuda/ptx.cuh).
#include "ptx_emulation.h"
