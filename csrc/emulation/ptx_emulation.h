// cp.async, ldmatrix and mma.sync as in the PTX manual, lane by lane.
#pragma once

namespace emulation {

// tf32 keeps 10 of float's 23 bits of mantissa: the tensor core ignores the rest.
EMULATION_UNWATCHED inline float as_tf32(uint32_t bits) {
    bits &= 0xffffe000u;
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

EMULATION_UNWATCHED inline float bf16_at(uint32_t pair, int which) {
    uint32_t bits = which ? pair & 0xffff0000u : pair << 16;
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

struct Fragments {
    uint32_t a[4], b[2];
    float c[4];
};

}  // namespace emulation

// The copy is carried out when it is waited for (for seeds: launch.h).  A missing wait leaves NaN in shared memory, and is an
// error at the end of the block.  Only the first `size` bytes are read; the rest become zero.
#define cp_async_16(shared, global, size) emulation::copy_async(shared, global, 16, size, EMULATION_HERE)
#define cp_async_8(shared, global, size) emulation::copy_async(shared, global, 8, size, EMULATION_HERE)
#define cp_async_4(shared, global, size) emulation::copy_async(shared, global, 4, size, EMULATION_HERE)
#define cp_async_commit() emulation::commit_async()
#define cp_async_wait(newest) emulation::wait_async(newest)

// Four 8×8 matrices of 16-bit elements (or 8×4 of 32-bit elements).  Lanes 8i … 8i+7 hold the addresses of the rows of
// matrix i.  Lane l receives from each matrix the 32 bits at byte 4·(l%4) of row l/4.
#define ldmatrix_x4(registers, row) emulation::load_matrix_x4(registers, row, EMULATION_HERE)
#define mma_m16n8k8_tf32(c, a, b) emulation::multiply_tf32(c, a, b, EMULATION_HERE)
#define mma_m16n8k16_bf16(c, a, b) emulation::multiply_bf16(c, a, b, EMULATION_HERE)

namespace emulation {

EMULATION_UNWATCHED inline void load_matrix_x4(uint32_t (&registers)[4], const void* row, Place place) {
    EMULATION_WATCH(matrix_row(row, place));
    const void* const* rows = all_lanes(row, 0xffffffffu, place);
    for (int i = 0; i < 4; i++)
        std::memcpy(&registers[i], static_cast<const char*>(rows[8 * i + lane() / 4]) + 4 * (lane() % 4), 4);
}

EMULATION_UNWATCHED inline const Fragments* gather(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                                                   Place place) {
    EMULATION_WATCH(multiplied(place));
    Fragments mine;
    std::memcpy(mine.a, a, sizeof a);
    std::memcpy(mine.b, b, sizeof b);
    std::memcpy(mine.c, c, sizeof c);
    return all_lanes(mine, 0xffffffffu, place);
}

// m16n8k8: A (16×8) row g = lane/4 (+8 for a1, a3), column t = lane%4 (+4 for a2, a3); B (8×8) row t (+4), column g;
// C (16×8) row g (+8 for c2, c3), columns 2t, 2t+1.
EMULATION_UNWATCHED inline void multiply_tf32(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], Place place) {
    const Fragments* all = gather(c, a, b, place);
    const int g = lane() / 4, t = lane() % 4;
    for (int i = 0; i < 4; i++) {
        const int high = i / 2, n = 2 * t + i % 2;
        for (int k = 0; k < 8; k++) {
            const float left = as_tf32(all[4 * g + k % 4].a[high + 2 * (k / 4)]);
            const float right = as_tf32(all[4 * n + k % 4].b[k / 4]);
            c[i] += left * right;
        }
    }
}

// m16n8k16: like m16n8k8, but each register holds two neighbours along k (2t, 2t+1); a2, a3 and b1 begin at k = 8.
EMULATION_UNWATCHED inline void multiply_bf16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], Place place) {
    const Fragments* all = gather(c, a, b, place);
    const int g = lane() / 4, t = lane() % 4;
    for (int i = 0; i < 4; i++) {
        const int high = i / 2, n = 2 * t + i % 2;
        for (int k = 0; k < 16; k++) {
            const int half = k / 8, pair = k % 8 / 2;
            const float left = bf16_at(all[4 * g + pair].a[high + 2 * half], k % 2);
            const float right = bf16_at(all[4 * n + pair].b[half], k % 2);
            c[i] += left * right;
        }
    }
}

}  // namespace emulation
