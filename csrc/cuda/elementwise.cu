// ReLU, the skip-add and the update of the weights, one pass over memory each.
//
// Technique   a grid-stride loop: neighbouring threads access neighbouring elements.
// Limit       memory bandwidth.
#include "common.cuh"

#define FOR_EACH(i, n)                                                             \
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < (n); \
         i += (long long)gridDim.x * blockDim.x)

// y = max(x, 0); NaN stays NaN
KERNEL(relu_forward)(const real* x, real* y, int n) {
    FOR_EACH(i, n) y[i] = x[i] <= 0 ? 0 : x[i];
}

// The gradient passes where y is positive.
KERNEL(relu_backward)(const real* grad, const real* y, real* grad_x, int n) {
    FOR_EACH(i, n) grad_x[i] = y[i] > 0 ? grad[i] : 0;
}

// y = a + b, or max(a + b, 0) if relu = 1
KERNEL(add_forward)(const real* a, const real* b, real* y, int n, int relu) {
    FOR_EACH(i, n) {
        const real sum = a[i] + b[i];
        y[i] = relu && sum <= 0 ? 0 : sum;
    }
}

// One step of SGD with momentum for all parameters at once.  A chunk is up to `chunk` neighbours of one parameter: `owner`
// holds the parameter's number, and `start` the first element.  blockIdx.x loops over the chunks.
//
//   g ← g + weight_decay · p,  v ← momentum · v + g (first: v ← g),  p ← p − lr · v
//
// rate points to lr: a CUDA graph fixes numbers that are passed by value, and lr changes between its launches.
KERNEL(sgd_step)(real* const* params, const real* const* grads, real* const* velocities, const int* sizes,
                 const int* owner, const int* start, int chunks, int chunk, const double* rate, real momentum,
                 real weight_decay, int first) {
    const real lr = real(*rate);
    for (int number = blockIdx.x; number < chunks; number += gridDim.x) {
        const int which = owner[number], end = min(start[number] + chunk, sizes[which]);
        real *p = params[which], *v = velocities[which];
        const real* g = grads[which];
        for (int i = start[number] + threadIdx.x; i < end; i += blockDim.x) {
            const real step = g[i] + weight_decay * p[i];
            const real velocity = first ? step : momentum * v[i] + step;
            v[i] = velocity;
            p[i] -= lr * velocity;
        }
    }
}

#undef FOR_EACH
