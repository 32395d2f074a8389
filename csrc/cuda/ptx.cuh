// Instructions without a function in CUDA C++.  The emulator defines the same names (ptx_emulation.h).
#pragma once

#ifndef MINIRES_EMULATED

// cp.async copies from global to shared memory without registers.  It completes at the latest when it is waited for.
// Only the first `size` bytes are read; the rest become zero.
__device__ __forceinline__ void cp_async_16(void* shared, const void* global, unsigned size) {
    const unsigned to = (unsigned)__cvta_generic_to_shared(shared);
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(global), "r"(size) : "memory");
}

__device__ __forceinline__ void cp_async_8(void* shared, const void* global, unsigned size) {
    const unsigned to = (unsigned)__cvta_generic_to_shared(shared);
    asm volatile("cp.async.ca.shared.global [%0], [%1], 8, %2;" ::"r"(to), "l"(global), "r"(size) : "memory");
}

__device__ __forceinline__ void cp_async_4(void* shared, const void* global, unsigned size) {
    const unsigned to = (unsigned)__cvta_generic_to_shared(shared);
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(to), "l"(global), "r"(size) : "memory");
}

__device__ __forceinline__ void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until all but the newest groups of this thread have arrived.  Other threads see the copies after a barrier.
#define cp_async_wait(newest) asm volatile("cp.async.wait_group %0;" ::"n"(newest) : "memory")

// ldmatrix: four 8×8 matrices of 16 bits (or 8×4 of 32); lanes 8i … 8i+7 hold the addresses of the rows of matrix i.
__device__ __forceinline__ void ldmatrix_x4(unsigned (&r)[4], const void* row) {
    const unsigned from = (unsigned)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(from)
                 : "memory");
}

// The warp's C (16×8) += A (16×8) · B (8×8), operands rounded to tf32.
__device__ __forceinline__ void mma_m16n8k8_tf32(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// The warp's C (16×8) += A (16×16) · B (16×8), operands in bf16.
__device__ __forceinline__ void mma_m16n8k16_bf16(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

#endif

// Copies one number of either type.
__device__ __forceinline__ void cp_async_one(float* shared, const float* global, bool inside) {
    cp_async_4(shared, global, inside ? 4 : 0);
}

__device__ __forceinline__ void cp_async_one(double* shared, const double* global, bool inside) {
    cp_async_8(shared, global, inside ? 8 : 0);
}

// Rounds to the nearest tf32 (10 bits of mantissa), ties away from zero.  The tensor core would truncate.  The instruction
// compares and adds; an addition alone would turn the GPU's NaN, 0x7fffffff, into −0.
__device__ __forceinline__ unsigned to_tf32(float x) {
#if defined(MINIRES_EMULATED)
    unsigned bits;
    memcpy(&bits, &x, 4);
    return (bits & 0x7f800000u) == 0x7f800000u ? bits : (bits + 0x1000u) & 0xffffe000u;
#else
    unsigned bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
    return bits;
#endif
}

// Rounds two floats to a pair of bf16, ties to even.  `low` is in the lower half.
__device__ __forceinline__ unsigned to_bf16_pair(float low, float high) {
#if defined(MINIRES_EMULATED)
    unsigned bits[2];
    memcpy(&bits[0], &low, 4);
    memcpy(&bits[1], &high, 4);
    for (unsigned& b : bits) b = (b & 0x7fffffffu) > 0x7f800000u ? 0x7fffu : (b + 0x7fffu + (b >> 16 & 1)) >> 16;
    return bits[0] | bits[1] << 16;
#else
    unsigned pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
#endif
}
