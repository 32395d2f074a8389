// What the modules of compiled CUDA kernels share: finding a kernel, and converting Python's arguments to the kernel's.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <string>
#include <vector>

// The kernel of that name in a table.
template <class Kernel>
const Kernel& find_kernel(const std::vector<Kernel>& kernels, const std::string& name) {
    for (const Kernel& kernel : kernels)
        if (kernel.name == name) return kernel;
    throw pybind11::key_error("no kernel is called '" + name + "'");
}

// Binds `kernels()` to a module: the signatures of a table.
template <class Kernel>
void bind_signatures(pybind11::module_& module, const std::vector<Kernel>& kernels) {
    module.def(
        "kernels",
        [&kernels] {
            pybind11::dict all;
            for (const Kernel& kernel : kernels) all[kernel.name] = kernel.signature;
            return all;
        },
        "Name -> signature, one letter for each argument: p (pointer), i (int), f (float), d (double).");
}

class KernelArguments {
public:
    // Raises TypeError if the number or the types differ from the signature (signature.h).  Pointers are passed as integers.
    KernelArguments(const std::string& name, const std::string& signature, const pybind11::sequence& given)
        : values_(signature.size()), addresses_(signature.size()) {
        if (given.size() != signature.size())
            throw pybind11::type_error(name + " takes " + std::to_string(signature.size()) + " arguments, got " +
                                       std::to_string(given.size()));
        for (size_t i = 0; i < signature.size(); i++) {
            const pybind11::object argument = given[i];
            Value& value = values_[i];
            switch (signature[i]) {
                case 'p': value.pointer = argument.cast<std::uintptr_t>(); break;
                case 'i': value.integer = argument.cast<int>(); break;
                case 'f': value.of_float = argument.cast<float>(); break;
                default: value.of_double = argument.cast<double>();
            }
            addresses_[i] = &value;
        }
    }

    // The address of each argument, as for cuLaunchKernel.
    void** addresses() { return addresses_.data(); }

private:
    union Value {
        std::uintptr_t pointer;
        int integer;
        float of_float;
        double of_double;
    };
    std::vector<Value> values_;
    std::vector<void*> addresses_;
};

// A dim3 of one to three sizes.  Missing sizes are 1.
template <class Dim3>
Dim3 sizes_of(const std::vector<unsigned>& given) {
    if (given.empty() || given.size() > 3) throw pybind11::value_error("grid and block must have one to three sizes");
    Dim3 result;
    result.x = given[0];
    result.y = given.size() > 1 ? given[1] : 1;
    result.z = given.size() > 2 ? given[2] : 1;
    return result;
}
