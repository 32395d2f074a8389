// Running a kernel: a grid of blocks, each block a set of fibers.
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
    std::function<void(void**)> call;  // with the addresses of the arguments, as cuLaunchKernel takes them
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

// Every kernel of csrc/cuda, in both precisions.  The build writes one file for each .cu, which adds its kernels here.
std::vector<Kernel>& kernels();

struct Add {
    Add(std::initializer_list<Kernel> more) { kernels().insert(kernels().end(), more); }
};

// Runs the kernel.  `seed` shuffles the order in which the threads of a block go on, anew after each barrier, lets one
// warp run ahead of the others, and in every other block makes asynchronous copies arrive at once; 0 keeps the order
// ascending, and copies arrive when they are waited for.  Throws std::runtime_error that names file and line for a barrier that not every thread reaches, and
// std::invalid_argument for a launch that no GPU would accept.
void launch(const Kernel& kernel, dim3 grid, dim3 block, void** arguments, unsigned seed);

}  // namespace emulation
