// A digest, to detect changes of an array at the speed of memory.
//
// Each of 128 lanes mixes every 128th word into its state: state = rotate((state ^ word) · odd).  The step is invertible,
// so a change of one word of a lane always changes the digest.  Any other change of k lanes is missed with probability
// 2⁻³²ᵏ.
#pragma once

#include "kernels.h"
#include "simd.h"
#include "threads.h"

namespace {

using minires::cpu::LANES_OF_DIGEST;

typedef unsigned Words __attribute__((vector_size(MINIRES_VECTOR_BYTES)));
typedef unsigned UnalignedWords __attribute__((vector_size(MINIRES_VECTOR_BYTES), aligned(4), may_alias));

MINIRES_INLINE Words mixed(Words state, Words word) {
    const Words product = (state ^ word) * 0x9E3779B1u;
    return product << 13 | product >> 19;
}

template <typename T>
void digest(long n, const T* x, unsigned* to) {
    constexpr long L = MINIRES_VECTOR_BYTES / 4, VECTORS = LANES_OF_DIGEST / L, WORDS = sizeof(T) / 4, PARTS = 16;
    const long words = n * WORDS, rows = words / LANES_OF_DIGEST;
    const auto* from = reinterpret_cast<const char*>(x);
    unsigned parts[PARTS][LANES_OF_DIGEST];
    // The number of parts is fixed, so the digest does not depend on the number of threads.
    for_each(PARTS, [&](long part) {
        Words state[VECTORS] = {};
        for (long row = rows * part / PARTS; row < rows * (part + 1) / PARTS; row++)
#pragma GCC unroll 32
            for (long v = 0; v < VECTORS; v++)
                state[v] = mixed(
                    state[v], *reinterpret_cast<const UnalignedWords*>(from + 4 * (row * LANES_OF_DIGEST + v * L)));
        for (long v = 0; v < VECTORS; v++) *reinterpret_cast<UnalignedWords*>(&parts[part][v * L]) = state[v];
    });
    unsigned rest[LANES_OF_DIGEST] = {};
    __builtin_memcpy(rest, from + 4 * rows * LANES_OF_DIGEST, 4 * (words - rows * LANES_OF_DIGEST));
    for (long v = 0; v < LANES_OF_DIGEST; v += L) {
        Words state = *reinterpret_cast<const UnalignedWords*>(rest + v);
        for (long part = 0; part < PARTS; part++)
            state = mixed(state, *reinterpret_cast<const UnalignedWords*>(parts[part] + v));
        *reinterpret_cast<UnalignedWords*>(to + v) = state;
    }
}

}  // namespace
