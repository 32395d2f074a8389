// ReLU, the skip-add and the update of the weights, one pass over memory each.
#pragma once

#include "simd.h"
#include "threads.h"

namespace {

constexpr long PIECE = 32768;  // numbers in a task

template <typename Body>
MINIRES_INLINE void pieces(long n, Body&& body) {
    for_each(ceil_div(n, PIECE), [&](long i) { body(i * PIECE, min((i + 1) * PIECE, n)); });
}

template <typename T>
void relu_forward(long n, const T* x, T* y) {
    pieces(n, [=](long i, long end) {
        for (; i + LANES<T> <= end; i += LANES<T>) {
            const Vec<T> v = load(x + i);
            store(y + i, rectified(v));
        }
        for (; i < end; i++) y[i] = rectified(x[i]);
    });
}

template <typename T>
void relu_backward(long n, const T* g, const T* y, T* grad_x) {
    const bool streams = may_stream(grad_x, n, 0);
    pieces(n, [=](long i, long end) {
        for (; i + LANES<T> <= end; i += LANES<T>) {
            const Vec<T> v = load(y + i) > T(0) ? load(g + i) : Vec<T>{};
            streams ? stream(grad_x + i, v) : store(grad_x + i, v);
        }
        if (streams) stream_fence();
        for (; i < end; i++) grad_x[i] = y[i] > T(0) ? g[i] : T(0);
    });
}

template <typename T>
void add(long n, const T* a, const T* b, T* y, bool relu) {
    pieces(n, [=](long i, long end) {
        for (; i + LANES<T> <= end; i += LANES<T>) {
            const Vec<T> v = load(a + i) + load(b + i);
            store(y + i, relu ? rectified(v) : v);
        }
        for (; i < end; i++) {
            const T v = a[i] + b[i];
            y[i] = relu ? rectified(v) : v;
        }
    });
}

// v ← momentum · v + g + weight_decay · p,  p ← p − lr · v
template <typename T>
void sgd_step(long n, T* p, const T* g, T* v, T lr, T momentum, T weight_decay) {
    pieces(n, [=](long i, long end) {
        for (; i < end; i++) {
            v[i] = momentum * v[i] + (g[i] + weight_decay * p[i]);
            p[i] -= lr * v[i];
        }
    });
}

}  // namespace
