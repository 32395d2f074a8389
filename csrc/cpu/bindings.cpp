// The Python interface of the native backend's kernels.  All arrays are checked here, so that no kernel reads or writes
// outside of its arguments.
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

void expect(bool truth, const char* otherwise) {
    if (!truth) throw py::value_error(otherwise);
}

const Kernels<float>& kernels_of(const InstructionSet& set, float) { return set.f32; }
const Kernels<double>& kernels_of(const InstructionSet& set, double) { return set.f64; }

// A kernel of `set` as a function of a number, see `call`.
#define KERNEL(name) [&set](auto number) { return kernels_of(set, number).name; }

// x (N, H, W, C), w (O, C/groups, KH, KW), y (N, OH, OW, O)
Conv2d geometry(const Shape& x, const Shape& w, const Shape& y, Pair stride, Pair padding, Pair dilation, long groups) {
    const Conv2d c{x[0], x[3], x[1], x[2], w[0], w[2], w[3], y[1], y[2], stride[0], stride[1],
                   padding[0], padding[1], dilation[0], dilation[1], groups};
    expect(groups > 0 && x[3] == w[1] * groups && w[0] % groups == 0 && y[0] == x[0] && y[3] == w[0],
           "x must have shape (N, H, W, C), w (O, C/groups, KH, KW) and y (N, OH, OW, O)");
    expect(w[1] > 0 && w[2] > 0 && w[3] > 0, "w must have at least one channel and one tap");
    expect(stride[0] > 0 && stride[1] > 0 && dilation[0] > 0 && dilation[1] > 0 && padding[0] >= 0 && padding[1] >= 0,
           "stride and dilation must be at least 1, padding at least 0");
    for (int axis = 0; axis < 2; axis++) {
        const long reach = x[1 + axis] + 2 * padding[axis] - dilation[axis] * (w[2 + axis] - 1) - 1;
        expect(reach >= 0 && y[1 + axis] == reach / stride[axis] + 1, "y must have the size of a convolution of x with w");
    }
    return c;
}

Pool2d pooling(const Shape& x, const Shape& y, Pair kernel, Pair stride, Pair padding, Pair dilation) {
    expect(y[0] == x[0] && y[3] == x[3], "x must have shape (N, H, W, C) and y (N, OH, OW, C)");
    for (int axis = 0; axis < 2; axis++)
        expect(kernel[axis] > 0 && stride[axis] > 0 && dilation[axis] > 0 && padding[axis] >= 0,
               "kernel, stride and dilation must be at least 1, padding at least 0");
    return {x[0], x[1], x[2], x[3], y[1], y[2], kernel[0], kernel[1], stride[0], stride[1],
            padding[0], padding[1], dilation[0], dilation[1]};
}

// The choice of the algorithm depends on the shapes of x (N, H, W, C) and y.
template <bool WORKING>
py::ssize_t conv2d_size(const InstructionSet& set, Shape x, py::array w, Shape y, Pair stride, Pair padding,
                        Pair dilation, long groups, bool winograd) {
    expect(x.size() == 4 && y.size() == 4, "x and y must have four axes");
    const Conv2d c = geometry(x, sizes(w, "w", 4), y, stride, padding, dilation, groups);
    py::ssize_t size = 0;
    with_dtype(w, [&](auto number) {
        const auto& kernels = kernels_of(set, number);
        size = WORKING ? kernels.conv2d_working_size(c, winograd) : kernels.conv2d_filters_size(c, winograd);
    });
    return size;
}

void conv2d_filters(const InstructionSet& set, Shape x, py::array w, Shape y, py::array filters, Pair stride,
                    Pair padding, Pair dilation, long groups, bool winograd) {
    expect(x.size() == 4 && y.size() == 4, "x and y must have four axes");
    const Shape ws = sizes(w, "w", 4);
    const Conv2d c = geometry(x, ws, y, stride, padding, dilation, groups);
    const auto packed = [&](auto number) {
        return out(filters, "filters", {kernels_of(set, number).conv2d_filters_size(c, winograd)})(number);
    };
    call(w, KERNEL(conv2d_filters), c, in(w, "w", ws), packed, winograd);
}

// ws (O, C/groups, KH, KW): the shape of the weight that `filters` was packed from
void conv2d_forward(const InstructionSet& set, py::array x, Shape ws, py::array filters, Optional bias, Optional mean,
                    Optional scale, Optional shift, Optional added, bool relu, py::array y, Pair stride, Pair padding,
                    Pair dilation, long groups, bool winograd) {
    expect(ws.size() == 4, "w must have four axes");
    const Shape xs = sizes(x, "x", 4), ys = sizes(y, "y", 4), channels{ws[0]};
    const Conv2d c = geometry(xs, ws, ys, stride, padding, dilation, groups);
    expect(mean.has_value() == scale.has_value() && scale.has_value() == shift.has_value(),
           "mean, scale and shift must be given together");
    const auto packed = [&](auto number) {
        return in(filters, "filters", {kernels_of(set, number).conv2d_filters_size(c, winograd)})(number);
    };
    const auto epilogue = [&](auto number) {
        return Epilogue<decltype(number)>{in(mean, "mean", channels)(number), in(scale, "scale", channels)(number),
                                        in(shift, "shift", channels)(number), in(added, "added", ys)(number), relu};
    };
    call(x, KERNEL(conv2d_forward), c, in(x, "x", xs), packed, in(bias, "bias", channels), epilogue,
         out(y, "y", ys), winograd);
}

void conv2d_backward_input(const InstructionSet& set, py::array grad_y, py::array w, py::array grad_x, Pair stride,
                           Pair padding, Pair dilation, long groups, bool winograd) {
    const Shape xs = sizes(grad_x, "grad_x", 4), ws = sizes(w, "w", 4), ys = sizes(grad_y, "grad_y", 4);
    const Conv2d c = geometry(xs, ws, ys, stride, padding, dilation, groups);
    call(grad_y, KERNEL(conv2d_backward_input), c, in(grad_y, "grad_y", ys), in(w, "w", ws),
         out(grad_x, "grad_x", xs), winograd);
}

void conv2d_backward_weight(const InstructionSet& set, py::array grad_y, py::array x, py::array grad_w, Pair stride,
                            Pair padding, Pair dilation, long groups, bool winograd) {
    const Shape xs = sizes(x, "x", 4), ws = sizes(grad_w, "grad_w", 4), ys = sizes(grad_y, "grad_y", 4);
    const Conv2d c = geometry(xs, ws, ys, stride, padding, dilation, groups);
    call(x, KERNEL(conv2d_backward_weight), c, in(grad_y, "grad_y", ys), in(x, "x", xs),
         out(grad_w, "grad_w", ws), winograd);
}

void matmul(const InstructionSet& set, py::array a, py::array b, bool transposed, Optional bias, py::array c) {
    const Shape as = sizes(a, "a", 2), bs = sizes(b, "b", 2), cs{as[0], bs[transposed ? 0 : 1]};
    expect(as[1] == bs[transposed ? 1 : 0], "a and b must have the same number of terms");
    call(a, KERNEL(matmul), cs[0], cs[1], as[1], in(a, "a", as), in(b, "b", bs), transposed, in(bias, "bias", {cs[1]}),
         out(c, "c", cs));
}

void matmul_at(const InstructionSet& set, py::array a, py::array b, py::array c) {
    const Shape as = sizes(a, "a", 2), bs = sizes(b, "b", 2), cs{as[1], bs[1]};
    expect(as[0] == bs[0], "a and b must have the same number of rows");
    call(a, KERNEL(matmul_at), cs[0], cs[1], as[0], in(a, "a", as), in(b, "b", bs), out(c, "c", cs));
}

void batch_norm_statistics(const InstructionSet& set, py::array x, py::array mean, py::array var) {
    const Shape xs = sizes(x, "x", 2), channels{xs[1]};
    expect(xs[0] > 0, "x must hold at least one pixel");
    call(x, KERNEL(batch_norm_statistics), xs[0], xs[1], in(x, "x", xs), out(mean, "mean", channels),
         out(var, "var", channels));
}

void batch_norm_apply(const InstructionSet& set, py::array x, py::array mean, py::array scale, Optional bias,
                      Optional added, bool relu, py::array y) {
    const Shape xs = sizes(x, "x", 2), channels{xs[1]};
    call(x, KERNEL(batch_norm_apply), xs[0], xs[1], in(x, "x", xs), in(mean, "mean", channels),
         in(scale, "scale", channels), in(bias, "bias", channels), in(added, "added", xs), out(y, "y", xs), relu);
}

void batch_norm_sums(const InstructionSet& set, py::array g, py::array x, py::array mean, Optional scale, Optional bias,
                     py::array sum_g, py::array sum_g_centred) {
    const Shape xs = sizes(x, "x", 2), channels{xs[1]};
    call(x, KERNEL(batch_norm_sums), xs[0], xs[1], in(g, "g", xs), in(x, "x", xs), in(mean, "mean", channels),
         in(scale, "scale", channels), in(bias, "bias", channels), out(sum_g, "sum_g", channels),
         out(sum_g_centred, "sum_g_centred", channels));
}

void batch_norm_input(const InstructionSet& set, py::array g, py::array x, py::array mean, py::array scale, Optional bias,
                      bool relu, py::array mean_g, py::array slope, py::array grad_x) {
    const Shape xs = sizes(x, "x", 2), channels{xs[1]};
    call(x, KERNEL(batch_norm_input), xs[0], xs[1], in(g, "g", xs), in(x, "x", xs), in(mean, "mean", channels),
         in(scale, "scale", channels), in(bias, "bias", channels), relu, in(mean_g, "mean_g", channels),
         in(slope, "slope", channels), out(grad_x, "grad_x", xs));
}

void sum_pixels(const InstructionSet& set, py::array g, py::array sum) {
    const Shape gs = sizes(g, "g", 2);
    call(g, KERNEL(sum_pixels), gs[0], gs[1], in(g, "g", gs), out(sum, "sum", {gs[1]}));
}

void relu_forward(const InstructionSet& set, py::array x, py::array y) {
    const Shape xs = shape_of(x);
    call(x, KERNEL(relu_forward), x.size(), in(x, "x", xs), out(y, "y", xs));
}

void relu_backward(const InstructionSet& set, py::array g, py::array y, py::array grad_x) {
    const Shape ys = shape_of(y);
    call(y, KERNEL(relu_backward), y.size(), in(g, "g", ys), in(y, "y", ys), out(grad_x, "grad_x", ys));
}

void add(const InstructionSet& set, py::array a, py::array b, bool relu, py::array y) {
    const Shape as = shape_of(a);
    call(a, KERNEL(add), a.size(), in(a, "a", as), in(b, "b", as), out(y, "y", as), relu);
}

using Byte = unsigned char;

// argmax holds the number of a maximum's tap: a byte if all numbers fit, otherwise int32.
bool fits_byte(Pair kernel) { return kernel[0] * kernel[1] <= 256; }

void max_pool2d_forward(const InstructionSet& set, py::array x, py::array y, py::array argmax, Pair kernel, Pair stride,
                        Pair padding, Pair dilation) {
    const Shape xs = sizes(x, "x", 4), ys = sizes(y, "y", 4);
    const Pool2d s = pooling(xs, ys, kernel, stride, padding, dilation);
    const Optional given(argmax);
    const auto taps = out(given, "argmax", ys);
    call(x, KERNEL(max_pool2d_forward), s, in(x, "x", xs), out(y, "y", ys), fits_byte(kernel) ? taps(Byte()) : nullptr,
         fits_byte(kernel) ? nullptr : taps(int()));
}

void max_pool2d_backward(const InstructionSet& set, py::array grad_y, py::array argmax, py::array grad_x, Pair kernel,
                         Pair stride, Pair padding, Pair dilation) {
    const Shape xs = sizes(grad_x, "grad_x", 4), ys = sizes(grad_y, "grad_y", 4);
    const Pool2d s = pooling(xs, ys, kernel, stride, padding, dilation);
    const Optional given(argmax);
    const auto taps = in(given, "argmax", ys);
    call(grad_y, KERNEL(max_pool2d_backward), s, in(grad_y, "grad_y", ys), fits_byte(kernel) ? taps(Byte()) : nullptr,
         fits_byte(kernel) ? nullptr : taps(int()), out(grad_x, "grad_x", xs));
}

// rows and columns: begin and end of each rectangle; size (OH, OW): the divisors of the sums.  The result is a function
// of a number, see `call`.
auto averages(const Shape& x, const Shape& y, const std::array<py::array, 2>& rows,
              const std::array<py::array, 2>& columns, const py::array& size) {
    expect(y[0] == x[0] && y[3] == x[3], "x must have shape (N, H, W, C) and y (N, OH, OW, C)");
    return [&](auto number) {
        const auto edges = [](const py::array& a, const char* name, long n) { return in(a, name, {n})(long()); };
        const Average2d<decltype(number)> s{
            x[0], x[1], x[2], x[3], y[1], y[2], edges(rows[0], "rows", y[1]), edges(rows[1], "rows", y[1]),
            edges(columns[0], "columns", y[2]), edges(columns[1], "columns", y[2]), in(size, "size", {y[1], y[2]})(number)};
        for (long h = 0; h < s.OH; h++) expect(s.h_begin[h] >= 0 && s.h_end[h] <= s.H, "rows must lie inside of x");
        for (long w = 0; w < s.OW; w++) expect(s.w_begin[w] >= 0 && s.w_end[w] <= s.W, "columns must lie inside of x");
        return s;
    };
}

void average2d_forward(const InstructionSet& set, py::array x, py::array y, std::array<py::array, 2> rows,
                       std::array<py::array, 2> columns, py::array size) {
    const Shape xs = sizes(x, "x", 4), ys = sizes(y, "y", 4);
    call(x, KERNEL(average2d_forward), averages(xs, ys, rows, columns, size), in(x, "x", xs), out(y, "y", ys));
}

void average2d_backward(const InstructionSet& set, py::array grad_y, py::array grad_x, std::array<py::array, 2> rows,
                        std::array<py::array, 2> columns, py::array size) {
    const Shape xs = sizes(grad_x, "grad_x", 4), ys = sizes(grad_y, "grad_y", 4);
    call(grad_y, KERNEL(average2d_backward), averages(xs, ys, rows, columns, size), in(grad_y, "grad_y", ys),
         out(grad_x, "grad_x", xs));
}

void softmax(const InstructionSet& set, py::array x, bool log, py::array y) {
    const Shape xs = sizes(x, "x", 2);
    call(x, KERNEL(softmax), xs[0], xs[1], in(x, "x", xs), out(y, "y", xs), log);
}

void softmax_backward(const InstructionSet& set, py::array g, py::array y, bool log, py::array grad_x) {
    const Shape ys = sizes(y, "y", 2);
    call(y, KERNEL(softmax_backward), ys[0], ys[1], in(g, "g", ys), in(y, "y", ys), out(grad_x, "grad_x", ys), log);
}

// `kernel` after a check of the labels, for every launch: a replay reads other labels than the recorded call.
template <typename Kernel>
auto checking_labels(const long* labels, long rows, long C, const Kernel& kernel) {
    return [=](auto number) {
        return [=, kernel = kernel(number)](auto... arguments) {
            for (long r = 0; r < rows; r++) expect(labels[r] >= 0 && labels[r] < C, "labels must lie in [0, C)");
            kernel(arguments...);
        };
    };
}

void cross_entropy_forward(const InstructionSet& set, py::array x, py::array labels, double smoothing, py::array log_p,
                           py::array loss) {
    const Shape xs = sizes(x, "x", 2);
    const long* given = in(labels, "labels", {xs[0]})(long());
    call(x, checking_labels(given, xs[0], xs[1], KERNEL(cross_entropy_forward)), xs[0], xs[1], in(x, "x", xs), given,
         smoothing, out(log_p, "log_p", xs), out(loss, "loss", {xs[0]}));
}

void cross_entropy_backward(const InstructionSet& set, py::array grad_loss, py::array log_p, py::array labels,
                            double smoothing, py::array grad_x) {
    const Shape xs = sizes(log_p, "log_p", 2);
    const long* given = in(labels, "labels", {xs[0]})(long());
    call(log_p, checking_labels(given, xs[0], xs[1], KERNEL(cross_entropy_backward)), xs[0], xs[1],
         in(grad_loss, "grad_loss", {xs[0]}), in(log_p, "log_p", xs), given, smoothing, out(grad_x, "grad_x", xs));
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
        kernels_of(set, number).digest(n, px, lanes);
    });
    return py::bytes(reinterpret_cast<const char*>(lanes), sizeof lanes);
}

// lr: a number, or an array () of one, which every launch reads again
void sgd_step(const InstructionSet& set, py::array p, py::array g, py::array v, py::object lr, double momentum,
              double weight_decay) {
    const Shape shape = shape_of(p);
    const double* cell = py::isinstance<py::array>(lr) ? in(py::array(lr), "lr", {})(double()) : nullptr;
    const double rate = cell ? 0 : lr.cast<double>();
    const auto kernel = [&](auto number) {
        return [=, kernel = kernels_of(set, number).sgd_step](long n, auto* p, auto* g, auto* v) {
            kernel(n, p, g, v, cell ? *cell : rate, momentum, weight_decay);
        };
    };
    call(p, kernel, p.size(), out(p, "p", shape), in(g, "g", shape), out(v, "v", shape));
}

}  // namespace

void bind(py::module_& module) {
    py::class_<InstructionSet>(module, "InstructionSet",
                               "The kernels compiled for one instruction set.  They write into arrays of the caller: "
                               "images (N, H, W, C), pixels (P, C), rows (rows, classes).")
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
        "Name -> InstructionSet, or None if this processor lacks it.  The fastest comes first.");
    module.def("set_num_threads", &threads::set_count, "Sets the number of threads of the kernels, including the caller.");
    module.def("get_num_threads", &threads::count);
    bind_memory(module);
    bind_vectors(module);
    bind_recording(module);
}

}  // namespace minires::cpu
