// The Python module `minires._emulation`: the emulator.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string>
#include <vector>

#include "../arguments.h"
#include "launch.h"

namespace py = pybind11;

namespace {

void launch(const std::string& name, const std::vector<unsigned>& grid, const std::vector<unsigned>& block,
            const py::sequence& arguments, unsigned seed) {
    const emulation::Kernel& kernel = find_kernel(emulation::kernels(), name);
    KernelArguments values(name, kernel.signature, arguments);
    const dim3 blocks = sizes_of<dim3>(grid), threads = sizes_of<dim3>(block);
    const py::gil_scoped_release released;
    emulation::launch(kernel, blocks, threads, values.addresses(), seed);
}

}  // namespace

PYBIND11_MODULE(_emulation, module) {
    module.doc() = "The kernels of csrc/cuda compiled for the CPU, run thread by thread.";
    module.def("launch", &launch, py::arg("kernel"), py::arg("grid"), py::arg("block"), py::arg("arguments"),
               py::arg("seed") = 0u,
               "Runs a kernel.  A seed other than 0 shuffles the order in which the threads of a block run.");
    bind_signatures(module, emulation::kernels());
}
