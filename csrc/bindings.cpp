// The Python module `minires._native`: the compiled part of minires.
#include <pybind11/pybind11.h>

#include "cpu/bindings.h"

namespace {

// How this module was compiled, for `minires doctor`.
pybind11::dict build() {
    pybind11::dict facts;
#if defined(__clang__)
    facts["compiler"] = "clang " __clang_version__;
#elif defined(__GNUC__)
    facts["compiler"] = "gcc " __VERSION__;
#else
    facts["compiler"] = "unknown";
#endif
    facts["standard"] = static_cast<long>(__cplusplus);
#if defined(__x86_64__)
    facts["processor"] = "x86-64";
#elif defined(__aarch64__)
    facts["processor"] = "aarch64";
#else
    facts["processor"] = "other";
#endif
    return facts;
}

}  // namespace

PYBIND11_MODULE(_native, module) {
    module.doc() = "The compiled part of minires.";
    module.def("build", &build, "How this module was compiled: compiler, C++ standard, processor.");
    minires::cpu::bind(module);
}
