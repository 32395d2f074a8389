"""Properties that finite differences cannot check: ties, kinks, running statistics, extreme values.

Each function checks one property of one operation and raises AssertionError.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from functools import partial

import numpy as np

import minires.functional as F
from minires import random
from minires.arrays import Array
from minires.parallel import Communicator, sync_batch_norm
from minires.tensor import Tensor
from minires.verify.ranks import in_turns

Property = Callable[[np.random.Generator], None]


def expect(truth: bool, otherwise: str) -> None:
    if not truth:
        raise AssertionError(otherwise)


def gradient(output: Tensor, x: Tensor, cotangent: Array) -> Array:
    output.backward(cotangent)
    if x.grad is None:
        raise AssertionError("the input got no gradient")
    return x.grad


def close(a: Array, b: Array) -> bool:
    """Whether arrays are equal up to the rounding of a few float64 operations on numbers of order 1."""
    return a.shape == b.shape and bool(np.allclose(a, b, rtol=1e-12, atol=1e-12))


def relu_is_flat_at_zero(rng: np.random.Generator) -> None:
    x = Tensor(np.array([-0.0, 0.0, -1.0, 2.0]), requires_grad=True)
    grad = gradient(F.relu(x), x, np.full(4, 3.0))
    expect(np.array_equal(grad, [0, 0, 0, 3]), f"the derivative of relu at 0 must be 0, the gradient is {grad}")


def relu_keeps_nan(rng: np.random.Generator) -> None:
    expect(bool(np.isnan(F.relu(Tensor(np.array([np.nan, 1.0]))).data[0])), "relu(NaN) must be NaN")


def relu_of_special_values(rng: np.random.Generator) -> None:
    """±∞, both zeros, the smallest numbers and NaN, each at every place of a SIMD vector and of the remainder loop."""
    special = np.array([-np.inf, -1, -5e-324, -0.0, 0.0, 5e-324, 1, np.inf, np.nan])
    for k in range(len(special)):
        x = np.roll(np.resize(special, 41), k)
        tensor = Tensor(x, requires_grad=True)
        y = F.relu(tensor)
        cotangent = np.asarray(rng.standard_normal(x.shape))
        grad = gradient(y, tensor, cotangent)
        expect(np.array_equal(y.data, np.where(x <= 0, 0, x), equal_nan=True), "relu must be max(x, 0), and keep NaN")
        expect(np.array_equal(grad, np.where(x > 0, cotangent, 0)), "relu must pass the gradient only where x > 0")


def max_pool_of_special_values(rng: np.random.Generator) -> None:
    """Windows with −∞ only, with ties of ±∞ or of both zeros, or with several NaN.

    The first NaN wins, otherwise the first maximum.
    """
    choices = np.array([-np.inf, -1, -0.0, 0.0, 1, np.inf, np.nan])
    for kernel, stride, padding, dilation in ((3, 2, 1, 1), (2, 1, 1, 2), (3, 1, 1, 1), (2, 3, 0, 1)):
        for kinds in (1, 3, 5, 7):  # x holds only the first `kinds` choices
            N, C, H, W = 1, 67, 5, 6
            x = rng.choice(choices[:kinds], (N, C, H, W))
            tensor = Tensor(x, requires_grad=True)
            y = F.max_pool2d(tensor, kernel, stride, padding, dilation)
            cotangent, expected, grad = rng.standard_normal(y.shape), np.empty(y.shape), np.zeros(x.shape)
            for i, j in np.ndindex(*y.shape[2:]):
                rows, columns = (start * stride - padding + dilation * np.arange(kernel) for start in (i, j))
                rows, columns = rows[(rows >= 0) & (rows < H)], columns[(columns >= 0) & (columns < W)]
                window = x[0][:, rows[:, None], columns].reshape(C, -1)
                place = window.argmax(1)  # the first maximum, or the first NaN
                expected[0, :, i, j] = window[np.arange(C), place]
                row, column = rows[place // len(columns)], columns[place % len(columns)]
                grad[0, np.arange(C), row, column] += cotangent[0, :, i, j]
            given = f"for {kernel=} {stride=} {padding=} {dilation=}, x among {choices[:kinds]}"
            expect(np.array_equal(y.data, expected, equal_nan=True), f"the windows' maxima are wrong {given}")
            expect(close(gradient(y, tensor, cotangent), grad), f"the gradient misses the first maximum {given}")


def first_of_equal_maxima(rng: np.random.Generator) -> None:
    x = Tensor(np.full((1, 1, 3, 4), 7.0), requires_grad=True)
    cotangent = rng.standard_normal((1, 1, 1, 2))
    grad = gradient(F.max_pool2d(x, (3, 2)), x, cotangent)
    expected = np.zeros((1, 1, 3, 4))
    expected[0, 0, 0, ::2] = cotangent[0, 0, 0]
    expect(np.array_equal(grad, expected), "only the first of equal maxima must receive the gradient")


def overlapping_windows_add_up(rng: np.random.Generator) -> None:
    x = Tensor(np.zeros((1, 1, 1, 4)), requires_grad=True)
    x.data[..., 1] = 1  # the maximum of both windows that contain it
    grad = gradient(F.max_pool2d(x, (1, 2), 1), x, np.array([[[[2.0, 3.0, 5.0]]]]))
    expect(np.array_equal(grad, [[[[0, 5, 5, 0]]]]), f"the gradients of overlapping windows must add up, got {grad}")


def padding_never_wins(rng: np.random.Generator) -> None:
    x = -1 - rng.random((1, 2, 3, 5))
    y = F.max_pool2d(Tensor(x), 3, 2, 1).data
    expect(bool((y < 0).all()), "the padding of max_pool2d must be smaller than every number")


def nan_wins_a_window(rng: np.random.Generator) -> None:
    for where in range(4):
        x = rng.standard_normal((1, 1, 2, 2))
        x.flat[where] = np.nan
        tensor = Tensor(x, requires_grad=True)
        y = F.max_pool2d(tensor, 2)
        expect(bool(np.isnan(y.data).all()), "the maximum of a window with NaN must be NaN")
        grad = gradient(y, tensor, np.ones((1, 1, 1, 1)))
        expect(bool(grad.flat[where] == 1), "the gradient of a window with NaN must go to the NaN")


def running_statistics(rng: np.random.Generator) -> None:
    """new = (1 − momentum) · old + momentum · batch statistic, with the unbiased variance.

    The output uses the batch's statistics.
    """
    x = rng.standard_normal((3, 2, 1, 2)) * 3 + 5
    mean, var = rng.standard_normal(2), rng.uniform(1, 2, 2)
    expected_mean, expected_var = mean.copy(), var.copy()
    momentum = 0.3
    for c in range(2):
        values = [float(v) for v in x[:, c].ravel()]
        batch_mean = math.fsum(values) / 6
        unbiased = math.fsum((v - batch_mean) ** 2 for v in values) / 5
        expected_mean[c] = 0.7 * mean[c] + momentum * batch_mean
        expected_var[c] = 0.7 * var[c] + momentum * unbiased
    y = F.batch_norm(Tensor(x), mean, var, training=True, momentum=momentum)
    expect(close(mean, expected_mean), f"running_mean must become {expected_mean}, is {mean}")
    expect(close(var, expected_var), f"running_var must become {expected_var} (unbiased), is {var}")
    alone = F.batch_norm(Tensor(x), None, None, training=True)
    expect(close(y.data, alone.data), "in training the output must not depend on the running statistics")


def running_statistics_rest_in_evaluation(rng: np.random.Generator) -> None:
    mean, var = rng.standard_normal(2), rng.uniform(1, 2, 2)
    kept = mean.copy(), var.copy()
    x = Tensor(rng.standard_normal((3, 2, 4)), requires_grad=True)
    y = F.batch_norm(x, mean, var)
    expect(close(mean, kept[0]) and close(var, kept[1]), "evaluation must leave the running statistics alone")
    cotangent = rng.standard_normal(y.shape)
    var *= 100  # the statistics change before backward
    expected = cotangent / np.sqrt(kept[1] + 1e-5)[:, None]
    expect(close(gradient(y, x, cotangent), expected), "backward must use the statistics that forward used")


def ranks_share_a_batch(rng: np.random.Generator) -> None:
    """Three ranks with one, two and three images compute the same as batch norm of all six images."""
    edges = (0, 1, 3, 6)
    x, cotangent = rng.standard_normal((6, 2)) * 3 + 5, rng.standard_normal((6, 2))
    weight, bias, mean, var = rng.uniform(1, 2, (4, 2))

    def batch_norm(part: slice, ranks: Communicator | None = None) -> tuple[Array, ...]:
        tensors = [Tensor(array, requires_grad=True) for array in (x[part], weight, bias)]
        images, gamma, beta = tensors
        moved = mean.copy(), var.copy()
        function = F.batch_norm if ranks is None else partial(sync_batch_norm, ranks)
        y = function(images, *moved, gamma, beta, training=True, momentum=0.3)
        y.backward(cotangent[part])
        return (y.data, *(tensor.grad for tensor in tensors), *moved)

    expected = batch_norm(slice(6))
    found = in_turns(3, lambda ranks: batch_norm(slice(*edges[ranks.rank : ranks.rank + 2]), ranks))
    y, grad_x, grad_weight, grad_bias, *moved = zip(*found, strict=True)
    together = np.concatenate(y), np.concatenate(grad_x), sum(grad_weight), sum(grad_bias)
    names = "outputs", "gradients of x", "summed gradients of weight", "summed gradients of bias"
    for what, ours, theirs in zip(names, together, expected[:4], strict=True):
        expect(close(ours, theirs), f"the ranks' {what} must be the whole batch's {theirs}, are {ours}")
    for what, of_ranks, theirs in zip(("running_mean", "running_var"), moved, expected[4:], strict=True):
        for ours in of_ranks:
            expect(close(ours, theirs), f"every rank's {what} must become the whole batch's {theirs}, is {ours}")


def dropout_draws_anew(rng: np.random.Generator) -> None:
    random.manual_seed(int(rng.integers(1000)))
    x = Tensor(np.ones(64))
    first, second = F.dropout(x, 0.5).data, F.dropout(x, 0.5).data
    expect(not np.array_equal(first, second), "two calls of dropout must draw two masks")
    expect(bool((np.isin(first, [0.0, 2.0])).all()), "dropout(1, p=0.5) must be 0 or 2")


def dropout_keeps_the_expectation(rng: np.random.Generator) -> None:
    random.manual_seed(int(rng.integers(1000)))
    n, p = 100_000, 0.8
    y = F.dropout(Tensor(np.ones(n)), p).data
    # tolerance: five standard deviations of the mean, √(p / ((1 − p) · n)) = 0.0063
    expect(abs(y.mean() - 1) <= 0.032, f"dropout must keep the expectation 1, the mean is {y.mean()}")
    expect(abs((y == 0).mean() - p) <= 0.0064, f"dropout must drop {p} of the elements, it dropped {(y == 0).mean()}")


def dropout_at_the_ends(rng: np.random.Generator) -> None:
    x = Tensor(rng.standard_normal((3, 5)), requires_grad=True)
    expect(F.dropout(x, 0.7, training=False) is x, "in evaluation dropout must return its input")
    expect(F.dropout(x, 0.0) is x, "dropout with p=0 must return its input")
    y = F.dropout(x, 1.0)
    expect(not y.data.any(), "dropout with p=1 must give zeros")
    expect(not gradient(y, x, rng.standard_normal((3, 5))).any(), "dropout with p=1 must pass no gradient")


def softmax_of_huge_values(rng: np.random.Generator) -> None:
    x = rng.standard_normal((3, 4))
    shift = np.array([[1e4], [0], [-1e4]])  # exp(1e4) overflows; the shifted sums keep 12 of 16 digits
    shifted, plain = F.softmax(Tensor(x + shift)).data, F.softmax(Tensor(x)).data
    expect(bool(np.allclose(shifted, plain, rtol=1e-10)), f"each row of softmax(x + c) must be softmax(x), c = {shift}")
    for row in itertools.permutations((0.0, 1e4, -1e4)):  # the largest at every place
        far = F.softmax(Tensor(np.array(row))).data
        expect(np.array_equal(far, np.array(row) == 1e4), f"softmax of {row} must be 1 at the largest, gives {far}")


def log_softmax_of_huge_values(rng: np.random.Generator) -> None:
    x = rng.standard_normal((3, 4))
    for shift in (1e4, -1e4):
        shifted, plain = F.log_softmax(Tensor(x + shift)).data, F.log_softmax(Tensor(x)).data
        expect(
            bool(np.allclose(shifted, plain, rtol=1e-10, atol=1e-10)),
            f"log_softmax(x + {shift:g}) must equal log_softmax(x)",
        )
    for row in itertools.permutations((0.0, 2000.0, -2000.0)):
        far = F.log_softmax(Tensor(np.array(row))).data
        expected = np.array(row) - 2000
        expect(np.array_equal(far, expected), f"log_softmax must not round a small probability to 0, gives {far}")


def cross_entropy_of_huge_logits(rng: np.random.Generator) -> None:
    logits = np.array([[3000.0, 0.0], [-3000.0, 0.0]])
    loss = F.cross_entropy(Tensor(logits), np.array([1, 0]), reduction="none").data
    expect(np.array_equal(loss, [3000, 3000]), f"cross_entropy of far-off logits must be 3000, is {loss}")


def cross_entropy_is_nll_of_log_softmax(rng: np.random.Generator) -> None:
    logits, labels = rng.standard_normal((5, 3)), rng.integers(0, 3, 5)
    one = F.cross_entropy(Tensor(logits), labels).data
    two = F.nll_loss(F.log_softmax(Tensor(logits)), labels).data
    expect(close(one, two), f"cross_entropy {one} must be nll_loss of log_softmax {two}")


def an_ignored_label_has_no_part(rng: np.random.Generator) -> None:
    """An ignored label adds nothing to the loss and gets no gradient, whatever its scores are."""
    z, labels = rng.standard_normal((3, 4)), np.array([2, -1, 1])
    z[1] = [-np.inf, 1e30, -1e30, 0]
    for loss in (F.cross_entropy, F.nll_loss):
        x, alone = Tensor(z, requires_grad=True), Tensor(z[::2], requires_grad=True)
        y, expected = loss(x, labels, ignore_index=-1), loss(alone, labels[::2])
        expect(
            close(y.data, expected.data),
            f"{loss.__name__} must be {expected.data}, the loss without the ignored label, is {y.data}",
        )
        grad, kept = gradient(y, x, np.array(1.7)), gradient(expected, alone, np.array(1.7))
        expect(
            close(grad[::2], kept) and not grad[1].any(),
            "an ignored label must get no gradient and must not change the gradients of other labels",
        )


def equal_maxima_share(rng: np.random.Generator) -> None:
    x = Tensor(np.array([[1.0, 3.0, 3.0], [5.0, 2.0, 5.0]]), requires_grad=True)
    cotangent = rng.standard_normal((2, 1))
    grad = gradient(x.max(1, keepdims=True), x, cotangent)
    expect(close(grad, cotangent * [[0, 0.5, 0.5], [0.5, 0, 0.5]]), f"equal maxima must share the gradient, got {grad}")


def nan_is_the_maximum(rng: np.random.Generator) -> None:
    x = Tensor(np.array([1.0, np.nan, 3.0]), requires_grad=True)
    y = x.max()
    expect(bool(np.isnan(y.data)), "the maximum of numbers with NaN must be NaN")
    expect(np.array_equal(gradient(y, x, np.array(2.0)), [0, 2, 0]), "the gradient of a maximum must go to the NaN")


def powers_of_zero(rng: np.random.Generator) -> None:
    """0⁰ = 1.  The slope of x⁰ is 0, and the slope of 0^y is 0 for y ≥ 0."""
    a = Tensor(np.array([0.0, 0.0, 0.0, 2.0]), requires_grad=True)
    b = Tensor(np.array([0.0, 1.0, 2.0, 0.0]), requires_grad=True)
    y = a**b
    expect(np.array_equal(y.data, [1, 0, 0, 1]), f"0⁰, 0¹, 0² and 2⁰ must be 1, 0, 0 and 1, are {y.data}")
    grad = gradient(y, a, np.full(4, 3.0))
    expect(np.array_equal(grad, [0, 3, 0, 0]), f"the slopes of x⁰, x¹, x² at 0 must be 0, 1, 0, the gradient is {grad}")
    expect(
        b.grad is not None and close(b.grad, np.array([0, 0, 0, 3 * math.log(2)])), f"0^y must be flat, not {b.grad}"
    )


def powers_of_negative_numbers(rng: np.random.Generator) -> None:
    x = Tensor(np.array([-2.0, -0.5]), requires_grad=True)
    y = x**3
    expect(np.array_equal(y.data, [-8, -0.125]), f"the cubes of −2 and −1/2 must be −8 and −1/8, are {y.data}")
    expect(np.array_equal(gradient(y, x, np.ones(2)), [12, 0.75]), "the slope of x³ must be 3·x², also below 0")


def sigmoid_of_huge_values(rng: np.random.Generator) -> None:
    with np.errstate(over="raise", invalid="raise"):
        y = F.sigmoid(Tensor(np.array([-1e4, 1e4, -700.0]))).data
    expect(bool(y[0] == 0 and y[1] == 1), f"sigmoid must be 0 and 1 at the far ends, is {y[:2]}")
    expect(bool(np.isclose(y[2], math.exp(-700), rtol=1e-12, atol=0)), f"sigmoid(−700) must be e^−700, is {y[2]}")
    expect(bool(np.isnan(F.sigmoid(Tensor(np.array(np.nan))).data)), "sigmoid(NaN) must be NaN")


def tanh_of_huge_values(rng: np.random.Generator) -> None:
    x = Tensor(np.array([-1e4, 1e4]), requires_grad=True)
    y = F.tanh(x)
    expect(np.array_equal(y.data, [-1, 1]), f"tanh must be −1 and 1 at the far ends, is {y.data}")
    expect(not gradient(y, x, rng.standard_normal(2)).any(), "tanh must pass no gradient at the far ends")


PROPERTIES: dict[str, tuple[Property, ...]] = {
    "relu": (relu_is_flat_at_zero, relu_keeps_nan, relu_of_special_values),
    "max_pool2d": (
        first_of_equal_maxima,
        overlapping_windows_add_up,
        padding_never_wins,
        nan_wins_a_window,
        max_pool_of_special_values,
    ),
    "batch_norm": (running_statistics,),
    "batch_norm_eval": (running_statistics_rest_in_evaluation,),
    "sync_batch_norm": (ranks_share_a_batch,),
    "pow": (powers_of_zero, powers_of_negative_numbers),
    "max": (equal_maxima_share, nan_is_the_maximum),
    "sigmoid": (sigmoid_of_huge_values,),
    "tanh": (tanh_of_huge_values,),
    "dropout": (dropout_draws_anew, dropout_keeps_the_expectation, dropout_at_the_ends),
    "softmax": (softmax_of_huge_values,),
    "log_softmax": (log_softmax_of_huge_values,),
    "cross_entropy": (
        cross_entropy_of_huge_logits,
        cross_entropy_is_nll_of_log_softmax,
        an_ignored_label_has_no_part,
    ),
    "nll_loss": (an_ignored_label_has_no_part,),
}
