// The Python module `minires._ahead`: kernels compiled by nvcc, launched on the caller's stream.
#include <cuda_runtime_api.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <stdexcept>
#include <string>
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
    const ahead::Kernel& kernel = find_kernel(ahead::kernels(), name);
    KernelArguments values(name, kernel.signature, arguments);
    const cudaError_t error =
        cudaLaunchKernel(kernel.function, sizes_of<dim3>(grid), sizes_of<dim3>(block), values.addresses(), 0,
                         reinterpret_cast<cudaStream_t>(stream));
    if (error != cudaSuccess) throw std::runtime_error(name + ": " + cudaGetErrorString(error));
}

}  // namespace

PYBIND11_MODULE(_ahead, module) {
    module.doc() = "csrc/cuda compiled ahead of time by nvcc.";
    module.def("launch", &launch, py::arg("kernel"), py::arg("grid"), py::arg("block"), py::arg("arguments"),
               py::arg("stream"), "Launches a kernel on a stream, given by its address.  Returns immediately.");
    bind_signatures(module, ahead::kernels());
}
