// The kernels that nvcc compiled, as Python sees them: `minires._ahead`, launched on a stream of the caller's.
#include <cuda_runtime_api.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <stdexcept>
#include <string>
#include <unordered_map>
#include <vector>

#include "../arguments.h"
#include "ahead.h"

namespace py = pybind11;

std::vector<ahead::Kernel>& ahead::kernels() {
    static std::vector<Kernel> all;
    return all;
}

namespace {

void launch(const std::string& name, const std::vector<unsigned>& grid, const std::vector<unsigned>& block,
            const py::sequence& arguments, std::uintptr_t stream) {
    static const auto by_name = [] {
        std::unordered_map<std::string, const ahead::Kernel*> map;
        for (const auto& kernel : ahead::kernels()) map[kernel.name] = &kernel;
        return map;
    }();
    const auto found = by_name.find(name);
    if (found == by_name.end()) throw py::key_error("no kernel is called '" + name + "'");
    KernelArguments values(name, found->second->signature, arguments);
    const cudaError_t error =
        cudaLaunchKernel(found->second->function, sizes_of<dim3>(grid), sizes_of<dim3>(block), values.addresses(), 0,
                         reinterpret_cast<cudaStream_t>(stream));
    if (error != cudaSuccess) throw std::runtime_error(name + ": " + cudaGetErrorString(error));
}

}  // namespace

PYBIND11_MODULE(_ahead, module) {
    module.doc() = "csrc/cuda compiled ahead of time by nvcc.";
    module.def("launch", &launch, py::arg("kernel"), py::arg("grid"), py::arg("block"), py::arg("arguments"),
               py::arg("stream"), "Launches a kernel on a stream (its address), and returns at once.");
    module.def(
        "kernels",
        [] {
            py::dict all;
            for (const auto& kernel : ahead::kernels()) all[kernel.name] = kernel.signature;
            return all;
        },
        "Name -> signature, one letter an argument: p (pointer), i (int), f (float), d (double).");
}
