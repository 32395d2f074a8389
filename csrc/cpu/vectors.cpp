// Small operations between the kernels: copies between memory orders, and arithmetic on one number per channel.
//
// Compiled once and without contraction (cpu.cmake), so that the bits are those of the same NumPy expression.
#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "arrays.h"
#include "bindings.h"
#include "threads.h"

namespace minires::cpu {
namespace {

struct Axis {
    long size, to, from;  // to, from: strides in bytes
};

// The axes in `to`'s memory order.  Axes that are contiguous in both arrays are joined.
std::vector<Axis> joined_axes(const py::array& to, const py::array& from) {
    std::vector<Axis> axes, joined;
    for (py::ssize_t i = 0; i < to.ndim(); i++)
        if (to.shape(i) != 1) axes.push_back({to.shape(i), to.strides(i), from.strides(i)});
    std::stable_sort(axes.begin(), axes.end(), [](const Axis& a, const Axis& b) { return std::abs(a.to) > std::abs(b.to); });
    for (const Axis& axis : axes) {
        if (!joined.empty() && joined.back().to == axis.size * axis.to && joined.back().from == axis.size * axis.from)
            joined.back() = {joined.back().size * axis.size, axis.to, axis.from};
        else
            joined.push_back(axis);
    }
    return joined;
}

template <typename Item>
void copy_row(char* to, const char* from, const Axis& axis) {
    if (axis.to == sizeof(Item) && axis.from == sizeof(Item)) {
        std::memcpy(to, from, axis.size * sizeof(Item));
        return;
    }
    for (long i = 0; i < axis.size; i++)  // memcpy, because the memory may be misaligned
        std::memcpy(to + i * axis.to, from + i * axis.from, sizeof(Item));
}

// Copies row by row along the last axis.  Each task copies some rows.
template <typename Item>
void copy_axes(char* to, const char* from, const std::vector<Axis>& axes) {
    constexpr long NUMBERS = 16384;  // in a task
    const Axis row = axes.empty() ? Axis{1, 0, 0} : axes.back();
    long rows = 1;
    for (std::size_t i = 0; i + 1 < axes.size(); i++) rows *= axes[i].size;
    const long step = std::max(NUMBERS / std::max(row.size, 1L), 1L);
    threads::for_each((rows + step - 1) / step, [&](long task) {
        for (long number = task * step; number < std::min((task + 1) * step, rows); number++) {
            char* t = to;
            const char* f = from;
            long rest = number;
            for (std::size_t i = axes.empty() ? 0 : axes.size() - 1; i-- > 0;) {
                t += rest % axes[i].size * axes[i].to, f += rest % axes[i].size * axes[i].from;
                rest /= axes[i].size;
            }
            copy_row<Item>(t, f, row);
        }
    });
}

// Copies `from` to `to`: equal shapes and dtypes, any strides, no shared memory.
void copy(py::array to, py::array from) {
    if (shape_of(to) != shape_of(from) || to.itemsize() != from.itemsize() || to.dtype().kind() != from.dtype().kind())
        throw py::value_error("to and from must have the same shape and dtype");
    if (std::string("biuf").find(to.dtype().kind()) == std::string::npos)
        throw py::type_error("to and from must hold booleans, integers or floating numbers");
    if (!to.writeable()) throw py::value_error("to must be writable");
    if (Recording* recording = Recording::current()) recording->reads(from), recording->writes(to);
    if (to.size() == 0) return;
    const auto axes = joined_axes(to, from);
    char* t = static_cast<char*>(to.mutable_data());
    const char* f = static_cast<const char*>(from.data());
    switch (to.itemsize()) {
        case 1: launch([=] { copy_axes<std::uint8_t>(t, f, axes); }); break;
        case 2: launch([=] { copy_axes<std::uint16_t>(t, f, axes); }); break;
        case 4: launch([=] { copy_axes<std::uint32_t>(t, f, axes); }); break;
        case 8: launch([=] { copy_axes<std::uint64_t>(t, f, axes); }); break;
        default: throw py::type_error("items must have 1, 2, 4 or 8 bytes");
    }
}

void fill(py::array to, double value) {
    call(to, [value](long n, auto* to) { std::fill_n(to, n, std::decay_t<decltype(*to)>(value)); }, to.size(),
         out(to, "to", shape_of(to)));
}

// y = a · b, element by element
void multiply(py::array a, py::array b, py::array y) {
    const Shape shape = shape_of(a);
    const auto kernel = [](long n, auto* a, auto* b, auto* y) {
        for (long i = 0; i < n; i++) y[i] = a[i] * b[i];
    };
    call(a, kernel, a.size(), in(a, "a", shape), in(b, "b", shape), out(y, "y", shape));
}

// The pairwise sum of x
template <typename T>
T sum_by_halves(const T* x, long n) {
    if (n <= 64) {
        T sum = 0;
        for (long i = 0; i < n; i++) sum += x[i];
        return sum;
    }
    return sum_by_halves(x, n / 2) + sum_by_halves(x + n / 2, n - n / 2);
}

void mean(py::array x, py::array y) {
    const auto kernel = [](long n, auto* x, auto* y) {
        *y = sum_by_halves(x, n) / std::decay_t<decltype(*y)>(n);
    };
    call(x, kernel, x.size(), in(x, "x", shape_of(x)), out(y, "y", {}));
}

// inv_std = 1 / √(var + eps),  scale = inv_std · weight, (C,) each
void norm_constants(py::array var, double eps, Optional weight, py::array inv_std, Optional scale) {
    const Shape channels = shape_of(var);
    const auto kernel = [eps](long C, auto* v, auto* w, auto* i, auto* s) {
        using T = std::decay_t<decltype(*i)>;
        for (long c = 0; c < C; c++) i[c] = T(1) / std::sqrt(v[c] + T(eps));
        if (w && s)
            for (long c = 0; c < C; c++) s[c] = i[c] * w[c];
    };
    call(var, kernel, var.size(), in(var, "var", channels), in(weight, "weight", channels),
         out(inv_std, "inv_std", channels), out(scale, "scale", channels));
}

// grad_weight = centred · inv_std,  mean_g = sum_g / P,  slope = inv_std · grad_weight / P, (C,) each
void norm_slopes(py::array sum_g, py::array centred, py::array inv_std, long P, py::array grad_weight, py::array mean_g,
                 py::array slope) {
    const Shape channels = shape_of(sum_g);
    const auto kernel = [P](long C, auto* g, auto* d, auto* i, auto* w, auto* m, auto* k) {
        using T = std::decay_t<decltype(*w)>;
        for (long c = 0; c < C; c++) {
            w[c] = d[c] * i[c];
            m[c] = g[c] / T(P);
            k[c] = i[c] * w[c] / T(P);
        }
    };
    call(sum_g, kernel, sum_g.size(), in(sum_g, "sum_g", channels), in(centred, "centred", channels),
         in(inv_std, "inv_std", channels), out(grad_weight, "grad_weight", channels), out(mean_g, "mean_g", channels),
         out(slope, "slope", channels));
}

// running += momentum · (to · correction − running), (C,) each
void move_statistic(py::array running, py::array to, double momentum, double correction) {
    const Shape channels = shape_of(running);
    const auto kernel = [=](long C, auto* t, auto* r) {
        using T = std::decay_t<decltype(*r)>;
        for (long c = 0; c < C; c++) r[c] += T(momentum) * (t[c] * T(correction) - r[c]);
    };
    call(running, kernel, running.size(), in(to, "to", channels), out(running, "running", channels));
}

}  // namespace

void bind_vectors(py::module_& module) {
    module.def("copy", &copy, py::arg("to"), py::arg("from_"), "Copies between any strides.");
    module.def("fill", &fill);
    module.def("multiply", &multiply);
    module.def("mean", &mean);
    module.def("norm_constants", &norm_constants);
    module.def("norm_slopes", &norm_slopes);
    module.def("move_statistic", &move_statistic);
}

}  // namespace minires::cpu
