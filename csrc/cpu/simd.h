// Vectors of any width, by the vector extensions of GCC and Clang.
//
// MINIRES_VECTOR_BYTES   the width of a register
// MINIRES_TILE_ROWS      the rows of accumulators, two vectors each, that fit the registers
//
// Everything here is in an unnamed namespace.  Otherwise the linker would merge a template's instances for different
// instruction sets into one.  For the same reason the kernels call no inline function of the standard library, such as
// std::min: a build without inlining emits it, and the linker may keep the copy for AVX-512.
#pragma once

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define MINIRES_INLINE inline __attribute__((always_inline))

namespace {

template <typename T>
struct Simd;
template <>
struct Simd<float> {
    typedef float V __attribute__((vector_size(MINIRES_VECTOR_BYTES)));
    typedef float Unaligned __attribute__((vector_size(MINIRES_VECTOR_BYTES), aligned(4), may_alias));
};
template <>
struct Simd<double> {
    typedef double V __attribute__((vector_size(MINIRES_VECTOR_BYTES)));
    typedef double Unaligned __attribute__((vector_size(MINIRES_VECTOR_BYTES), aligned(8), may_alias));
};

template <typename T>
using Vec = typename Simd<T>::V;
template <typename T>
constexpr long LANES = MINIRES_VECTOR_BYTES / sizeof(T);

constexpr int TILE_ROWS = MINIRES_TILE_ROWS;

template <typename T>
MINIRES_INLINE Vec<T> load(const T* from) {
    return *reinterpret_cast<const typename Simd<T>::Unaligned*>(from);
}

template <typename T>
MINIRES_INLINE void store(T* to, Vec<T> value) {
    *reinterpret_cast<typename Simd<T>::Unaligned*>(to) = value;
}

template <typename T>
MINIRES_INLINE Vec<T> splat(T value) {
    return value - Vec<T>{};  // adding zero would change −0
}

// A non-temporal store, for results that leave the caches before they are read.  `to` is aligned to a vector.  A task
// that streams ends with `stream_fence`.
template <typename T>
MINIRES_INLINE void stream(T* to, Vec<T> value) {
#if defined(__clang__)
    __builtin_nontemporal_store(value, reinterpret_cast<Vec<T>*>(to));
#elif defined(__x86_64__) && MINIRES_VECTOR_BYTES == 64
    __builtin_ia32_movntps512(reinterpret_cast<float*>(to), (Vec<float>)value);
#elif defined(__x86_64__) && MINIRES_VECTOR_BYTES == 32
    __builtin_ia32_movntps256(reinterpret_cast<float*>(to), (Vec<float>)value);
#elif defined(__x86_64__)
    __builtin_ia32_movntps(reinterpret_cast<float*>(to), (Vec<float>)value);
#else
    store(to, value);
#endif
}
MINIRES_INLINE void stream_fence() {
#if defined(__x86_64__)
    __builtin_ia32_sfence();
#endif
}
constexpr long STREAM_FROM = 32l << 20;  // bytes: about the last-level cache of a server's processor
template <typename T>
MINIRES_INLINE bool may_stream(const T* to, long n, long C) {
    return n * static_cast<long>(sizeof(T)) >= STREAM_FROM && C % LANES<T> == 0 &&
           reinterpret_cast<unsigned long>(to) % MINIRES_VECTOR_BYTES == 0;
}

// The first n < LANES elements, and zeros.  Memory behind them is neither read nor written.
template <typename T>
MINIRES_INLINE Vec<T> load_partial(const T* from, long n) {
    Vec<T> v{};
    for (long i = 0; i < n; i++) v[i] = from[i];
    return v;
}

template <typename T>
MINIRES_INLINE void store_partial(T* to, Vec<T> value, long n) {
    for (long i = 0; i < n; i++) to[i] = value[i];
}

#if MINIRES_VECTOR_BYTES == 64 && defined(__AVX512F__)
MINIRES_INLINE __mmask16 first_of_16(long n) { return static_cast<__mmask16>((1u << n) - 1); }
MINIRES_INLINE Vec<float> load_partial(const float* from, long n) { return _mm512_maskz_loadu_ps(first_of_16(n), from); }
MINIRES_INLINE Vec<double> load_partial(const double* from, long n) {
    return _mm512_maskz_loadu_pd(static_cast<__mmask8>(first_of_16(n)), from);
}
MINIRES_INLINE void store_partial(float* to, Vec<float> value, long n) { _mm512_mask_storeu_ps(to, first_of_16(n), value); }
MINIRES_INLINE void store_partial(double* to, Vec<double> value, long n) {
    _mm512_mask_storeu_pd(to, static_cast<__mmask8>(first_of_16(n)), value);
}
#elif MINIRES_VECTOR_BYTES == 32 && defined(__AVX2__)
template <typename Word>
MINIRES_INLINE __m256i first_words(long n) {
    alignas(32) static const Word ONES[2 * 32 / sizeof(Word)] = {static_cast<Word>(-1), static_cast<Word>(-1),
        static_cast<Word>(-1), static_cast<Word>(-1), sizeof(Word) == 4 ? Word(-1) : Word(0),
        sizeof(Word) == 4 ? Word(-1) : Word(0), sizeof(Word) == 4 ? Word(-1) : Word(0),
        sizeof(Word) == 4 ? Word(-1) : Word(0)};
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(ONES + 32 / sizeof(Word) - n));
}
MINIRES_INLINE Vec<float> load_partial(const float* from, long n) { return _mm256_maskload_ps(from, first_words<int>(n)); }
MINIRES_INLINE Vec<double> load_partial(const double* from, long n) {
    return _mm256_maskload_pd(from, first_words<long long>(n));
}
MINIRES_INLINE void store_partial(float* to, Vec<float> value, long n) {
    _mm256_maskstore_ps(to, first_words<int>(n), value);
}
MINIRES_INLINE void store_partial(double* to, Vec<double> value, long n) {
    _mm256_maskstore_pd(to, first_words<long long>(n), value);
}
#endif

// The last vector of a row may be partial: `tail` elements.  0 means a whole vector.
template <typename T>
MINIRES_INLINE Vec<T> load(const T* from, long tail) {
    return tail ? load_partial(from, tail) : load(from);
}
template <typename T>
MINIRES_INLINE void store(T* to, Vec<T> v, long tail) {
    if (tail)
        store_partial(to, v, tail);
    else
        store(to, v);
}

// Expressions of several kernels.  Forward and backward must round alike: backward computes again which numbers passed
// the ReLU.
template <typename V>
MINIRES_INLINE V normalised(V x, V mean, V scale, V bias) {
    return (x - mean) * scale + bias;
}
template <typename V>
MINIRES_INLINE V rectified(V x) {
    return x < 0 ? V{} : x;  // NaN stays NaN
}

template <typename T>
MINIRES_INLINE void copy(T* to, const T* from, long n) {
    long i = 0;
    for (; i + LANES<T> <= n; i += LANES<T>) store(to + i, load(from + i));
    for (; i < n; i++) to[i] = from[i];
}

template <typename T>
MINIRES_INLINE void zero(T* to, long n) {
    long i = 0;
    for (; i + LANES<T> <= n; i += LANES<T>) store(to + i, Vec<T>{});
    for (; i < n; i++) to[i] = T(0);
}

MINIRES_INLINE long min(long a, long b) { return a < b ? a : b; }
MINIRES_INLINE long max(long a, long b) { return a > b ? a : b; }
MINIRES_INLINE long ceil_div(long a, long b) { return (a + b - 1) / b; }
MINIRES_INLINE long round_up(long a, long to) { return ceil_div(a, to) * to; }

}  // namespace
