"""Awkward cases of every operation, each with a naive oracle.

Each case is drawn by a sequence of choices: H≠W, KH≠KW, sizes of 1, primes, strides larger than the kernel, inputs that
are not contiguous.  The function `pick` makes each choice, with a random generator here and with Hypothesis in the
tests.  The oracles compute one output element at a time, as plainly as possible, and share no code with the operations.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

import minires.functional as F
from minires import random
from minires.arrays import Array, array_module
from minires.parallel import Alone, Communicator
from minires.parallel import sync_batch_norm as over_ranks
from minires.tensor import Tensor
from minires.verify.audit import Row, of_active_backend
from minires.verify.gradcheck import GradcheckError, gradcheck

Pick = Callable[[Sequence[Any]], Any]


@dataclass
class Case:
    """An operation with its options bound, the inputs of the check, and an oracle that computes the expected output."""

    fn: Callable[..., Tensor]
    inputs: list[Array]
    oracle: Callable[..., Array]
    description: str

    def check(self, seed: int = 0) -> None:
        """Checks the operation's forward and backward; raises AssertionError.

        - Forward matches the oracle in float64 and in float32, and keeps the dtype.
        - Forward and gradients of operations in exact.py are within their a-priori bounds of the exact result.
        - The inputs stay unmodified.
        - The gradients don't depend on the memory layout of the cotangent.
        - Every element of every gradient matches a finite difference.
        """
        kept = [array.copy() for array in self.inputs]
        expected = self.oracle(*self.inputs)
        rows: list[Row] = []
        # float64: sums of at most a few hundred products of order 1.  float32: the batch norm of a few close values
        # loses half of the 24 bits.
        for dtype, tolerance in ((np.float64, 1e-11), (np.float32, 2e-3)):
            tensors = [Tensor(array.astype(dtype, copy=False), requires_grad=True) for array in self.inputs]
            audit = of_active_backend()
            with contextlib.nullcontext() if audit is None else audit:
                output = self.fn(*tensors)
            self._expect(output.shape == expected.shape, f"output has shape {output.shape}, expected {expected.shape}")
            self._expect(output.dtype == dtype, f"output is {output.dtype} for inputs of {np.dtype(dtype)}")
            error = np.abs(output.data - expected) / (1 + np.abs(expected))
            self._expect(bool((error <= tolerance).all()), f"forward is off by {error.max(initial=0):.2g} in {dtype}")
            cotangent = np.random.default_rng(seed).standard_normal(output.shape).astype(dtype)
            with contextlib.nullcontext() if audit is None else audit:
                output.backward(cotangent)
            rows += [] if audit is None else audit.rows.values()
            other = [Tensor(tensor.data, requires_grad=True) for tensor in tensors]
            self.fn(*other).backward(cotangent.T.copy().T)
            for position, (one, two) in enumerate(zip(tensors, other, strict=True)):
                if one.grad is None or two.grad is None:
                    raise AssertionError(f"{self.description}: no gradient for input {position}")
                self._expect(one.grad.dtype == dtype, f"gradient {position} is {one.grad.dtype} for {np.dtype(dtype)}")
                same = np.allclose(one.grad, two.grad, rtol=tolerance, atol=tolerance)
                self._expect(same, f"gradient {position} depends on the memory layout of the cotangent")
        unmodified = all(np.array_equal(a, b) for a, b in zip(self.inputs, kept, strict=True))
        self._expect(unmodified, "an input was changed")
        try:
            gradcheck(self.fn, self.inputs, seed=seed)
        except GradcheckError as error:
            raise GradcheckError(f"{self.description}: {error}") from None
        for row in rows:
            excess = f"{row.operation} {row.output} errs by {row.ratio:.2g} times its bound ({row.where})"
            self._expect(row.ratio <= 1, excess)

    def _expect(self, truth: bool, otherwise: str) -> None:
        if not truth:
            raise AssertionError(f"{self.description}: {otherwise}")


def random_pick(rng: np.random.Generator) -> Pick:
    """Choices by a random generator."""
    return lambda options: options[int(rng.integers(len(options)))]


def draw(operation: str, pick: Pick, rng: np.random.Generator) -> Case:
    """A case of the named operation (a key of CASES)."""
    case = CASES[operation](pick, rng)
    case.inputs = [_laid_out(array, pick) for array in case.inputs]
    return case


def _laid_out(array: Array, pick: Pick) -> Array:
    """The same values in another memory layout."""
    layout = pick(["C", "F", "channels last", "every second", "backwards"])
    if layout == "F":
        return np.asfortranarray(array)
    if layout == "channels last" and array.ndim == 4:
        return np.ascontiguousarray(array.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    if layout == "every second" and array.ndim:
        return np.repeat(array, 2, axis=-1)[..., ::2]
    if layout == "backwards" and array.ndim:
        return array[..., ::-1].copy()[..., ::-1]
    return array


def _normal(rng: np.random.Generator, *shape: int) -> Array:
    return rng.standard_normal(shape)


def _shape(pick: Pick, most: int = 4) -> tuple[int, ...]:
    return tuple(pick([1, 2, 3, 5]) for _ in range(pick(range(1, most))))


# -- convolution and pooling


def conv2d(pick: Pick, rng: np.random.Generator) -> Case:
    groups = pick([1, 1, 2, 3])
    N, Cg, Og = pick([1, 2]), pick([1, 2]), pick([1, 2])
    KH, KW = pick([1, 2, 3]), pick([1, 2, 3])
    stride = pick([(1, 1), (1, 1), (2, 2), (1, 2), (3, 1), (2, 4)])
    padding = pick([(0, 0), (0, 1), (1, 0), (1, 1), (3, 0), (1, 2)])
    dilation = pick([(1, 1), (1, 3), (2, 1)])
    H = max(pick([1, 3, 5]), dilation[0] * (KH - 1) + 1 - 2 * padding[0])
    W = max(pick([1, 2, 5]), dilation[1] * (KW - 1) + 1 - 2 * padding[1])
    inputs = [_normal(rng, N, groups * Cg, H, W), _normal(rng, groups * Og, Cg, KH, KW)]
    if pick([True, False]):
        inputs.append(_normal(rng, groups * Og))
    word = pick(["", "", "same"]) if stride == (1, 1) else ""
    one = pick([False, False, True])
    if one:
        N, inputs[0] = 1, inputs[0][0]  # (C, H, W)

    def oracle(x: Array, w: Array, b: Array | None = None) -> Array:
        (ph, pw), (sh, sw), (dh, dw) = padding, stride, dilation
        x = x[None] if one else x
        OH = (H + 2 * ph - dh * (KH - 1) - 1) // sh + 1
        OW = (W + 2 * pw - dw * (KW - 1) - 1) // sw + 1
        if word == "same":  # an odd number of zeros: the smaller half stands before the image
            (OH, OW), ph, pw = (H, W), dh * (KH - 1) // 2, dw * (KW - 1) // 2
        y = np.zeros((N, groups * Og, OH, OW))
        for n, o, i, j in np.ndindex(y.shape):
            total = 0.0 if b is None else b[o]
            for c, p, q in np.ndindex(Cg, KH, KW):
                row, column = i * sh + p * dh - ph, j * sw + q * dw - pw
                if 0 <= row < H and 0 <= column < W:
                    total += x[n, o // Og * Cg + c, row, column] * w[o, c, p, q]
            y[n, o, i, j] = total
        return y[0] if one else y

    def fn(x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
        return F.conv2d(x, w, b, stride, word or padding, dilation, groups)

    description = f"conv2d x {inputs[0].shape} w {inputs[1].shape} {stride=} {padding=} {word} {dilation=} {groups=}"
    return Case(fn, inputs, oracle, description)


@dataclass
class _Window:
    """A pooling geometry; it finds the outputs' windows by moving along one dimension at a time."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    ceil_mode: bool
    size: tuple[int, int]

    def starts(self, axis: int) -> list[int]:
        k, s, p, d, n = (v[axis] for v in (self.kernel, self.stride, self.padding, self.dilation, self.size))
        span = d * (k - 1) + 1
        starts = [-p]
        while True:
            following = starts[-1] + s
            if following + span <= n + p or (self.ceil_mode and starts[-1] + span < n + p and following < n):
                starts.append(following)
            else:
                return starts

    def inside(self, axis: int, start: int) -> list[int]:
        positions = (start + self.dilation[axis] * i for i in range(self.kernel[axis]))
        return [i for i in positions if 0 <= i < self.size[axis]]

    def seen(self) -> tuple[list[Any], list[Any]]:
        """The rows and the columns of the image in each output's window."""
        rows, columns = ([self.inside(axis, start) for start in self.starts(axis)] for axis in (0, 1))
        return rows, columns


def _window(pick: Pick, dilated: bool) -> _Window:
    kernel = (pick([1, 2, 3]), pick([1, 2, 3]))
    dilation = (pick([1, 2]), pick([1, 3])) if dilated else (1, 1)
    spans = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    padding = (pick(range(spans[0] // 2 + 1)), pick(range(spans[1] // 2 + 1)))
    size = (max(pick([1, 4, 5]), spans[0] - 2 * padding[0]), max(pick([1, 3, 6]), spans[1] - 2 * padding[1]))
    stride, ceil_mode = (pick([1, 2, 4]), pick([1, 2, 3])), pick([False, True])
    if ceil_mode and pick([True, False]):
        # One more window would fit, but would begin beyond the image: it must be left out.
        beyond = [s < p + r for s, p, r in zip(spans, padding, stride, strict=True)]
        longer = [max(2 * r - p, 1) if b else n for r, p, b, n in zip(stride, padding, beyond, size, strict=True)]
        size = (longer[0], longer[1])
    window = _Window(kernel, stride, padding, dilation, ceil_mode, size)
    if any(not window.inside(axis, start) for axis in (0, 1) for start in window.starts(axis)):
        # A dilated window may skip all pixels of a small image: its maximum is −∞, which has no finite difference.
        window.padding, window.ceil_mode, window.size = (0, 0), False, (max(size[0], spans[0]), max(size[1], spans[1]))
    return window


def _over_windows(rows: list[Any], columns: list[Any], result: Callable[[Array, int, int], Any]) -> Any:
    """An oracle: output (i, j) is result(window, i, j), where window is x at rows[i] and columns[j]."""

    def oracle(x: Array) -> Array:
        y = np.zeros((*x.shape[:2], len(rows), len(columns)))
        for i, j in np.ndindex(len(rows), len(columns)):
            y[:, :, i, j] = result(x[:, :, rows[i]][:, :, :, columns[j]], i, j)
        return y

    return oracle


def max_pool2d(pick: Pick, rng: np.random.Generator) -> Case:
    window = _window(pick, dilated=True)
    x = _normal(rng, pick([1, 2]), pick([1, 3]), *window.size)
    oracle = _over_windows(*window.seen(), lambda seen, i, j: seen.max(axis=(2, 3), initial=-np.inf))

    def fn(x: Tensor) -> Tensor:
        return F.max_pool2d(x, window.kernel, window.stride, window.padding, window.dilation, window.ceil_mode)

    return _perhaps_one_image(pick, Case(fn, [x], oracle, f"max_pool2d {window}"))


def avg_pool2d(pick: Pick, rng: np.random.Generator) -> Case:
    window = _window(pick, dilated=False)
    count_include_pad = pick([True, False])
    x = _normal(rng, pick([1, 2]), pick([1, 3]), *window.size)
    divisor = pick([None, None, 3, -2])

    def average(seen: Array, i: int, j: int) -> Array:
        count = seen.shape[2] * seen.shape[3]
        if count_include_pad:
            (KH, KW), (ph, pw), (H, W) = window.kernel, window.padding, window.size
            top, left = window.starts(0)[i], window.starts(1)[j]
            count = (min(top + KH, H + ph) - top) * (min(left + KW, W + pw) - left)
        return seen.sum(axis=(2, 3)) / (divisor or count)

    def fn(x: Tensor) -> Tensor:
        options = window.stride, window.padding, window.ceil_mode, count_include_pad
        return F.avg_pool2d(x, window.kernel, *options, divisor_override=divisor)

    description = f"avg_pool2d {window} {count_include_pad=} {divisor=}"
    return _perhaps_one_image(pick, Case(fn, [x], _over_windows(*window.seen(), average), description))


def adaptive_avg_pool2d(pick: Pick, rng: np.random.Generator) -> Case:
    output_size = (pick([1, 2, 3, 7]), pick([1, 2, 5]))
    x = _normal(rng, pick([1, 2]), pick([1, 3]), pick([1, 3, 7]), pick([1, 4, 5]))
    rows, columns = (
        [slice(math.floor(i * n / bins), math.ceil((i + 1) * n / bins)) for i in range(bins)]
        for n, bins in zip(x.shape[2:], output_size, strict=True)
    )
    oracle = _over_windows(rows, columns, lambda seen, i, j: seen.mean(axis=(2, 3)))
    description = f"adaptive_avg_pool2d {x.shape} -> {output_size}"
    return _perhaps_one_image(pick, Case(lambda x: F.adaptive_avg_pool2d(x, output_size), [x], oracle, description))


def _perhaps_one_image(pick: Pick, case: Case) -> Case:
    """The case itself, or the case of its first image without a batch axis: (C, H, W) -> (C, OH, OW)."""
    if pick([False, False, True]):
        oracle = case.oracle
        case.inputs, case.oracle = [case.inputs[0][0]], lambda x: oracle(x[None])[0]
        case.description += ", one image"
    return case


# -- normalisation and activation


def _batch(pick: Pick, rng: np.random.Generator) -> Array:
    spatial = pick([(), (3,), (2, 3), (1, 5), (5, 1), (2, 1, 2)])
    return _normal(rng, pick([2, 3, 5]), pick([1, 2, 3]), *spatial) * 2 + 0.5


def _affine(pick: Pick, rng: np.random.Generator, C: int) -> list[Array]:
    return [[], [_normal(rng, C)], [_normal(rng, C), _normal(rng, C)]][pick([0, 1, 2, 2])]


def batch_norm(pick: Pick, rng: np.random.Generator, ranks: Communicator | None = None) -> Case:
    x = _batch(pick, rng)
    eps = pick([1e-5, 0.1])

    def fn(x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
        batch_norm = F.batch_norm if ranks is None else partial(over_ranks, ranks)
        return batch_norm(x, None, None, weight, bias, training=True, eps=eps)

    description = "batch_norm" if ranks is None else "batch_norm over ranks"
    return Case(fn, [x, *_affine(pick, rng, x.shape[1])], _normalised(eps), f"{description} {x.shape} {eps=}")


def _normalised(eps: float, means: Array | None = None, variances: Array | None = None) -> Callable[..., Array]:
    """An oracle for batch norm, with the given statistics or, by default, those of each channel of x."""

    def oracle(x: Array, weight: Array | None = None, bias: Array | None = None) -> Array:
        y = np.empty(x.shape)
        for c in range(x.shape[1]):
            if means is None or variances is None:
                values = [float(v) for v in x[:, c].ravel()]
                mean = math.fsum(values) / len(values)
                var = math.fsum((v - mean) ** 2 for v in values) / len(values)
            else:
                mean, var = means[c], variances[c]
            y[:, c] = (x[:, c] - mean) / math.sqrt(var + eps)
            y[:, c] = y[:, c] * (1 if weight is None else weight[c]) + (0 if bias is None else bias[c])
        return y

    return oracle


def batch_norm_eval(pick: Pick, rng: np.random.Generator) -> Case:
    x = _batch(pick, rng)
    eps = pick([1e-5, 0.1])
    mean: Array = _normal(rng, x.shape[1])
    var: Array = rng.uniform(0.2, 2, x.shape[1]) * np.ones(x.shape[1])

    def fn(x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
        running_mean, running_var = (array_module(x.data).asarray(array) for array in (mean, var))
        return F.batch_norm(x, running_mean, running_var, weight, bias, training=False, eps=eps)

    inputs = [x, *_affine(pick, rng, x.shape[1])]
    return Case(fn, inputs, _normalised(eps, mean, var), f"batch_norm (evaluation) {x.shape} {eps=}")


class Mirrored(Alone):
    """Simulates three ranks with the same images: their common batch norm must equal the batch norm of one rank."""

    size = 3

    def allreduce(self, array: Array) -> None:
        array *= self.size


def batch_norm_relu(pick: Pick, rng: np.random.Generator, add: bool = False) -> Case:
    """relu(batch norm (+ shortcut)) with the batch's statistics, as in training."""
    x, eps = _batch(pick, rng), pick([1e-5, 0.1])
    norm = _normalised(eps)
    affine = _affine(pick, rng, x.shape[1])
    n = len(affine)

    def fn(x: Tensor, *given: Tensor) -> Tensor:
        weight, bias = (*given[:n], None, None)[:2]
        return F.batch_norm_add_relu(x, None, None, weight, bias, given[n] if add else None, eps=eps)

    def oracle(x: Array, *given: Array) -> Array:
        return _positive(norm(x, *given[:n]) + (given[n] if add else 0))

    inputs = [x, *affine, *([_normal(rng, *x.shape)] if add else [])]
    return Case(fn, inputs, oracle, f"batch_norm{'_add' if add else ''}_relu {x.shape} {eps=}")


def fused_conv2d(pick: Pick, rng: np.random.Generator) -> Case:
    """A fused convolution with any selection of its parts: bias, batch norm, shortcut, ReLU."""
    groups, stride, padding, dilation = (
        pick([1, 2]),
        pick([(1, 1), (2, 1)]),
        pick([(0, 1), (1, 1)]),
        pick([(1, 1), (1, 2)]),
    )
    O, relu, eps = 2 * groups, pick([True, False]), pick([1e-5, 0.1])
    x, w = _normal(rng, pick([1, 2]), groups, pick([3, 4]), 5), _normal(rng, O, 1, pick([1, 3]), 2)
    mean: Array = _normal(rng, O)
    var: Array = rng.uniform(0.2, 2, O)
    normed = pick([True, True, False])
    (ph, pw), (sh, sw), (dh, dw) = padding, stride, dilation
    OH = (x.shape[2] + 2 * ph - dh * (w.shape[2] - 1) - 1) // sh + 1
    OW = (x.shape[3] + 2 * pw - dw * (w.shape[3] - 1) - 1) // sw + 1
    parts = {"bias": _normal(rng, O), "shortcut": _normal(rng, x.shape[0], O, OH, OW)}
    parts |= {"gamma": _normal(rng, O), "beta": _normal(rng, O)} if normed else {}
    parts = {name: part for name, part in parts.items() if pick([True, True, False])}

    def oracle(x: Array, w: Array, *given: Array) -> Array:
        part = dict(zip(parts, given, strict=True))
        padded = np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)))
        y = np.zeros((x.shape[0], O, OH, OW))
        for o, i, j, p, q in np.ndindex(O, OH, OW, *w.shape[2:]):
            y[:, o, i, j] += padded[:, o // 2, i * sh + p * dh, j * sw + q * dw] * w[o, 0, p, q]
        for o in range(O):
            y[:, o] += part["bias"][o] if "bias" in part else 0
            if normed:
                y[:, o] = (y[:, o] - mean[o]) / math.sqrt(var[o] + eps)
                y[:, o] = y[:, o] * (part["gamma"][o] if "gamma" in part else 1)
                y[:, o] += part["beta"][o] if "beta" in part else 0
        y += part.get("shortcut", 0)
        return _positive(y) if relu else y

    def fn(x: Tensor, w: Tensor, *given: Tensor) -> Tensor:
        running_mean, running_var = (array_module(x.data).asarray(array) for array in (mean, var))
        statistics = {"running_mean": running_mean, "running_var": running_var, "eps": eps} if normed else {}
        options: dict[str, Any] = {"relu": relu, **statistics, **dict(zip(parts, given, strict=True))}
        return F.fused_conv2d(x, w, options.pop("bias", None), stride, padding, dilation, groups, **options)

    description = f"fused_conv2d x {x.shape} w {w.shape} {stride=} {padding=} {dilation=} {groups=} {relu=} {normed=}"
    return Case(fn, [x, w, *parts.values()], oracle, f"{description} {', '.join(parts)}")


def _each(scalar: Callable[[float], float]) -> Callable[[Array], Array]:
    """An oracle that applies a scalar function to every element."""
    return lambda x: np.array([scalar(float(v)) for v in x.ravel()]).reshape(x.shape)


_positive = _each(lambda v: v if v > 0 else 0.0)


def relu(pick: Pick, rng: np.random.Generator) -> Case:
    x = np.asarray(_normal(rng, *pick([_shape(pick, 5), _shape(pick, 5), ()])) * pick([1e-3, 1, 1e3]))

    return Case(F.relu, [x], _positive, f"relu {x.shape}")


def dropout(pick: Pick, rng: np.random.Generator) -> Case:
    x = _normal(rng, *_shape(pick))
    p, seed = pick([0.25, 0.5, 0.9]), int(rng.integers(1 << 30))

    def fn(x: Tensor) -> Tensor:
        random.manual_seed(seed)
        return F.dropout(x, p)

    def oracle(x: Array) -> Array:
        draws = np.random.default_rng(seed).random(x.shape)
        kept = [v / (1 - p) if u < 1 - p else 0.0 for v, u in zip(x.ravel(), draws.ravel(), strict=True)]
        return np.array(kept).reshape(x.shape)

    return Case(fn, [x], oracle, f"dropout {x.shape} {p=}")


# -- linear algebra and arithmetic


def shortcut(pick: Pick, rng: np.random.Generator) -> Case:
    """Checks the tape: an input used twice, a result used twice, and a leaf added directly to the output."""
    x = _normal(rng, *_shape(pick))
    w = _normal(rng, *x.shape)

    def fn(x: Tensor, w: Tensor) -> Tensor:
        h = x * w
        block = h + F.relu(h)  # the shortcut's gradient arrives at h before the branch's
        return block * block + x

    def oracle(x: Array, w: Array) -> Array:
        values = [(u * v + max(u * v, 0.0)) ** 2 + u for u, v in zip(x.ravel(), w.ravel(), strict=True)]
        return np.array(values).reshape(x.shape)

    return Case(fn, [x, w], oracle, f"shortcut {x.shape}")


def linear(pick: Pick, rng: np.random.Generator) -> Case:
    features, out = pick([1, 3, 5]), pick([1, 2, 7])
    x = _normal(rng, *pick([(), (1,), (4,), (2, 3)]), features)
    inputs = [x, _normal(rng, out, features)] + ([_normal(rng, out)] if pick([True, False]) else [])

    def oracle(x: Array, w: Array, b: Array | None = None) -> Array:
        y = np.zeros((*x.shape[:-1], out))
        for where in np.ndindex(y.shape):
            row = x[where[:-1]]
            total = sum(row[k] * w[where[-1], k] for k in range(features))
            y[where] = total + (0 if b is None else b[where[-1]])
        return y

    return Case(F.linear, inputs, oracle, f"linear {x.shape} {out=}")


def _binary(name: str, tensor_op: Callable[..., Tensor], scalar_op: Callable[[float, float], float]) -> Any:
    def case(pick: Pick, rng: np.random.Generator) -> Case:
        # Each operand lacks some leading axes of the result's shape, and has size 1 along some of the remaining axes.
        whole = tuple(pick([1, 2, 3, 5]) for _ in range(pick(range(4))))
        shapes = [tuple(pick([n, n, 1]) for n in whole[pick(range(len(whole) + 1)) :]) for _ in "ab"]
        a, b = (_normal(rng, *shape) for shape in shapes)

        def oracle(a: Array, b: Array) -> Array:
            a, b = np.broadcast_arrays(a, b)
            values = [scalar_op(float(u), float(v)) for u, v in zip(a.ravel(), b.ravel(), strict=True)]
            return np.array(values).reshape(a.shape)

        return Case(tensor_op, [a, b], oracle, f"{name} {a.shape} {b.shape}")

    return case


def neg(pick: Pick, rng: np.random.Generator) -> Case:
    x = _normal(rng, *_shape(pick))
    return Case(lambda x: -x, [x], _each(lambda v: -v), f"neg {x.shape}")


def _reduction(name: str) -> Any:
    def case(pick: Pick, rng: np.random.Generator) -> Case:
        x = _normal(rng, *_shape(pick, 5))
        axis = pick([None, 0, -1, tuple(range(x.ndim)), tuple(range(0, x.ndim, 2))])
        keepdims = pick([False, True])
        chosen = range(x.ndim) if axis is None else [a % x.ndim for a in (axis if isinstance(axis, tuple) else (axis,))]

        def oracle(x: Array) -> Array:
            totals: dict[tuple[int, ...], list[float]] = {}
            for where in np.ndindex(x.shape):
                key = tuple(0 if i in chosen else n for i, n in enumerate(where))
                totals.setdefault(key, []).append(float(x[where]))
            kept = np.zeros([1 if i in chosen else n for i, n in enumerate(x.shape)])
            for key, values in totals.items():
                total = max(values) if name == "max" else math.fsum(values)
                kept[key] = total / (len(values) if name == "mean" else 1)
            return kept if keepdims else kept.reshape([n for i, n in enumerate(x.shape) if i not in chosen])

        return Case(lambda x: getattr(x, name)(axis, keepdims), [x], oracle, f"{name} {x.shape} {axis=} {keepdims=}")

    return case


def _elementwise(name: str, scalar: Callable[[float], float], positive: bool = False) -> Any:
    def case(pick: Pick, rng: np.random.Generator) -> Case:
        x = np.asarray(_normal(rng, *pick([_shape(pick, 5), ()])) * pick([0.1, 1, 3]))
        x = np.asarray(np.abs(x) + 0.1) if positive else x
        return Case(getattr(F, name), [x], _each(scalar), f"{name} {x.shape}")

    return case


def power(pick: Pick, rng: np.random.Generator) -> Case:
    """tensor ** number, number ** tensor or tensor ** tensor."""
    exponent, base = pick([None, 2, 3, 0.5, -1, -2.5, 0]), pick([None, 0.3, 2])
    if exponent is not None:
        x = _normal(rng, *_shape(pick))
        x = np.where(np.abs(x) < 0.3, 0.3, x) if isinstance(exponent, int) else np.abs(x) + 0.3
        return Case(lambda x: x**exponent, [x], _each(lambda v: v**exponent), f"pow {x.shape} {exponent=}")
    if base is not None:
        x = _normal(rng, *_shape(pick))
        return Case(lambda x: base**x, [x], _each(lambda v: base**v), f"pow {base=} {x.shape}")
    case: Case = _binary("pow", lambda a, b: a**b, lambda u, v: u**v)(pick, rng)
    case.inputs[0] = np.asarray(np.abs(case.inputs[0]) + 0.3)
    return case


def divide(pick: Pick, rng: np.random.Generator) -> Case:
    case: Case = _binary("div", lambda a, b: a / b, lambda u, v: u / v)(pick, rng)
    case.inputs[1] = np.asarray(np.copysign(np.abs(case.inputs[1]) + 0.3, case.inputs[1]))
    return case


def matmul(pick: Pick, rng: np.random.Generator) -> Case:
    M, K, N = pick([1, 2, 3]), pick([1, 2, 5]), pick([1, 2, 4])
    a_shape, b_shape = pick([
        ((K,), (K,)), ((M, K), (K,)), ((K,), (K, N)), ((M, K), (K, N)), ((2, M, K), (K, N)), ((M, K), (3, 2, K, N)),
        ((2, 1, M, K), (3, K, N)), ((3, M, K), (K,)), ((K,), (2, 3, K, N)), ((1, M, K), (2, 1, K, N)),
    ])  # fmt: skip

    def oracle(a: Array, b: Array) -> Array:
        rows, columns = (a if a.ndim > 1 else a[None]), (b if b.ndim > 1 else b[:, None])
        batch = np.broadcast_shapes(rows.shape[:-2], columns.shape[:-2])
        rows, columns = (np.broadcast_to(m, (*batch, *m.shape[-2:])) for m in (rows, columns))
        y = np.zeros((*batch, rows.shape[-2], columns.shape[-1]))
        for where in np.ndindex(y.shape):
            *at, m, n = where
            y[where] = math.fsum(float(rows[(*at, m, k)] * columns[(*at, k, n)]) for k in range(K))
        return y.reshape(batch + (rows.shape[-2],) * (a.ndim > 1) + (columns.shape[-1],) * (b.ndim > 1))

    inputs = [_normal(rng, *a_shape), _normal(rng, *b_shape)]
    return Case(lambda a, b: a @ b, inputs, oracle, f"matmul {a_shape} {b_shape}")


# -- shape


def transpose(pick: Pick, rng: np.random.Generator) -> Case:
    x = _normal(rng, *_shape(pick, 5))
    order = list(range(x.ndim))
    axes = [order.pop(pick(range(len(order)))) - pick([0, x.ndim]) for _ in range(x.ndim)]

    def oracle(x: Array) -> Array:
        y = np.zeros([x.shape[a] for a in axes])
        for where in np.ndindex(y.shape):
            source = dict(zip([a % x.ndim for a in axes], where, strict=True))
            y[where] = x[tuple(source[i] for i in range(x.ndim))]
        return y

    return Case(lambda x: x.transpose(*axes), [x], oracle, f"transpose {x.shape} {axes}")


def reshape(pick: Pick, rng: np.random.Generator) -> Case:
    x = _normal(rng, *pick([(2, 3, 4), (4, 6), (3, 8), (24,), (1, 24, 1), (2, 3, 2, 2)]))
    shape = pick([(24,), (3, 8), (8, 3), (-1, 2), (2, 1, -1, 3), (6, 4), (2, 12)])

    def oracle(x: Array) -> Array:
        sizes = [24 // -math.prod(shape) if n == -1 else n for n in shape]
        y = np.zeros(sizes)
        for target, source in zip(np.ndindex(*sizes), np.ndindex(x.shape), strict=True):
            y[target] = x[source]
        return y

    return Case(lambda x: x.reshape(shape), [x], oracle, f"reshape {x.shape} -> {shape}")


def flatten(pick: Pick, rng: np.random.Generator) -> Case:
    x = _normal(rng, *_shape(pick, 5))
    start_dim = pick(range(-x.ndim, x.ndim))
    end_dim = pick([-1, *range(start_dim % x.ndim, x.ndim)])

    def oracle(x: Array) -> Array:
        before, behind = x.shape[: start_dim % x.ndim], x.shape[end_dim % x.ndim + 1 :]
        return np.array([x[where] for where in np.ndindex(x.shape)]).reshape(*before, -1, *behind)

    return Case(
        lambda x: F.flatten(x, start_dim, end_dim=end_dim), [x], oracle, f"flatten {x.shape} {start_dim=} {end_dim=}"
    )


def pad(pick: Pick, rng: np.random.Generator) -> Case:
    x = _normal(rng, *_shape(pick))
    amounts = tuple((pick([0, 1, 2]), pick([0, 1, 3])) for _ in x.shape)
    value = pick([0.0, -1.5])

    def oracle(x: Array) -> Array:
        y = np.zeros([b + n + a for n, (b, a) in zip(x.shape, amounts, strict=True)])
        for where in np.ndindex(y.shape):
            source = tuple(i - b for i, (b, _) in zip(where, amounts, strict=True))
            inside = all(0 <= i < n for i, n in zip(source, x.shape, strict=True))
            y[where] = x[source] if inside else value
        return y

    return Case(lambda x: F.pad(x, amounts, value), [x], oracle, f"pad {x.shape} {amounts} {value=}")


def slice_(pick: Pick, rng: np.random.Generator) -> Case:
    x = _normal(rng, pick([3, 4]), pick([5, 7]), pick([4, 1]))
    part = [slice(None), slice(None, None, 2), slice(1, None, 2), slice(-3, -1), slice(None, None, -1), slice(3, 0, -2)]
    index: Any = (pick([0, -1, 2, *part]), pick([*part, 1, -2, Ellipsis, slice(2, 2)]))
    index += pick([(), (Ellipsis,), (None,), (None, 0)]) if Ellipsis not in index else pick([(), (0,), (None, -1)])
    index = pick([index, index, index[0]])

    def oracle(x: Array) -> Array:
        numbers = np.arange(x.size).reshape(x.shape)[index]  # number in x of each output element
        flat = [float(x[where]) for where in np.ndindex(x.shape)]
        return np.array([flat[n] for n in np.ravel(numbers)]).reshape(np.shape(numbers))

    return Case(lambda x: x[index], [x], oracle, f"slice {index}")


# -- softmax and losses


def _softmax(name: str) -> Any:
    def case(pick: Pick, rng: np.random.Generator) -> Case:
        x = _normal(rng, *_shape(pick)) * 3
        axis = pick(range(-x.ndim, x.ndim))

        def oracle(x: Array) -> Array:
            y = np.zeros(x.shape)
            moved, result = np.moveaxis(x, axis, -1), np.moveaxis(y, axis, -1)
            for where in np.ndindex(moved.shape[:-1]):
                total = math.fsum(math.exp(v) for v in moved[where])
                for k, v in enumerate(moved[where]):
                    result[(*where, k)] = math.exp(v) / total if name == "softmax" else v - math.log(total)
            return y

        return Case(lambda x: getattr(F, name)(x, axis), [x], oracle, f"{name} {x.shape} {axis=}")

    return case


def _labelled(pick: Pick, rng: np.random.Generator) -> tuple[Array, Array, str]:
    N, C = pick([1, 2, 5]), pick([1, 2, 7])
    positions = pick([(), (), (3,), (2, 2)])
    return _normal(rng, N, C, *positions) * 2, rng.integers(0, C, (N, *positions)), pick(["mean", "sum", "none"])


def _reduced(losses: Array, reduction: str, counts: Array | None = None) -> Array:
    """counts   weight of each loss in the mean: the weight of its class; None: 1"""
    if reduction == "none":
        return losses
    total = math.fsum(losses.ravel())
    divisor = losses.size if counts is None else math.fsum(counts.ravel())
    return np.array(total / divisor if reduction == "mean" else total)


def _weighed(pick: Pick, rng: np.random.Generator, labels: Array, C: int) -> tuple[dict[str, Any], Array]:
    """Options `weight` and `ignore_index` of a loss, and the weight of each label (0 for an ignored one).

    Never ignores all labels.
    """
    options: dict[str, Any] = {"weight": rng.uniform(0.5, 2, C)} if pick([False, True]) else {}
    ignored = pick([None, -1, 0, C])
    if ignored is not None and labels.size > 1 and (C > 1 or ignored != 0):
        options["ignore_index"] = ignored
        labels[labels == ignored] = C - 1
        labels.flat[0] = ignored
    weight = options.get("weight", np.ones(C))
    counts = [0.0 if k == options.get("ignore_index") else weight[k] for k in labels.ravel()]
    return options, np.array(counts).reshape(labels.shape)


def _in_dtype_of(x: Tensor, options: dict[str, Any]) -> dict[str, Any]:
    return {name: value.astype(x.dtype) if name == "weight" else value for name, value in options.items()}


def cross_entropy(pick: Pick, rng: np.random.Generator) -> Case:
    logits, labels, reduction = _labelled(pick, rng)
    s = pick([0.0, 0.1, 1.0])
    C = logits.shape[1]
    kind = pick(["labels", "weighed labels", "probabilities"])
    options, counts = _weighed(pick, rng, labels, C) if kind == "weighed labels" else ({}, np.ones(labels.shape))
    weight = options.get("weight", np.ones(C))
    if kind == "probabilities" and pick([False, True]):
        options["weight"] = weight = rng.uniform(0.5, 2, C)

    def oracle(logits: Array, probabilities: Array | None = None) -> Array:
        losses = np.zeros(labels.shape)
        for where in np.ndindex(labels.shape):
            row = (where[0], slice(None), *where[1:])
            z = [float(v) for v in logits[row]]
            log_total = math.log(math.fsum(map(math.exp, z)))
            right = [float(k == labels[where]) for k in range(C)] if probabilities is None else probabilities[row]
            parts = [w * ((1 - s) * t + s / C) * (v - log_total) for w, t, v in zip(weight, right, z, strict=True)]
            losses[where] = -math.fsum(parts) if counts[where] else 0.0
        return _reduced(losses, reduction, counts)

    description = f"cross_entropy {logits.shape} {reduction=} label_smoothing={s} {kind} {options}"

    def fn(z: Tensor, probabilities: Tensor | None = None) -> Tensor:
        target: Any = labels if probabilities is None else probabilities
        return F.cross_entropy(z, target, s, reduction, **_in_dtype_of(z, options))

    inputs = [logits, rng.dirichlet(np.ones(C), labels.shape)] if kind == "probabilities" else [logits]
    inputs[1:] = [np.moveaxis(array, -1, 1) for array in inputs[1:]]  # (N, ..., C) -> (N, C, ...)
    return Case(fn, inputs, oracle, description)


def nll_loss(pick: Pick, rng: np.random.Generator) -> Case:
    log_probs, labels, reduction = _labelled(pick, rng)
    C = log_probs.shape[1]
    options, counts = _weighed(pick, rng, labels, C) if pick([False, True]) else ({}, np.ones(labels.shape))

    def oracle(log_probs: Array) -> Array:
        losses = np.zeros(labels.shape)
        for where in np.ndindex(labels.shape):
            if counts[where]:
                losses[where] = -counts[where] * log_probs[(where[0], labels[where], *where[1:])]
        return _reduced(losses, reduction, counts)

    def fn(z: Tensor) -> Tensor:
        return F.nll_loss(z, labels, reduction, **_in_dtype_of(z, options))

    return Case(fn, [log_probs], oracle, f"nll_loss {log_probs.shape} {reduction=} {options}")


CASES: dict[str, Callable[[Pick, np.random.Generator], Case]] = {
    "conv2d": conv2d,
    "batch_norm": batch_norm,
    "batch_norm_eval": batch_norm_eval,
    "batch_norm_relu": batch_norm_relu,
    "batch_norm_add_relu": partial(batch_norm_relu, add=True),
    "fused_conv2d": fused_conv2d,
    "sync_batch_norm": partial(batch_norm, ranks=Mirrored()),
    "relu": relu,
    "max_pool2d": max_pool2d,
    "avg_pool2d": avg_pool2d,
    "adaptive_avg_pool2d": adaptive_avg_pool2d,
    "linear": linear,
    "add": _binary("add", lambda a, b: a + b, lambda u, v: u + v),
    "sub": _binary("sub", lambda a, b: a - b, lambda u, v: u - v),
    "mul": _binary("mul", lambda a, b: a * b, lambda u, v: u * v),
    "div": divide,
    "pow": power,
    "matmul": matmul,
    "neg": neg,
    "exp": _elementwise("exp", math.exp),
    "log": _elementwise("log", math.log, positive=True),
    "sqrt": _elementwise("sqrt", math.sqrt, positive=True),
    "tanh": _elementwise("tanh", math.tanh),
    "sigmoid": _elementwise("sigmoid", lambda v: 1 / (1 + math.exp(-v))),
    "sum": _reduction("sum"),
    "mean": _reduction("mean"),
    "max": _reduction("max"),
    "transpose": transpose,
    "reshape": reshape,
    "flatten": flatten,
    "pad": pad,
    "slice": slice_,
    "softmax": _softmax("softmax"),
    "log_softmax": _softmax("log_softmax"),
    "cross_entropy": cross_entropy,
    "nll_loss": nll_loss,
    "dropout": dropout,
    "shortcut": shortcut,
}
