// From Python's arguments to those of a kernel: addresses for pointers, integers, floating numbers.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <string>
#include <vector>

class KernelArguments {
public:
    // Raises TypeError when number or types are not those of the signature (csrc/signature.h).
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

    // The address of each argument, as cuLaunchKernel takes them.
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

// One to three sizes; the missing ones are 1.
template <class Dim3>
Dim3 sizes_of(const std::vector<unsigned>& given) {
    if (given.empty() || given.size() > 3) throw pybind11::value_error("grid and block must have one to three sizes");
    Dim3 result;
    result.x = given[0];
    result.y = given.size() > 1 ? given[1] : 1;
    result.z = given.size() > 2 ? given[2] : 1;
    return result;
}
