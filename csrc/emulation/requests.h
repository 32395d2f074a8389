// A warp's requests to memory, and what they cost on a GPU.
#pragma once

#include <algorithm>
#include <cstdint>

namespace emulation::watcher {

// One memory instruction of a warp.
struct Request {
    uint32_t lanes = 0;  // that are active
    unsigned bytes = 0;  // of each lane, at most 16
    uintptr_t address[32];
};

inline unsigned distinct(uintptr_t* values, unsigned count) {
    std::sort(values, values + count);
    return unsigned(std::unique(values, values + count) - values);
}

struct Sectors {
    unsigned count, ideal;  // ideal: if the bytes lay together
};

// Global memory is moved in sectors of 32 bytes.
inline Sectors sectors_of(const Request& request) {
    uintptr_t touched[64], addresses[32];
    unsigned sectors = 0, lanes = 0;
    for (unsigned lane = 0; lane < 32; lane++) {
        if (!(request.lanes >> lane & 1)) continue;
        const uintptr_t first = request.address[lane];
        addresses[lanes++] = first;
        touched[sectors++] = first / 32;
        if ((first + request.bytes - 1) / 32 != first / 32) touched[sectors++] = first / 32 + 1;
    }
    return {distinct(touched, sectors), (distinct(addresses, lanes) * request.bytes + 31) / 32};
}

// Whether each of these lanes reads the same address as the lane whose number differs in this bit, or is alone.
inline bool paired(const Request& request, uint32_t lanes, unsigned bit) {
    for (unsigned lane = 0; lane < 32; lane++)
        if (lanes >> lane & lanes >> (lane ^ bit) & 1 && request.address[lane] != request.address[lane ^ bit]) return false;
    return true;
}

// The passes that shared memory needs for these lanes: the most words of 4 bytes in one of its 32 banks.
inline unsigned passes(const Request& request, uint32_t lanes) {
    uintptr_t words[128];
    unsigned count = 0, in_bank[32] = {}, most = 0;
    for (unsigned lane = 0; lane < 32; lane++)
        if (lanes >> lane & 1)
            for (unsigned byte = 0; byte < request.bytes; byte += 4) words[count++] = (request.address[lane] + byte) / 4;
    count = distinct(words, count);
    for (unsigned i = 0; i < count; i++) most = std::max(most, ++in_bank[words[i] % 32]);
    return most;
}

struct Wavefronts {
    unsigned count, ideal;  // ideal: without bank conflicts
};

// From sm_70 on, accesses of 4 bytes are served for the whole warp at once, of 8 bytes for halves, of 16 bytes for quarters.
// Two neighbouring parts of a load merge if lanes that differ in bit 0 (or all lanes that differ in bit 1) share addresses.
inline Wavefronts wavefronts_of(const Request& request, bool merges) {
    const unsigned size = request.bytes <= 4 ? 32 : request.bytes <= 8 ? 16 : 8;
    Wavefronts result{};
    for (unsigned first = 0; first < 32;) {
        unsigned span = size;
        const auto lanes_of = [&](unsigned width) {
            return request.lanes & uint32_t(((uint64_t{1} << width) - 1) << first);
        };
        if (merges && size < 32 && first % (2 * size) == 0) {
            const uint32_t both = lanes_of(2 * size);
            if (paired(request, both, 1) || paired(request, both, 2)) span = 2 * size;
        }
        if (const uint32_t lanes = lanes_of(span)) {
            result.count += passes(request, lanes);
            result.ideal++;
        }
        first += span;
    }
    return result;
}

}  // namespace emulation::watcher
