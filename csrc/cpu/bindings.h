#pragma once

#include <pybind11/pybind11.h>

namespace minires::cpu {

// Adds InstructionSet, the threads and the memory of the native backend to `module`.
void bind(pybind11::module_& module);
void bind_memory(pybind11::module_& module);
void bind_vectors(pybind11::module_& module);

}  // namespace minires::cpu
