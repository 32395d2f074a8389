// The kernels for one instruction set.  The build compiles this file once for each, with the compiler's flags for it and
//
// MINIRES_ISA            its name, a word
// MINIRES_VECTOR_BYTES   see simd.h
// MINIRES_TILE_ROWS
#include "kernels.h"

#include <type_traits>

#include "batch_norm.h"
#include "conv2d.h"
#include "digest.h"
#include "elementwise.h"
#include "pool.h"
#include "softmax.h"

#define MINIRES_TEXT_(word) #word
#define MINIRES_TEXT(word) MINIRES_TEXT_(word)

namespace {

template <typename T>
constexpr minires::cpu::Kernels<T> kernels() {
    return {
        conv2d_filters_size<T>, conv2d_working_size<T>, conv2d_filters<T>, conv2d_forward<T>, conv2d_backward_input<T>, conv2d_backward_weight<T>,
        matmul<T>, matmul_at<T>,
        batch_norm_statistics<T>, batch_norm_apply<T>, batch_norm_sums<T>, batch_norm_input<T>,
        relu_forward<T>, relu_backward<T>, add<T>, sum_pixels<T>,
        max_pool2d_forward<T>, max_pool2d_backward<T>, average2d_forward<T>, average2d_backward<T>,
        softmax<T>, softmax_backward<T>, cross_entropy_forward<T>, cross_entropy_backward<T>,
        digest<T>, sgd_step<T>,
    };
}

#define MINIRES_IS(word) (__builtin_strcmp(MINIRES_TEXT(MINIRES_ISA), word) == 0)

bool supported() {
#if defined(__x86_64__)
    if (MINIRES_IS("avx512")) return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                                     __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
    if (MINIRES_IS("avx2")) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
    return true;
}

}  // namespace

namespace minires::cpu {
extern const InstructionSet MINIRES_ISA;
const InstructionSet MINIRES_ISA{MINIRES_TEXT(MINIRES_ISA), supported, kernels<float>(), kernels<double>()};
}  // namespace minires::cpu
