// The kernels of the native backend as Python sees them.  Arrays are checked here; what passes cannot lead a kernel
// outside of them.
#include "bindings.h"

#include <pybind11/stl.h>

#include <array>

#include "arrays.h"
#include "kernels.h"
#include "recording.h"
#include "threads.h"

namespace minires::cpu {
namespace {

using Pair = std::array<long, 2>;
using Optional = std::optional<py::array>;

void expect(bool truth, const char* otherwise) {
    if (!truth) throw py::value_error(otherwise);
}

long pixels(const Shape& shape) {  // of (…, C)
    long count = 1;
    for (size_t i = 0; i + 1 < shape.size(); i++) count *= shape[i];
    return count;
}

long numbers(const Shape& shape) { return pixels(shape) * shape.back(); }

template <typename T>
const Kernels<T>& of(const InstructionSet& set) {
    if constexpr (std::is_same_v<T, float>) return set.f32;
    else return set.f64;
}

// x (N, H, W, C), w (O, C/groups, KH, KW), y (N, OH, OW, O)
Conv2d geometry(const Shape& x, const Shape& w, const Shape& y, Pair stride, Pair padding, Pair dilation, long groups) {
    const Conv2d c{x[0], x[3], x[1], x[2], w[0], w[2], w[3], y[1], y[2], stride[0], stride[1],
                   padding[0], padding[1], dilation[0], dilation[1], groups};
    expect(groups > 0 && x[3] == w[1] * groups && w[0] % groups == 0 && y[0] == x[0] && y[3] == w[0],
           "x (N, H, W, C), w (O, C/groups, KH, KW) and y (N, OH, OW, O) must fit one another");
    expect(w[1] > 0 && w[2] > 0 && w[3] > 0, "w must have at least one channel and one tap");
    expect(stride[0] > 0 && stride[1] > 0 && dilation[0] > 0 && dilation[1] > 0 && padding[0] >= 0 && padding[1] >= 0,
           "stride and dilation must be at least 1, padding at least 0");
    for (int axis = 0; axis < 2; axis++) {
        const long reach = x[1 + axis] + 2 * padding[axis] - dilation[axis] * (w[2 + axis] - 1) - 1;
        expect(reach >= 0 && y[1 + axis] == reach / stride[axis] + 1, "y has not the size of a convolution of x with w");
    }
    return c;
}

Pool2d pooling(const Shape& x, const Shape& y, Pair kernel, Pair stride, Pair padding, Pair dilation) {
    expect(y[0] == x[0] && y[3] == x[3], "x (N, H, W, C) and y (N, OH, OW, C) must fit one another");
    for (int axis = 0; axis < 2; axis++)
        expect(kernel[axis] > 0 && stride[axis] > 0 && dilation[axis] > 0 && padding[axis] >= 0,
               "kernel, stride and dilation must be at least 1, padding at least 0");
    return {x[0], x[1], x[2], x[3], y[1], y[2], kernel[0], kernel[1], stride[0], stride[1],
            padding[0], padding[1], dilation[0], dilation[1]};
}

// x (N, H, W, C) and y by their shapes, for the choice of the algorithm
template <bool WORKING>
py::ssize_t conv2d_size(const InstructionSet& set, Shape x, py::array w, Shape y, Pair stride, Pair padding,
                        Pair dilation, long groups, bool winograd) {
    expect(x.size() == 4 && y.size() == 4, "x and y must have four axes");
    const Conv2d c = geometry(x, sizes(w, "w", 4), y, stride, padding, dilation, groups);
    py::ssize_t size = 0;
    with_dtype(w, [&](auto number) {
        const auto& kernels = of<decltype(number)>(set);
        size = WORKING ? kernels.conv2d_working_size(c, winograd) : kernels.conv2d_filters_size(c, winograd);
    });
    return size;
}

void conv2d_filters(const InstructionSet& set, Shape x, py::array w, Shape y, py::array filters, Pair stride,
                    Pair padding, Pair dilation, long groups, bool winograd) {
    expect(x.size() == 4 && y.size() == 4, "x and y must have four axes");
    const Shape ws = sizes(w, "w", 4);
    const Conv2d c = geometry(x, ws, y, stride, padding, dilation, groups);
    with_dtype(w, [&](auto number) {
        using T = decltype(number);
        const T* pw = in<T>(w, "w", ws);
        T* to = out<T>(filters, "filters", {of<T>(set).conv2d_filters_size(c, winograd)});
        launch([=, kernel = of<T>(set).conv2d_filters] { kernel(c, pw, to, winograd); });
    });
}

// w (O, C/groups, KH, KW) by its shape; its numbers are read from `filters`
void conv2d_forward(const InstructionSet& set, py::array x, Shape ws, py::array filters, Optional bias, Optional mean,
                    Optional scale, Optional shift, Optional added, bool relu, py::array y, Pair stride, Pair padding, Pair dilation,
                    long groups, bool winograd) {
    expect(ws.size() == 4, "w must have four axes");
    const Shape xs = sizes(x, "x", 4), ys = sizes(y, "y", 4), channels{ws[0]};
    const Conv2d c = geometry(xs, ws, ys, stride, padding, dilation, groups);
    expect(mean.has_value() == scale.has_value() && scale.has_value() == shift.has_value(),
           "mean, scale and shift must be given together");
    with_dtype(x, [&](auto number) {
        using T = decltype(number);
        const T *px = in<T>(x, "x", xs), *pb = in<T>(bias, "bias", channels),
                *pw = in<T>(filters, "filters", {of<T>(set).conv2d_filters_size(c, winograd)});
        const Finish<T> finish{in<T>(mean, "mean", channels), in<T>(scale, "scale", channels),
                               in<T>(shift, "shift", channels), in<T>(added, "added", ys), relu};
        T* py_ = out<T>(y, "y", ys);
        launch([=, kernel = of<T>(set).conv2d_forward] { kernel(c, px, pw, pb, finish, py_, winograd); });
    });
}

void conv2d_backward_input(const InstructionSet& set, py::array grad_y, py::array w, py::array grad_x, Pair stride,
                           Pair padding, Pair dilation, long groups, bool winograd) {
    const Shape xs = sizes(grad_x, "grad_x", 4), ws = sizes(w, "w", 4), ys = sizes(grad_y, "grad_y", 4);
    const Conv2d c = geometry(xs, ws, ys, stride, padding, dilation, groups);
    with_dtype(grad_y, [&](auto number) {
        using T = decltype(number);
        const T *pg = in<T>(grad_y, "grad_y", ys), *pw = in<T>(w, "w", ws);
        T* px = out<T>(grad_x, "grad_x", xs);
        launch([=, kernel = of<T>(set).conv2d_backward_input] { kernel(c, pg, pw, px, winograd); });
    });
}

void conv2d_backward_weight(const InstructionSet& set, py::array grad_y, py::array x, py::array grad_w, Pair stride,
                            Pair padding, Pair dilation, long groups, bool winograd) {
    const Shape xs = sizes(x, "x", 4), ws = sizes(grad_w, "grad_w", 4), ys = sizes(grad_y, "grad_y", 4);
    const Conv2d c = geometry(xs, ws, ys, stride, padding, dilation, groups);
    with_dtype(x, [&](auto number) {
        using T = decltype(number);
        const T *pg = in<T>(grad_y, "grad_y", ys), *px = in<T>(x, "x", xs);
        T* pw = out<T>(grad_w, "grad_w", ws);
        launch([=, kernel = of<T>(set).conv2d_backward_weight] { kernel(c, pg, px, pw, winograd); });
    });
}

void matmul(const InstructionSet& set, py::array a, py::array b, bool transposed, Optional bias, py::array c) {
    const Shape as = sizes(a, "a", 2), bs = sizes(b, "b", 2), cs{as[0], bs[transposed ? 0 : 1]};
    expect(as[1] == bs[transposed ? 1 : 0], "a and b must have the same number of terms");
    with_dtype(a, [&](auto number) {
        using T = decltype(number);
        const T *pa = in<T>(a, "a", as), *pb = in<T>(b, "b", bs), *start = in<T>(bias, "bias", {cs[1]});
        T* pc = out<T>(c, "c", cs);
        launch([=, kernel = of<T>(set).matmul] { kernel(cs[0], cs[1], as[1], pa, pb, transposed, start, pc); });
    });
}

void matmul_at(const InstructionSet& set, py::array a, py::array b, py::array c) {
    const Shape as = sizes(a, "a", 2), bs = sizes(b, "b", 2), cs{as[1], bs[1]};
    expect(as[0] == bs[0], "a and b must have the same number of rows");
    with_dtype(a, [&](auto number) {
        using T = decltype(number);
        const T *pa = in<T>(a, "a", as), *pb = in<T>(b, "b", bs);
        T* pc = out<T>(c, "c", cs);
        launch([=, kernel = of<T>(set).matmul_at] { kernel(cs[0], cs[1], as[0], pa, pb, pc); });
    });
}

void batch_norm_statistics(const InstructionSet& set, py::array x, py::array mean, py::array var) {
    const Shape xs = sizes(x, "x", 2), channels{xs[1]};
    expect(xs[0] > 0, "x must hold at least one pixel");
    with_dtype(x, [&](auto number) {
        using T = decltype(number);
        const T* px = in<T>(x, "x", xs);
        T *pm = out<T>(mean, "mean", channels), *pv = out<T>(var, "var", channels);
        launch([=, kernel = of<T>(set).batch_norm_statistics] { kernel(xs[0], xs[1], px, pm, pv); });
    });
}

void batch_norm_apply(const InstructionSet& set, py::array x, py::array mean, py::array scale, Optional bias,
                      Optional added, bool relu, py::array y) {
    const Shape xs = sizes(x, "x", 2), channels{xs[1]};
    with_dtype(x, [&](auto number) {
        using T = decltype(number);
        const T *px = in<T>(x, "x", xs), *pm = in<T>(mean, "mean", channels), *ps = in<T>(scale, "scale", channels),
                *pb = in<T>(bias, "bias", channels), *pa = in<T>(added, "added", xs);
        T* to = out<T>(y, "y", xs);
        launch([=, kernel = of<T>(set).batch_norm_apply] { kernel(xs[0], xs[1], px, pm, ps, pb, pa, to, relu); });
    });
}

void batch_norm_sums(const InstructionSet& set, py::array g, py::array x, py::array mean, Optional scale, Optional bias,
                     py::array sum_g, py::array sum_g_centred) {
    const Shape xs = sizes(x, "x", 2), channels{xs[1]};
    with_dtype(x, [&](auto number) {
        using T = decltype(number);
        const T *pg = in<T>(g, "g", xs), *px = in<T>(x, "x", xs), *pm = in<T>(mean, "mean", channels),
                *ps = in<T>(scale, "scale", channels), *pb = in<T>(bias, "bias", channels);
        T *first = out<T>(sum_g, "sum_g", channels), *second = out<T>(sum_g_centred, "sum_g_centred", channels);
        launch([=, kernel = of<T>(set).batch_norm_sums] { kernel(xs[0], xs[1], pg, px, pm, ps, pb, first, second); });
    });
}

void batch_norm_input(const InstructionSet& set, py::array g, py::array x, py::array mean, py::array scale, Optional bias,
                      bool relu, py::array mean_g, py::array slope, py::array grad_x) {
    const Shape xs = sizes(x, "x", 2), channels{xs[1]};
    with_dtype(x, [&](auto number) {
        using T = decltype(number);
        const T *pg = in<T>(g, "g", xs), *px = in<T>(x, "x", xs), *pm = in<T>(mean, "mean", channels),
                *ps = in<T>(scale, "scale", channels), *pb = in<T>(bias, "bias", channels),
                *po = in<T>(mean_g, "mean_g", channels), *pk = in<T>(slope, "slope", channels);
        T* to = out<T>(grad_x, "grad_x", xs);
        launch([=, kernel = of<T>(set).batch_norm_input] { kernel(xs[0], xs[1], pg, px, pm, ps, pb, relu, po, pk, to); });
    });
}

void sum_pixels(const InstructionSet& set, py::array g, py::array sum) {
    const Shape gs = sizes(g, "g", 2);
    with_dtype(g, [&](auto number) {
        using T = decltype(number);
        const T* pg = in<T>(g, "g", gs);
        T* to = out<T>(sum, "sum", {gs[1]});
        launch([=, kernel = of<T>(set).sum_pixels] { kernel(gs[0], gs[1], pg, to); });
    });
}

void relu_forward(const InstructionSet& set, py::array x, py::array y) {
    const Shape xs = shape_of(x);
    with_dtype(x, [&](auto number) {
        using T = decltype(number);
        const T* px = in<T>(x, "x", xs);
        T* to = out<T>(y, "y", xs);
        const long n = x.size();
        launch([=, kernel = of<T>(set).relu_forward] { kernel(n, px, to); });
    });
}

void relu_backward(const InstructionSet& set, py::array g, py::array y, py::array grad_x) {
    const Shape ys = shape_of(y);
    with_dtype(y, [&](auto number) {
        using T = decltype(number);
        const T *pg = in<T>(g, "g", ys), *passed = in<T>(y, "y", ys);
        T* to = out<T>(grad_x, "grad_x", ys);
        const long n = y.size();
        launch([=, kernel = of<T>(set).relu_backward] { kernel(n, pg, passed, to); });
    });
}

void add(const InstructionSet& set, py::array a, py::array b, bool relu, py::array y) {
    const Shape as = shape_of(a);
    with_dtype(a, [&](auto number) {
        using T = decltype(number);
        const T *pa = in<T>(a, "a", as), *pb = in<T>(b, "b", as);
        T* to = out<T>(y, "y", as);
        const long n = a.size();
        launch([=, kernel = of<T>(set).add] { kernel(n, pa, pb, to, relu); });
    });
}

// The number of a maximum's tap fits a byte, or else `argmax` has dtype int32.
bool fits_byte(Pair kernel) { return kernel[0] * kernel[1] <= 256; }

void max_pool2d_forward(const InstructionSet& set, py::array x, py::array y, py::array argmax, Pair kernel, Pair stride,
                        Pair padding, Pair dilation) {
    const Shape xs = sizes(x, "x", 4), ys = sizes(y, "y", 4);
    const Pool2d s = pooling(xs, ys, kernel, stride, padding, dilation);
    unsigned char* small = fits_byte(kernel) ? out<unsigned char>(argmax, "argmax", ys) : nullptr;
    int* large = fits_byte(kernel) ? nullptr : out<int>(argmax, "argmax", ys);
    with_dtype(x, [&](auto number) {
        using T = decltype(number);
        const T* px = in<T>(x, "x", xs);
        T* to = out<T>(y, "y", ys);
        launch([=, kernel = of<T>(set).max_pool2d_forward] { kernel(s, px, to, small, large); });
    });
}

void max_pool2d_backward(const InstructionSet& set, py::array grad_y, py::array argmax, py::array grad_x, Pair kernel,
                         Pair stride, Pair padding, Pair dilation) {
    const Shape xs = sizes(grad_x, "grad_x", 4), ys = sizes(grad_y, "grad_y", 4);
    const Pool2d s = pooling(xs, ys, kernel, stride, padding, dilation);
    const unsigned char* small = fits_byte(kernel) ? in<unsigned char>(argmax, "argmax", ys) : nullptr;
    const int* large = fits_byte(kernel) ? nullptr : in<int>(argmax, "argmax", ys);
    with_dtype(grad_y, [&](auto number) {
        using T = decltype(number);
        const T* pg = in<T>(grad_y, "grad_y", ys);
        T* to = out<T>(grad_x, "grad_x", xs);
        launch([=, kernel = of<T>(set).max_pool2d_backward] { kernel(s, pg, small, large, to); });
    });
}

// `rows` and `columns`: begin and end of each rectangle; size (OH, OW): what its sum is divided by.
template <typename T>
Average2d<T> averages(const Shape& x, const Shape& y, const std::array<py::array, 2>& rows,
                      const std::array<py::array, 2>& columns, const py::array& size) {
    expect(y[0] == x[0] && y[3] == x[3], "x (N, H, W, C) and y (N, OH, OW, C) must fit one another");
    const Average2d<T> s{x[0], x[1], x[2], x[3], y[1], y[2],
                         in<long>(rows[0], "rows", {y[1]}), in<long>(rows[1], "rows", {y[1]}),
                         in<long>(columns[0], "columns", {y[2]}), in<long>(columns[1], "columns", {y[2]}),
                         in<T>(size, "size", {y[1], y[2]})};
    for (long h = 0; h < s.OH; h++) expect(s.h_begin[h] >= 0 && s.h_end[h] <= s.H, "rows must lie inside of x");
    for (long w = 0; w < s.OW; w++) expect(s.w_begin[w] >= 0 && s.w_end[w] <= s.W, "columns must lie inside of x");
    return s;
}

void average2d_forward(const InstructionSet& set, py::array x, py::array y, std::array<py::array, 2> rows,
                       std::array<py::array, 2> columns, py::array size) {
    const Shape xs = sizes(x, "x", 4), ys = sizes(y, "y", 4);
    with_dtype(x, [&](auto number) {
        using T = decltype(number);
        const Average2d<T> s = averages<T>(xs, ys, rows, columns, size);
        const T* px = in<T>(x, "x", xs);
        T* to = out<T>(y, "y", ys);
        launch([=, kernel = of<T>(set).average2d_forward] { kernel(s, px, to); });
    });
}

void average2d_backward(const InstructionSet& set, py::array grad_y, py::array grad_x, std::array<py::array, 2> rows,
                        std::array<py::array, 2> columns, py::array size) {
    const Shape xs = sizes(grad_x, "grad_x", 4), ys = sizes(grad_y, "grad_y", 4);
    with_dtype(grad_y, [&](auto number) {
        using T = decltype(number);
        const Average2d<T> s = averages<T>(xs, ys, rows, columns, size);
        const T* pg = in<T>(grad_y, "grad_y", ys);
        T* to = out<T>(grad_x, "grad_x", xs);
        launch([=, kernel = of<T>(set).average2d_backward] { kernel(s, pg, to); });
    });
}

void softmax(const InstructionSet& set, py::array x, bool log, py::array y) {
    const Shape xs = sizes(x, "x", 2);
    with_dtype(x, [&](auto number) {
        using T = decltype(number);
        const T* px = in<T>(x, "x", xs);
        T* to = out<T>(y, "y", xs);
        launch([=, kernel = of<T>(set).softmax] { kernel(xs[0], xs[1], px, to, log); });
    });
}

void softmax_backward(const InstructionSet& set, py::array g, py::array y, bool log, py::array grad_x) {
    const Shape ys = sizes(y, "y", 2);
    with_dtype(y, [&](auto number) {
        using T = decltype(number);
        const T *pg = in<T>(g, "g", ys), *from = in<T>(y, "y", ys);
        T* to = out<T>(grad_x, "grad_x", ys);
        launch([=, kernel = of<T>(set).softmax_backward] { kernel(ys[0], ys[1], pg, from, to, log); });
    });
}

// Checked at every launch: a replay reads other labels.
void check_labels(const long* labels, long rows, long C) {
    for (long r = 0; r < rows; r++) expect(labels[r] >= 0 && labels[r] < C, "labels must lie in [0, C)");
}

void cross_entropy_forward(const InstructionSet& set, py::array x, py::array labels, double smoothing, py::array log_p,
                           py::array loss) {
    const Shape xs = sizes(x, "x", 2);
    const long* given = in<long>(labels, "labels", {xs[0]});
    with_dtype(x, [&](auto number) {
        using T = decltype(number);
        const T* px = in<T>(x, "x", xs);
        T *to = out<T>(log_p, "log_p", xs), *losses = out<T>(loss, "loss", {xs[0]});
        launch([=, kernel = of<T>(set).cross_entropy_forward] {
            check_labels(given, xs[0], xs[1]);
            kernel(xs[0], xs[1], px, given, T(smoothing), to, losses);
        });
    });
}

void cross_entropy_backward(const InstructionSet& set, py::array grad_loss, py::array log_p, py::array labels,
                            double smoothing, py::array grad_x) {
    const Shape xs = sizes(log_p, "log_p", 2);
    const long* given = in<long>(labels, "labels", {xs[0]});
    with_dtype(log_p, [&](auto number) {
        using T = decltype(number);
        const T *pg = in<T>(grad_loss, "grad_loss", {xs[0]}), *from = in<T>(log_p, "log_p", xs);
        T* to = out<T>(grad_x, "grad_x", xs);
        launch([=, kernel = of<T>(set).cross_entropy_backward] {
            check_labels(given, xs[0], xs[1]);
            kernel(xs[0], xs[1], pg, from, given, T(smoothing), to);
        });
    });
}

py::bytes digest(const InstructionSet& set, py::array x) {
    const Shape xs = shape_of(x);
    unsigned lanes[LANES_OF_DIGEST];
    with_dtype(x, [&](auto number) {
        using T = decltype(number);
        check<T>(x, "x", xs);
        const T* px = static_cast<const T*>(x.data());
        const long n = x.size();
        const Released released;
        of<T>(set).digest(n, px, lanes);
    });
    return py::bytes(reinterpret_cast<const char*>(lanes), sizeof lanes);
}

// lr: a number, or an array () of one, which a replay reads anew
void sgd_step(const InstructionSet& set, py::array p, py::array g, py::array v, py::object lr, double momentum,
              double weight_decay) {
    const Shape shape = shape_of(p);
    const double* cell = py::isinstance<py::array>(lr) ? in<double>(py::array(lr), "lr", {}) : nullptr;
    const double rate = cell ? 0 : lr.cast<double>();
    with_dtype(p, [&](auto number) {
        using T = decltype(number);
        const T* pg = in<T>(g, "g", shape);
        T *pp = out<T>(p, "p", shape), *pv = out<T>(v, "v", shape);
        const long n = p.size();
        launch([=, kernel = of<T>(set).sgd_step] {
            kernel(n, pp, pg, pv, T(cell ? *cell : rate), T(momentum), T(weight_decay));
        });
    });
}

}  // namespace

void bind(py::module_& module) {
    py::class_<InstructionSet>(module, "InstructionSet",
                               "The kernels compiled for one instruction set.  Each writes into arrays it is given; "
                               "images lie (N, H, W, C), pixels (P, C), rows (rows, classes).")
        .def_property_readonly("name", [](const InstructionSet& set) { return set.name; })
        .def("conv2d_filters_size", &conv2d_size<false>)
        .def("conv2d_working_size", &conv2d_size<true>)
        .def("conv2d_filters", &conv2d_filters)
        .def("conv2d_forward", &conv2d_forward)
        .def("conv2d_backward_input", &conv2d_backward_input)
        .def("conv2d_backward_weight", &conv2d_backward_weight)
        .def("matmul", &matmul)
        .def("matmul_at", &matmul_at)
        .def("batch_norm_statistics", &batch_norm_statistics)
        .def("batch_norm_apply", &batch_norm_apply)
        .def("batch_norm_sums", &batch_norm_sums)
        .def("batch_norm_input", &batch_norm_input)
        .def("sum_pixels", &sum_pixels)
        .def("relu_forward", &relu_forward)
        .def("relu_backward", &relu_backward)
        .def("add", &add)
        .def("max_pool2d_forward", &max_pool2d_forward)
        .def("max_pool2d_backward", &max_pool2d_backward)
        .def("average2d_forward", &average2d_forward)
        .def("average2d_backward", &average2d_backward)
        .def("softmax", &softmax)
        .def("softmax_backward", &softmax_backward)
        .def("cross_entropy_forward", &cross_entropy_forward)
        .def("cross_entropy_backward", &cross_entropy_backward)
        .def("digest", &digest)
        .def("sgd_step", &sgd_step);
    module.def(
        "instruction_sets",
        [] {
            py::dict all;
            for (auto set = instruction_sets(); *set; set++)
                all[(*set)->name] = supported(**set)
                                        ? py::cast(*set, py::return_value_policy::reference)
                                        : py::object(py::none());
            return all;
        },
        "Name -> InstructionSet, None where this processor lacks it; the best first.");
    module.def("set_num_threads", &threads::set, "How many threads the kernels use from now on, the caller included.");
    module.def("get_num_threads", &threads::get);
    bind_memory(module);
    bind_vectors(module);
    bind_recording(module);
}

}  // namespace minires::cpu
