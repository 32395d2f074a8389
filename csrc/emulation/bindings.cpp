// The emulator as Python sees it: `minires._emulation`.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <stdexcept>
#include <string>
#include <unordered_map>
#include <vector>

#include "launch.h"

namespace py = pybind11;

namespace {

union Argument {
    void* pointer;
    int integer;
    float single_;
    double double_;
};

const emulation::Kernel& find(const std::string& name) {
    static const auto by_name = [] {
        std::unordered_map<std::string, const emulation::Kernel*> map;
        for (const auto& kernel : emulation::kernels()) map[kernel.name] = &kernel;
        return map;
    }();
    const auto found = by_name.find(name);
    if (found == by_name.end()) throw py::key_error("no kernel is called '" + name + "'");
    return *found->second;
}

dim3 sizes(const std::vector<unsigned>& given) {
    dim3 result;
    if (given.empty() || given.size() > 3) throw py::value_error("grid and block must have one to three sizes");
    unsigned* all[] = {&result.x, &result.y, &result.z};
    for (size_t i = 0; i < given.size(); i++) *all[i] = given[i];
    return result;
}

// arguments: addresses for pointers, integers, floating numbers, as the kernel's signature says
void launch(const std::string& name, const std::vector<unsigned>& grid, const std::vector<unsigned>& block,
            const py::sequence& arguments, unsigned seed) {
    const emulation::Kernel& kernel = find(name);
    const std::string& signature = kernel.signature;
    if (arguments.size() != signature.size())
        throw py::type_error(name + " takes " + std::to_string(signature.size()) + " arguments, got " +
                             std::to_string(arguments.size()));
    std::vector<Argument> values(signature.size());
    std::vector<void*> addresses(signature.size());
    for (size_t i = 0; i < signature.size(); i++) {
        const py::object given = arguments[i];
        switch (signature[i]) {
            case 'p': values[i].pointer = reinterpret_cast<void*>(given.cast<uintptr_t>()); break;
            case 'i': values[i].integer = given.cast<int>(); break;
            case 'f': values[i].single_ = given.cast<float>(); break;
            default: values[i].double_ = given.cast<double>();
        }
        addresses[i] = &values[i];
    }
    const py::gil_scoped_release released;
    emulation::launch(kernel, sizes(grid), sizes(block), addresses.data(), seed);
}

}  // namespace

PYBIND11_MODULE(_emulation, module) {
    module.doc() = "csrc/cuda compiled for the CPU: every kernel, run thread by thread.";
    module.def("launch", &launch, py::arg("kernel"), py::arg("grid"), py::arg("block"), py::arg("arguments"),
               py::arg("seed") = 0u,
               "Runs a kernel; seed shuffles the order in which the threads of a block go on, 0 keeps it ascending.");
    module.def(
        "kernels",
        [] {
            py::dict all;
            for (const auto& kernel : emulation::kernels()) all[kernel.name] = kernel.signature;
            return all;
        },
        "Name -> signature, one letter an argument: p (pointer), i (int), f (float), d (double).");
}
