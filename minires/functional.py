"""The public functional face: what each operation takes, checked, and what it gives.

Every function takes Tensors (or plain floating arrays) and returns a Tensor.  Errors name the argument, what came and
what is allowed: ValueError for a value or shape, TypeError for a type or dtype.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from minires import _checks, ops
from minires._checks import Pair, axes, choice, flag, integer, number, pair, real, window
from minires._lazy import directory
from minires._losses import classification_loss
from minires._repr import shown
from minires.arrays import Array, array_module, plain_array
from minires.readonly import unpin
from minires.tensor import Tensor, as_tensor

__all__ = [
    "adaptive_avg_pool2d",
    "avg_pool2d",
    "batch_norm",
    "batch_norm_add_relu",
    "conv2d",
    "cross_entropy",
    "dropout",
    "exp",
    "flatten",
    "fused_conv2d",
    "linear",
    "log",
    "log_softmax",
    "matmul",
    "max_pool2d",
    "nll_loss",
    "pad",
    "relu",
    "reshape",
    "sigmoid",
    "softmax",
    "sqrt",
    "tanh",
]
__dir__ = directory(globals())


def conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Pair = 1,
    padding: Pair | str = 0,
    dilation: Pair = 1,
    groups: int = 1,
) -> Tensor:
    """2-D cross-correlation: x (N, C, H, W) ⋆ weight (O, C/groups, KH, KW) + bias (O,) -> (N, O, OH, OW).

    x                           or one image (C, H, W) -> (O, OH, OW)
    stride, padding, dilation   an int or an (h, w) pair, in pixels; zeros are padded on both sides
    padding                     or "valid": none; or "same", with stride 1: what makes (OH, OW) = (H, W), where that is
                                an odd number the one more at the bottom and on the right.  For any other padding that
                                differs from side to side, `pad` x first.
    groups                      x's channels and the filters are split into so many independent convolutions

    Raises ValueError when shapes and geometry don't fit, TypeError for a wrong type or differing dtypes.
    """
    x = as_tensor(x, "x")
    if x.ndim != 4:
        return _one_image(x, lambda one: conv2d(one, weight, bias, stride, padding, dilation, groups))
    x, weight, bias, geometry = _conv2d_operands(x, weight, bias, stride, padding, dilation, groups)
    return ops.Conv2d(*geometry)(x, weight, bias)


def fused_conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Pair = 1,
    padding: Pair | str = 0,
    dilation: Pair = 1,
    groups: int = 1,
    *,
    running_mean: Array | None = None,
    running_var: Array | None = None,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    eps: float = 1e-5,
    shortcut: Tensor | None = None,
    relu: bool = False,
) -> Tensor:
    """A convolution, batch norm in evaluation, a skip-add and ReLU as one operation: see `conv2d` and `batch_norm`.

    x                           (N, C, H, W) -> (N, O, OH, OW)
    running_mean, running_var   plain arrays (O,); None: no batch norm
    gamma, beta, eps            of the batch norm, (O,); None: 1 and 0
    shortcut                    (N, O, OH, OW), is added; None: no skip-add
    relu                        whether negative results become 0

    Raises ValueError or TypeError naming the argument, as the operations one by one do.
    """
    x = as_tensor(x, "x", 4, "(N, C, H, W)")
    x, weight, bias, geometry = _conv2d_operands(x, weight, bias, stride, padding, dilation, groups)
    normed = running_mean is not None or running_var is not None
    if not normed and (gamma is not None or beta is not None):
        raise ValueError("gamma and beta belong to a batch norm: give running_mean and running_var too")
    O = weight.shape[0]
    if normed:
        gamma, beta = _batch_norm_parameters(x, O, running_mean, running_var, gamma, beta, False, "gamma", "beta")
    shortcut = None if shortcut is None else as_tensor(shortcut, "shortcut", like=x)
    node = ops.FusedConv2d(*geometry, running_mean, running_var, number(eps, "eps", 0), flag(relu, "relu"))
    return node(x, weight, bias, gamma, beta, shortcut)


def batch_norm(
    x: Tensor,
    running_mean: Array | None,
    running_var: Array | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Batch normalisation over all axes but the second: x (N, C, ...) -> (N, C, ...).

    running_mean, running_var   plain arrays (C,); used in evaluation, updated in place in training (the variance with
                                the unbiased estimate); None in training: not kept
    weight, bias                (C,), γ and β of the paper's reference [16]; None: 1 and 0
    momentum                    weight of the new value in the running statistics, in [0, 1]
    eps                         is added to the variance, at least 0

    Raises ValueError when shapes don't fit, or when a channel has only one value in training.
    """
    statistics = running_mean, running_var
    x, weight, bias, training, momentum, eps = batch_norm_operands(
        x, *statistics, weight, bias, training, momentum, eps
    )
    check_batch_norm_values(x, training)
    return ops.BatchNorm(*statistics, training, momentum, eps)(x, weight, bias)


def batch_norm_add_relu(
    x: Tensor,
    running_mean: Array | None,
    running_var: Array | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    shortcut: Tensor | None = None,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """relu(batch_norm(x, ..., training=True) + shortcut) as one operation; without a shortcut relu(batch_norm(x)).

    shortcut   of x's shape, or None; all other arguments are `batch_norm`'s
    """
    statistics = running_mean, running_var
    x, weight, bias, _, momentum, eps = batch_norm_operands(x, *statistics, weight, bias, True, momentum, eps)
    check_batch_norm_values(x, True)
    if shortcut is None:
        return ops.BatchNormReLU(*statistics, True, momentum, eps)(x, weight, bias)
    shortcut = as_tensor(shortcut, "shortcut", like=x)
    if shortcut.shape != x.shape:
        raise ValueError(f"shortcut must have x's shape {x.shape}, got {shortcut.shape}")
    return ops.BatchNormAddReLU(*statistics, True, momentum, eps)(x, weight, bias, shortcut)


def batch_norm_operands(
    x: Tensor,
    running_mean: Array | None,
    running_var: Array | None,
    weight: Tensor | None,
    bias: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
) -> tuple[Tensor, Tensor | None, Tensor | None, bool, float, float]:
    """The checked arguments of `batch_norm`: x, weight, bias, training, momentum, eps."""
    x, training = as_tensor(x, "x"), flag(training, "training")
    if x.ndim < 2:
        raise ValueError(f"x must be (N, C, ...), got shape {x.shape}")
    C = x.shape[1]
    if C < 1:
        raise ValueError(f"x must have at least one channel, got shape {x.shape}")
    if x.size == 0:
        raise ValueError(f"x must not be empty, got shape {x.shape}")
    weight, bias = _batch_norm_parameters(x, C, running_mean, running_var, weight, bias, training)
    return x, weight, bias, training, number(momentum, "momentum", 0, 1), number(eps, "eps", 0)


def check_batch_norm_values(x: Tensor, training: bool) -> None:
    """One value has no variance."""
    if training and x.size // x.shape[1] < 2:
        raise ValueError(f"x must hold more than one value per channel in training, got shape {x.shape}")


def relu(x: Tensor) -> Tensor:
    """max(x, 0), element by element; the derivative at 0 is 0."""
    return ops.ReLU()(as_tensor(x, "x"))


def exp(x: Tensor) -> Tensor:
    """e^x, element by element."""
    return ops.Exp()(as_tensor(x, "x"))


def log(x: Tensor) -> Tensor:
    """The natural logarithm, element by element: −∞ at 0, NaN below."""
    return ops.Log()(as_tensor(x, "x"))


def sqrt(x: Tensor) -> Tensor:
    """√x, element by element: NaN below 0; the derivative at 0 is infinite."""
    return ops.Sqrt()(as_tensor(x, "x"))


def tanh(x: Tensor) -> Tensor:
    """The hyperbolic tangent, element by element, in (−1, 1)."""
    return ops.Tanh()(as_tensor(x, "x"))


def sigmoid(x: Tensor) -> Tensor:
    """1 / (1 + e^−x), element by element, in (0, 1)."""
    return ops.Sigmoid()(as_tensor(x, "x"))


def max_pool2d(
    x: Tensor,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    dilation: Pair = 1,
    ceil_mode: bool = False,
) -> Tensor:
    """The maximum of each window: x (N, C, H, W) -> (N, C, OH, OW), or of one image (C, H, W) -> (C, OH, OW).

    stride      None: kernel_size
    x           may hold integers too, without a gradient
    padding     of −∞, at most half of what the kernel spans; a dilated window that sees nothing else gives −∞ (of
                integers, the dtype's least)
    ceil_mode   rounds the output size up: the last window may hang over the edge
    """
    x = as_tensor(x, "x", integers=True)
    if x.ndim != 4:
        return _one_image(x, lambda one: max_pool2d(one, kernel_size, stride, padding, dilation, ceil_mode))
    sizes = window(kernel_size, stride, padding)
    return ops.MaxPool2d(*sizes, pair(dilation, "dilation", 1), flag(ceil_mode, "ceil_mode"))(x)


def avg_pool2d(
    x: Tensor,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    *,
    divisor_override: int | None = None,
) -> Tensor:
    """The mean of each window: x (N, C, H, W) -> (N, C, OH, OW), or of one image (C, H, W) -> (C, OH, OW).

    stride              None: kernel_size
    padding             of 0, at most half of the kernel
    ceil_mode           rounds the output size up; what hangs over beyond the padding never counts in the mean
    count_include_pad   whether the padding counts in the mean
    divisor_override    the sum of each window is divided by it, not by what counts; an int, not 0
    """
    x = as_tensor(x, "x")
    if x.ndim != 4:
        options = (stride, padding, ceil_mode, count_include_pad)
        return _one_image(x, lambda one: avg_pool2d(one, kernel_size, *options, divisor_override=divisor_override))
    sizes = window(kernel_size, stride, padding)
    ceil_mode, count_include_pad = flag(ceil_mode, "ceil_mode"), flag(count_include_pad, "count_include_pad")
    node = ops.AvgPool2d(*sizes, ceil_mode, count_include_pad or divisor_override is not None)
    if divisor_override is None:
        return node(x)
    divisor = integer(divisor_override, "divisor_override")
    if divisor == 0:
        raise ValueError("divisor_override must not be 0")
    means = node(x)
    counts = ops.pool.window_sizes(x.shape, *sizes, means.shape)  # (OH, OW)
    return ops.Mul()(means, Tensor(array_module(x.data).asarray(counts / divisor, x.dtype)))


def adaptive_avg_pool2d(x: Tensor, output_size: Any) -> Tensor:
    """Averages x (N, C, H, W), or one image (C, H, W), into bins: -> (N, C, OH, OW) or (C, OH, OW).

    output_size   (OH, OW), an int or an (h, w) pair; None in a pair keeps that size
    """
    x = as_tensor(x, "x")
    if x.ndim != 4:
        return _one_image(x, lambda one: adaptive_avg_pool2d(one, output_size))
    if isinstance(output_size, (tuple, list)):
        if len(output_size) != 2:
            raise ValueError(f"output_size must be an int or an (h, w) pair, got {shown(output_size)}")
        output_size = tuple(n if o is None else o for o, n in zip(output_size, x.shape[2:], strict=True))
    if 0 in x.shape[2:]:
        raise ValueError(f"x must not be empty, got shape {x.shape}")
    return ops.AdaptiveAvgPool2d(pair(output_size, "output_size", 1))(x)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x (..., in) · weight (out, in)ᵀ + bias (out,) -> (..., out)."""
    x = as_tensor(x, "x")
    weight = as_tensor(weight, "weight", 2, "(out, in)", like=x)
    if 0 in weight.shape:
        raise ValueError(f"weight must not be empty, got shape {weight.shape}")
    if x.ndim < 1 or x.shape[-1] != weight.shape[1]:
        raise ValueError(f"x must be (..., {weight.shape[1]}) for a weight of shape {weight.shape}, got {x.shape}")
    if bias is not None:
        bias = as_tensor(bias, "bias", 1, "(out,)", like=x)
        if bias.shape != (weight.shape[0],):
            raise ValueError(f"bias must have shape ({weight.shape[0]},), got {bias.shape}")
    return ops.Linear()(x, weight, bias)


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """a (..., M, K) · b (..., K, N) -> (..., M, N), as `a @ b`; leading axes broadcast.

    An a of shape (K,) is one row and a b of shape (K,) one column; the result lacks that axis.
    """
    a, b = as_tensor(a, "a"), as_tensor(b, "b")
    if a.dtype != b.dtype:
        raise TypeError(f"matmul: operands a and b have dtypes {a.dtype} and {b.dtype}; convert one of them")
    fits = a.ndim > 0 and b.ndim > 0 and a.shape[-1] == b.shape[-2:][0]
    try:
        np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(f"matmul: shapes a {a.shape} and b {b.shape} do not fit as (..., M, K) · (..., K, N)")
    return ops.MatMul()(a, b)


def reshape(x: Tensor, shape: Any) -> Tensor:
    """The same elements in another shape; one size may be -1."""
    x = x if isinstance(x, Tensor) else as_tensor(x, "x")
    sizes = tuple(integer(n, "shape", -1) for n in (shape if isinstance(shape, (tuple, list)) else (shape,)))
    known = math.prod(n for n in sizes if n != -1)
    fits = known == x.size if -1 not in sizes else sizes.count(-1) == 1 and known > 0 and x.size % known == 0
    if not fits:
        raise ValueError(f"shape must hold the {x.size} elements of x {x.shape}, got {shown(shape)}")
    return ops.Reshape(tuple(x.size // known if n == -1 else n for n in sizes))(x)


def flatten(x: Tensor, start_dim: int = 1, *, end_dim: int = -1) -> Tensor:
    """Joins the axes from start_dim to end_dim, itself included, into one: (N, C, H, W) -> (N, C·H·W)."""
    x = as_tensor(x, "x")
    start_dim, end_dim = integer(start_dim, "start_dim"), integer(end_dim, "end_dim")
    if x.ndim == 0:
        return reshape(x, (1,))
    (start,) = axes(start_dim, "start_dim", x.ndim)
    tail = x.shape[start:]
    (end,) = axes(end_dim, "end_dim", start + len(tail))
    if end < start:
        raise ValueError(f"end_dim must not come before start_dim, got {end_dim} and {start_dim} for shape {x.shape}")
    return reshape(x, (*x.shape[:start], math.prod(tail[: end + 1 - start]), *tail[end + 1 - start :]))


def pad(x: Tensor, pad: Any, value: float = 0.0) -> Tensor:
    """Puts `value` around x.

    pad   ((before, after), ...), a pair for every axis of x, each at least 0, as in numpy.pad
    """
    x = as_tensor(x, "x")
    if not isinstance(pad, (tuple, list)) or len(pad) != x.ndim:
        raise ValueError(f"pad must hold a (before, after) pair for each of the {x.ndim} axes of x, got {shown(pad)}")
    if not all(isinstance(p, (tuple, list)) and len(p) == 2 for p in pad):
        raise ValueError(f"pad must hold a (before, after) pair for each of the {x.ndim} axes of x, got {shown(pad)}")
    try:
        value = real(value, "value")
    except OverflowError:
        raise ValueError("value must fit a float, got a larger integer") from None
    return ops.Pad(tuple(_checks.pair(p, "pad", 0) for p in pad), value)(x)


def softmax(x: Tensor, axis: int = -1) -> Tensor:
    """exp(x) / Σ exp(x) along `axis`."""
    return _along(as_tensor(x, "x"), axis, ops.Softmax)


def log_softmax(x: Tensor, axis: int = -1) -> Tensor:
    """x − log Σ exp(x) along `axis`."""
    return _along(as_tensor(x, "x"), axis, ops.LogSoftmax)


def dropout(x: Tensor, p: float = 0.5, training: bool = True) -> Tensor:
    """In training, sets each element to 0 with probability p and scales the others by 1/(1 − p); otherwise x itself."""
    x = as_tensor(x, "x")
    p = number(p, "p", 0, 1)
    return ops.Dropout(p)(x) if flag(training, "training") and p > 0 else x


def cross_entropy(
    logits: Tensor,
    labels: Array,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
    *,
    weight: Array | None = None,
    ignore_index: int | None = None,
) -> Tensor:
    """Cross-entropy between softmax(logits) and the labels.

    logits            (N, C), or (N, C, d1, ...) with a label for every position, or (C,) for one label; finite or −∞,
                      not NaN
    labels            integers (N,) or (N, d1, ...) or (), each in [0, C); or what the probability of every class should
                      be, an array or Tensor like logits (a Tensor may require a gradient too); logits must be finite
    label_smoothing   s in [0, 1]: the target is 1 − s + s/C at the label and s/C elsewhere
    reduction         "mean", "sum" (both give a scalar) or "none" (a loss for every label)
    weight            (C,), a factor for each class's part of the loss; "mean" then divides by the sum of the labels'
                      weights (by the number of positions where labels are probabilities)
    ignore_index      labels of this value count for nothing; None: every label counts (PyTorch's default is −100)
    """
    smoothing = number(label_smoothing, "label_smoothing", 0, 1)
    return classification_loss("logits", logits, labels, reduction, smoothing, weight, ignore_index)


def nll_loss(
    log_probs: Tensor,
    labels: Array,
    reduction: str = "mean",
    *,
    weight: Array | None = None,
    ignore_index: int | None = None,
) -> Tensor:
    """Negative log-likelihood of the labels: −log_probs[n, labels[n]].

    log_probs      (N, C), or (N, C, d1, ...) with a label for every position, or (C,) for one label; not NaN
    labels         integers (N,) or (N, d1, ...) or (), each in [0, C)
    reduction      "mean", "sum" (both give a scalar) or "none" (the shape of labels)
    weight         (C,), a factor for each class's losses; "mean" then divides by the sum of the labels' weights
    ignore_index   labels of this value count for nothing; None: every label counts (PyTorch's default is −100)
    """
    return classification_loss("log_probs", log_probs, labels, reduction, None, weight, ignore_index)


def _conv2d_operands(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: Pair, padding: Pair | str, dilation: Pair, groups: int
) -> tuple[Tensor, Tensor, Tensor | None, tuple[Any, Any, Any, Any]]:
    """The checked arguments of `conv2d`, x (N, C, H, W): x, weight, bias and the options of `ops.Conv2d`."""
    weight = as_tensor(weight, "weight", 4, "(O, C/groups, KH, KW)", like=x)
    bias = None if bias is None else as_tensor(bias, "bias", 1, "(O,)", like=x)
    stride, dilation = pair(stride, "stride", 1), pair(dilation, "dilation", 1)
    if isinstance(padding, str):
        x, padding = _padded(x, weight.shape[2:], stride, padding, dilation)
    return x, weight, bias, (stride, pair(padding, "padding", 0), dilation, integer(groups, "groups", 1))


def _batch_norm_parameters(
    x: Tensor,
    C: int,
    running_mean: Array | None,
    running_var: Array | None,
    weight: Tensor | None,
    bias: Tensor | None,
    training: bool,
    *names: str,
) -> tuple[Tensor | None, Tensor | None]:
    """Checks the statistics of C channels and returns the checked weight and bias; `names` of those two, for errors."""
    if (running_mean is None) != (running_var is None):
        raise ValueError("running_mean and running_var must be given both or not at all, got only one")
    for name, statistic in (("running_mean", running_mean), ("running_var", running_var)):
        if statistic is None:
            if not training:
                raise ValueError(f"{name} must be given in evaluation (training=False), got None")
        else:
            plain_array(statistic, name, "a plain array")
            if statistic.dtype.kind != "f":
                raise TypeError(f"{name} must have a floating dtype, got {statistic.dtype}")
            if training:
                unpin(statistic)
            if training and not getattr(statistic.flags, "writeable", True):
                raise ValueError(f"{name} must be writable in training, got a read-only array")
            if statistic.shape != (C,):
                raise ValueError(f"{name} must have shape ({C},), one value a channel of x, got {statistic.shape}")
    checked: list[Tensor | None] = []
    for name, parameter in zip(names or ("weight", "bias"), (weight, bias), strict=True):
        if parameter is not None:
            parameter = as_tensor(parameter, name, 1, "(C,)", like=x)
            if parameter.shape != (C,):
                raise ValueError(f"{name} must have shape ({C},), one value a channel of x, got {parameter.shape}")
        checked.append(parameter)
    return checked[0], checked[1]


def _one_image(x: Tensor, operation: Callable[[Tensor], Tensor]) -> Tensor:
    """x (C, H, W) through an operation on (N, C, H, W)."""
    if x.ndim != 3:
        raise ValueError(f"x must be (N, C, H, W) or (C, H, W), got shape {x.shape}")
    y = operation(reshape(x, (1, *x.shape)))
    return reshape(y, y.shape[1:])


def _padded(x: Tensor, kernel: Any, stride: Any, padding: str, dilation: Any) -> tuple[Tensor, tuple[int, int]]:
    """What the word `padding` stands for: x, with one row or column more where that is odd, and the rest."""
    if choice(padding, "padding", ("same", "valid")) == "valid":
        return x, (0, 0)
    if stride != (1, 1):
        raise ValueError(f"padding must be numbers where stride is not 1: 'same' goes with stride 1, got {stride}")
    totals = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    if any(total % 2 for total in totals):
        x = ops.Pad(((0, 0), (0, 0), (0, totals[0] % 2), (0, totals[1] % 2)), 0.0)(x)
    return x, (totals[0] // 2, totals[1] // 2)


def _along(x: Tensor, axis: int, operation: type[ops.Softmax] | type[ops.LogSoftmax]) -> Tensor:
    """The operation along one axis.  A scalar has the axes 0 and −1, of size 1; what is empty stays empty."""
    if x.ndim == 0:
        return reshape(_along(reshape(x, (1,)), axis, operation), ())
    (chosen,) = axes(integer(axis, "axis"), "axis", x.ndim)
    return operation(chosen)(x) if x.size else reshape(x, x.shape)
