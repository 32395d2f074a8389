// A program to step through: runs one kernel of the GEMM ladder on small matrices and checks it against plain loops.
//
//   g++ -g -std=c++17 -Icsrc/emulation -Icsrc/cuda -DKERNEL_FILE='"gemm_04_registers.cu"' -DKERNEL_NAME=gemm_04_registers
//       csrc/emulation/step.cpp csrc/emulation/launch.cpp csrc/emulation/fiber.cpp -o step
//   gdb -x csrc/emulation/step.gdb ./step
//
// Arguments of the program: SEED M N K.  The seed shuffles the order of the threads; 0 does not.
// TILE_OF_BLOCK: the edge of the tile of C that a block computes.  BLOCK: the threads of a block.  32 and {32,32,1} for
// gemm_03_shared.
#include <cstdio>
#include <vector>

#include "launch.h"

#include KERNEL_FILE

#ifndef TILE_OF_BLOCK
#define TILE_OF_BLOCK 128
#define BLOCK {256, 1, 1}
#endif

int main(int count, char** words) {
    const unsigned seed = count > 1 ? std::atoi(words[1]) : 0;
    int M = 150, N = 70, K = 40, one = 1;
    if (count == 5) M = std::atoi(words[2]), N = std::atoi(words[3]), K = std::atoi(words[4]);
    if ((count > 2 && count != 5) || M < 1 || N < 1 || K < 1) {
        std::fprintf(stderr, "usage: %s [SEED [M N K]], sizes of at least 1\n", words[0]);
        return 2;
    }
    std::vector<float> A(M * K), B(K * N), C(M * N, NAN);
    for (size_t i = 0; i < A.size(); i++) A[i] = float(i % 7) - 3;
    for (size_t i = 0; i < B.size(); i++) B[i] = float(i % 5) - 2;
    const float *a = A.data(), *b = B.data();
    float* c = C.data();
    void* arguments[] = {&a, &b, &c, &M, &N, &K, &K, &one, &N, &one, &N};
    const unsigned rows = (M + TILE_OF_BLOCK - 1) / TILE_OF_BLOCK, columns = (N + TILE_OF_BLOCK - 1) / TILE_OF_BLOCK;
    try {
        emulation::launch(emulation::describe("kernel", &KERNEL_NAME), {columns, rows, 1}, BLOCK, arguments, seed);
    } catch (const std::exception& error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 2;
    }
    for (int m = 0; m < M; m++)
        for (int n = 0; n < N; n++) {
            float sum = 0;  // small integers: exact in any order
            for (int k = 0; k < K; k++) sum += A[m * K + k] * B[k * N + n];
            if (!(C[m * N + n] == sum)) {
                std::fprintf(stderr, "C[%d][%d] is %g, should be %g\n", m, n, C[m * N + n], sum);
                return 1;
            }
        }
    std::puts("right");
}
