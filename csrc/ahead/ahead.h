// The table of kernels compiled by nvcc.
#pragma once

#include <initializer_list>
#include <string>
#include <vector>

#include "../signature.h"

namespace ahead {

struct Kernel {
    const char* name;
    std::string signature;
    const void* function;
};

template <class... Arguments>
Kernel describe(const char* name, void (*kernel)(Arguments...)) {
    return {name, signature_of(kernel), reinterpret_cast<const void*>(kernel)};
}

std::vector<Kernel>& kernels();

struct Add {
    Add(std::initializer_list<Kernel> more) { kernels().insert(kernels().end(), more); }
};

}  // namespace ahead
