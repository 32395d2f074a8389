// The kernels for one instruction set.  The build compiles this file with the flags of each instruction set and
//
// MINIRES_ISA            its name, an identifier
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

}  // namespace

namespace minires::cpu {
extern const InstructionSet MINIRES_ISA;
constexpr InstructionSet MINIRES_ISA{MINIRES_TEXT(MINIRES_ISA), kernels<float>(), kernels<double>()};
}  // namespace minires::cpu
