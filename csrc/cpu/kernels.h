// The table of kernels that every instruction set has.  isa.cpp compiles the kernels (*.h beside this file) once for each
// instruction set.  One is chosen at run time.
//
// All arrays are contiguous: images (N, H, W, C), weights (O, C/G, KH, KW).
#pragma once

namespace minires::cpu {

// A convolution: the sizes of its input, its filters and its output.
struct Conv2d {
    long N, C, H, W;
    long O, KH, KW;
    long OH, OW;
    long stride_h, stride_w, padding_h, padding_w, dilation_h, dilation_w, groups;
};

constexpr long LANES_OF_DIGEST = 128;

struct Pool2d {
    long N, H, W, C, OH, OW;
    long kernel_h, kernel_w, stride_h, stride_w, padding_h, padding_w, dilation_h, dilation_w;
};

// Averages over rectangles: output (h, w) is the sum of rows h_begin[h] … h_end[h] − 1 and columns
// w_begin[w] … w_end[w] − 1, divided by size[h · OW + w].
template <typename T>
struct Average2d {
    long N, H, W, C, OH, OW;
    const long *h_begin, *h_end, *w_begin, *w_end;
    const T* size;
};

// The epilogue of a sum, computed in registers:
//     y = relu((sum − mean) · scale + shift + added)
template <typename T>
struct Epilogue {
    const T *mean, *scale, *shift;  // a number for each column, or all null
    const T* added;                 // in the layout of y, or null
    bool relu;
};

template <typename T>
struct Kernels {
    // The filters of w, packed for conv2d_forward: the number of elements, the most elements that a training step holds
    // beside its arrays, and the packing itself
    long (*conv2d_filters_size)(const Conv2d&, bool winograd);
    long (*conv2d_working_size)(const Conv2d&, bool winograd);
    void (*conv2d_filters)(const Conv2d&, const T* w, T* filters, bool winograd);
    // y (N, OH, OW, O), bias (O) or null
    void (*conv2d_forward)(
        const Conv2d&, const T* x, const T* filters, const T* bias, const Epilogue<T>&, T* y, bool winograd);
    void (*conv2d_backward_input)(const Conv2d&, const T* grad_y, const T* w, T* grad_x, bool winograd);
    void (*conv2d_backward_weight)(const Conv2d&, const T* grad_y, const T* x, T* grad_w, bool winograd);

    // c (M, N) = a (M, K) · b, where b is (N, K) if `transposed`, otherwise (K, N); bias (N) or null
    void (*matmul)(long M, long N, long K, const T* a, const T* b, bool transposed, const T* bias, T* c);
    // c (M, N) = aᵀ · b, where a is (K, M) and b (K, N)
    void (*matmul_at)(long M, long N, long K, const T* a, const T* b, T* c);

    // P pixels of C channels
    void (*batch_norm_statistics)(long P, long C, const T* x, T* mean, T* var);
    void (*batch_norm_apply)(
        long P, long C, const T* x, const T* mean, const T* scale, const T* bias, const T* added, T* y, bool relu);
    void (*batch_norm_sums)(long P, long C, const T* g, const T* x, const T* mean, const T* scale, const T* bias,
        T* sum_g, T* sum_g_centred);
    void (*batch_norm_input)(long P, long C, const T* g, const T* x, const T* mean, const T* scale, const T* bias,
        bool relu, const T* mean_g, const T* slope, T* grad_x);

    void (*relu_forward)(long n, const T* x, T* y);
    void (*relu_backward)(long n, const T* g, const T* y, T* grad_x);
    void (*add)(long n, const T* a, const T* b, T* y, bool relu);
    void (*sum_pixels)(long P, long C, const T* g, T* sum);

    // argmax: the number of the tap, in a byte if the kernel has at most 256 taps; the other pointer is null
    void (*max_pool2d_forward)(const Pool2d&, const T* x, T* y, unsigned char* argmax, int* argmax_large);
    void (*max_pool2d_backward)(
        const Pool2d&, const T* grad_y, const unsigned char* argmax, const int* argmax_large, T* grad_x);
    void (*average2d_forward)(const Average2d<T>&, const T* x, T* y);
    void (*average2d_backward)(const Average2d<T>&, const T* grad_y, T* grad_x);

    // rows of C classes
    void (*softmax)(long rows, long C, const T* x, T* y, bool log);
    void (*softmax_backward)(long rows, long C, const T* g, const T* y, T* grad_x, bool log);
    void (*cross_entropy_forward)(long rows, long C, const T* x, const long* labels, T smoothing, T* log_p, T* loss);
    void (*cross_entropy_backward)(
        long rows, long C, const T* grad_loss, const T* log_p, const long* labels, T smoothing, T* grad_x);

    // LANES_OF_DIGEST numbers that detect a change of x
    void (*digest)(long n, const T* x, unsigned* to);

    void (*sgd_step)(long n, T* p, const T* g, T* v, T lr, T momentum, T weight_decay);
};

struct InstructionSet {
    const char* name;
    Kernels<float> f32;
    Kernels<double> f64;
};

// In descending order of speed, ending with null.  "portable" is always included.
const InstructionSet* const* instruction_sets();
bool supported(const InstructionSet&);  // on this processor

}  // namespace minires::cpu
