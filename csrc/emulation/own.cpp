// A kernel of the reader's own as a library for Python (minires/backends/kernels/own_build.py), which defines KERNEL_FILE
// and KERNEL_NAME.
#include <string>

#include "launch.h"

#include KERNEL_FILE

#define AS_TEXT(name) #name
#define NAME_AS_TEXT(name) AS_TEXT(name)

// Runs the kernel.  grid and block: x, y, z.  arguments: the address of each argument.  Returns null, or the error as text
// that is valid until the thread's next call.
extern "C" __attribute__((visibility("default"))) const char* minires_launch(const unsigned* grid, const unsigned* block,
                                                                             unsigned shared, void** arguments,
                                                                             unsigned seed) {
    static thread_local std::string message;
    try {
        const emulation::Kernel kernel = emulation::describe(NAME_AS_TEXT(KERNEL_NAME), &KERNEL_NAME);
        const dim3 blocks{grid[0], grid[1], grid[2]}, threads{block[0], block[1], block[2]};
        emulation::launch(kernel, blocks, threads, arguments, seed, shared);
        return nullptr;
    } catch (const std::exception& error) {
        message = error.what();
        return message.c_str();
    }
}
