// The compiled part of minires as Python sees it: `minires._native`.
#include <pybind11/pybind11.h>

#include "cpu/bindings.h"

namespace {

// How this module was compiled, for `minires doctor`.
pybind11::dict build() {
    pybind11::dict told;
#if defined(__clang__)
    told["compiler"] = "clang " __clang_version__;
#elif defined(__GNUC__)
    told["compiler"] = "gcc " __VERSION__;
#else
    told["compiler"] = "unknown";
#endif
    told["standard"] = static_cast<long>(__cplusplus);
#if defined(__x86_64__)
    told["processor"] = "x86-64";
#elif defined(__aarch64__)
    told["processor"] = "aarch64";
#else
    told["processor"] = "other";
#endif
    return told;
}

}  // namespace

PYBIND11_MODULE(_native, module) {
    module.doc() = "The compiled part of minires.";
    module.def("build", &build, "How this module was compiled: compiler, C++ standard, processor.");
    minires::cpu::bind(module);
}
