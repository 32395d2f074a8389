// Runs a kernel: a grid of blocks, whose threads are fibers.
#pragma once

#include <functional>
#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

#include "../signature.h"
#include "cuda_emulation.h"

namespace emulation {

struct Kernel {
    const char* name;
    std::string signature;
    std::function<void(void**)> call;  // takes the addresses of the arguments, like cuLaunchKernel
};

template <class... Arguments, size_t... Position>
void call_with(void (*kernel)(Arguments...), void** arguments, std::index_sequence<Position...>) {
    kernel(*static_cast<std::remove_cv_t<Arguments>*>(arguments[Position])...);
}

template <class... Arguments>
Kernel describe(const char* name, void (*kernel)(Arguments...)) {
    return {name, signature_of(kernel),
            [kernel](void** arguments) { call_with(kernel, arguments, std::index_sequence_for<Arguments...>{}); }};
}

// All kernels of csrc/cuda in both precisions.  The build generates files that add them (kernels.cmake).
std::vector<Kernel>& kernels();

struct Add {
    Add(std::initializer_list<Kernel> more) { kernels().insert(kernels().end(), more); }
};

// Runs a kernel.  A seed shuffles the order of a block's threads after each barrier, lets one warp run ahead of the others,
// and in every other block carries out asynchronous copies when they are issued.  Seed 0 keeps the ascending order, and
// carries out copies when they are waited for.  `shared`: bytes of dynamic shared memory.
// Throws std::runtime_error with file and line for a barrier that some threads do not reach, and std::invalid_argument for
// a launch that no GPU accepts.
void launch(const Kernel& kernel, dim3 grid, dim3 block, void** arguments, unsigned seed, unsigned shared = 0);

}  // namespace emulation
