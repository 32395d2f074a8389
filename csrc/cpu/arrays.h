// NumPy arrays as the arguments of kernels.  Their dtype, shape, order and alignment are checked here.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <optional>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "recording.h"

namespace minires::cpu {

using Shape = std::vector<long>;
using Optional = std::optional<py::array>;

inline std::string to_string(const Shape& shape) {
    std::string text = "(";
    for (size_t i = 0; i < shape.size(); i++) text += (i ? ", " : "") + std::to_string(shape[i]);
    return text + (shape.size() == 1 ? ",)" : ")");
}

inline Shape shape_of(const py::array& a) { return Shape(a.shape(), a.shape() + a.ndim()); }

// The shape of an array that must have `axes` axes.
inline Shape sizes(const py::array& a, const char* name, size_t axes) {
    Shape shape = shape_of(a);
    if (shape.size() != axes)
        throw py::value_error(std::string(name) + " must have " + std::to_string(axes) + " axes, got shape " +
                              to_string(shape));
    return shape;
}

// Whether `a` holds numbers of type T.  Different dtype objects may describe the same type (pickling makes a new one,
// and long long is another name of int64), so they are compared by equivalence.
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
        throw py::value_error(std::string(name) + " must have shape " + to_string(shape) + ", got " +
                              to_string(shape_of(a)));
    if (!(a.flags() & py::array::c_style) || reinterpret_cast<std::uintptr_t>(a.data()) % alignof(T) != 0)
        throw py::value_error(std::string(name) + " must be C-contiguous and aligned");
}

// An input of a kernel: a function that checks `a` and returns its address as const T*, where T is the type of the
// function's argument.  An absent array becomes null.
inline auto in(const Optional& a, const char* name, const Shape& shape) {
    return [&a, name, &shape](auto number) -> const decltype(number)* {
        using T = decltype(number);
        if (!a) return nullptr;
        check<T>(*a, name, shape);
        if (Recording* recording = Recording::current()) recording->reads(*a);
        return static_cast<const T*>(a->data());
    };
}

// An output of a kernel, like `in`: returns T*.
inline auto out(const Optional& a, const char* name, const Shape& shape) {
    return [&a, name, &shape](auto number) -> decltype(number)* {
        using T = decltype(number);
        if (!a) return nullptr;
        check<T>(*a, name, shape);
        if (!a->writeable()) throw py::value_error(std::string(name) + " must be writable");
        if (Recording* recording = Recording::current()) recording->writes(*a);
        return static_cast<T*>(py::array(*a).mutable_data());
    };
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

// argument(number) if the argument depends on the dtype, otherwise the argument itself.
template <typename Argument, typename T>
auto resolve(const Argument& argument, T number) {
    if constexpr (std::is_invocable_v<const Argument&, T>)
        return argument(number);
    else
        return argument;
}

// Launches kernel(arguments…) for the dtype of `a`.  The kernel and each argument may be functions of a number of that
// dtype, like `in` and `out`.
template <typename Kernel, typename... Arguments>
void call(const py::array& a, const Kernel& kernel, const Arguments&... arguments) {
    with_dtype(a, [&](auto number) {
        launch([kernel = resolve(kernel, number), values = std::tuple{resolve(arguments, number)...}] {
            std::apply(kernel, values);
        });
    });
}

}  // namespace minires::cpu
