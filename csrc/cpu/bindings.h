#pragma once

#include <pybind11/pybind11.h>

namespace minires::cpu {

// Adds the native backend to `module`: InstructionSet, threads, memory, arithmetic between kernels, recordings.
void bind(pybind11::module_& module);
void bind_memory(pybind11::module_& module);
void bind_vectors(pybind11::module_& module);

}  // namespace minires::cpu
