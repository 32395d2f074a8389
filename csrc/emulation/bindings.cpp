// The emulator as Python sees it: `minires._emulation`.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string>
#include <unordered_map>
#include <vector>

#include "../arguments.h"
#include "launch.h"

namespace py = pybind11;

namespace {

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

void launch(const std::string& name, const std::vector<unsigned>& grid, const std::vector<unsigned>& block,
            const py::sequence& arguments, unsigned seed) {
    const emulation::Kernel& kernel = find(name);
    KernelArguments values(name, kernel.signature, arguments);
    const dim3 blocks = sizes_of<dim3>(grid), threads = sizes_of<dim3>(block);
    const py::gil_scoped_release released;
    emulation::launch(kernel, blocks, threads, values.addresses(), seed);
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
