// NumPy's arrays at the border: what enters a kernel has been checked for dtype, order, alignment and shape.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "recording.h"

namespace minires::cpu {

using Shape = std::vector<long>;

inline std::string told(const Shape& shape) {
    std::string text = "(";
    for (size_t i = 0; i < shape.size(); i++) text += (i ? ", " : "") + std::to_string(shape[i]);
    return text + (shape.size() == 1 ? ",)" : ")");
}

inline Shape shape_of(const py::array& a) { return Shape(a.shape(), a.shape() + a.ndim()); }

// The sizes of an array that must have `axes` of them.
inline Shape sizes(const py::array& a, const char* name, size_t axes) {
    Shape shape = shape_of(a);
    if (shape.size() != axes)
        throw py::value_error(std::string(name) + " must have " + std::to_string(axes) + " axes, got shape " + told(shape));
    return shape;
}

// Whether `a` holds numbers of type T.  A dtype has many objects (one that was pickled is another), and names (long long).
template <typename T>
bool holds(const py::array& a) {
    return py::isinstance<py::array_t<T>>(a);
}

template <typename T>
void check(const py::array& a, const char* name, const Shape& shape) {
    if (!holds<T>(a))
        throw py::type_error(std::string(name) + " must have dtype " +
                             py::str(py::dtype::of<T>()).template cast<std::string>() + ", got " +
                             py::str(a.dtype()).template cast<std::string>());
    if (shape_of(a) != shape)
        throw py::value_error(std::string(name) + " must have shape " + told(shape) + ", got " + told(shape_of(a)));
    if (!(a.flags() & py::array::c_style) || reinterpret_cast<std::uintptr_t>(a.data()) % alignof(T) != 0)
        throw py::value_error(std::string(name) + " must lie without gaps, in C order and aligned");
}

// What a kernel reads.
template <typename T>
const T* in(const py::array& a, const char* name, const Shape& shape) {
    check<T>(a, name, shape);
    if (Recording* recording = Recording::current()) recording->reads(a);
    return static_cast<const T*>(a.data());
}

template <typename T>
const T* in(const std::optional<py::array>& a, const char* name, const Shape& shape) {
    return a ? in<T>(*a, name, shape) : nullptr;
}

// What a kernel writes.
template <typename T>
T* out(py::array& a, const char* name, const Shape& shape) {
    check<T>(a, name, shape);
    if (!a.writeable()) throw py::value_error(std::string(name) + " must be writable");
    if (Recording* recording = Recording::current()) recording->writes(a);
    return static_cast<T*>(a.mutable_data());
}

// body(number), where the type of the number is the dtype of `a`.
template <typename Body>
void with_dtype(const py::array& a, Body&& body) {
    if (holds<float>(a))
        body(float());
    else if (holds<double>(a))
        body(double());
    else
        throw py::type_error("the native kernels compute in float32 and float64, got " +
                             py::str(a.dtype()).cast<std::string>());
}

}  // namespace minires::cpu
