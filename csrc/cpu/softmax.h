// Softmax, its logarithm and the cross-entropy, row by row.
#pragma once

#include <math.h>

#include "simd.h"
#include "threads.h"

namespace {

// C functions by type, because std::exp and std::log are inline (simd.h).
inline float exponential(float x) { return expf(x); }
inline double exponential(double x) { return exp(x); }
inline float logarithm(float x) { return logf(x); }
inline double logarithm(double x) { return log(x); }

// Subtracts the maximum first, so that exp cannot overflow.  A NaN makes its row NaN.
// The sum of a row is double, because a float sum of ones stops at 2^24.
template <typename T>
inline void softmax_row(long C, const T* x, T* y, bool log) {
    T top = x[0];
    for (long c = 1; c < C; c++) top = !(x[c] <= top) ? x[c] : top;
    double sum = 0;
    for (long c = 0; c < C; c++) {
        const T e = exponential(x[c] - top);
        sum += e;
        y[c] = log ? x[c] - top : e;
    }
    const T whole = T(log ? logarithm(sum) : sum);
    for (long c = 0; c < C; c++) y[c] = log ? y[c] - whole : y[c] / whole;
}

template <typename T>
void softmax(long rows, long C, const T* x, T* y, bool log) {
    if (C > 0) for_each(rows, [=](long r) { softmax_row(C, x + r * C, y + r * C, log); });
}

// softmax: y · (g − Σ g·y);  its logarithm: g − exp(y) · Σ g
template <typename T>
void softmax_backward(long rows, long C, const T* g, const T* y, T* grad_x, bool log) {
    for_each(rows, [=](long r) {
        double total = 0;
        for (long c = r * C; c < (r + 1) * C; c++) total += log ? g[c] : g[c] * y[c];
        const T sum = T(total);
        for (long c = r * C; c < (r + 1) * C; c++)
            grad_x[c] = log ? g[c] - exponential(y[c]) * sum : y[c] * (g[c] - sum);
    });
}

// The target is 1 − s + s/C for the label and s/C for the other classes (s = smoothing).
template <typename T>
void cross_entropy_forward(long rows, long C, const T* x, const long* labels, T smoothing, T* log_p, T* loss) {
    for_each(rows, [=](long r) {
        T* p = log_p + r * C;
        softmax_row(C, x + r * C, p, true);
        loss[r] = -p[labels[r]];
        if (smoothing == T(0)) return;
        double sum = 0;
        for (long c = 0; c < C; c++) sum += p[c];
        loss[r] = -(T(1) - smoothing) * p[labels[r]] - smoothing * T(sum / double(C));
    });
}

template <typename T>
void cross_entropy_backward(
    long rows, long C, const T* grad_loss, const T* log_p, const long* labels, T smoothing, T* grad_x) {
    for_each(rows, [=](long r) {
        const T each = smoothing / T(C);
        for (long c = 0; c < C; c++) {
            const T target = each + (c == labels[r] ? T(1) - smoothing : T(0));
            grad_x[r * C + c] = (exponential(log_p[r * C + c]) - target) * grad_loss[r];
        }
    });
}

}  // namespace
