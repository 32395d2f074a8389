"""Gradients against finite differences.

The tape's gradient of  s = Σ y · c  for a random cotangent c is compared with central differences of s, in float64.
(A cotangent of ones would hide bugs: a batch-norm gradient multiplied by −7 passes it.)

ReLU and max pooling have kinks.  A central difference whose step straddles one is wrong though the gradient is right:
by half the gap between the two one-sided slopes.  Where the function is smooth that gap is step · |s″|, far smaller
than any error worth the name, and it shrinks with the step.  So a disagreement counts as a kink, and the point is
redrawn, only if the gap is large enough to explain it and does not shrink in proportion; a wrong gradient of a smooth
function has no such gap and is an error whatever the draw.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minires._checks import choice, integer, number
from minires.arrays import Array
from minires.autograd import no_grad
from minires.tensor import Tensor

MAX_REDRAWS = 20


class GradcheckError(AssertionError):
    """A gradient that disagrees with finite differences, or a function that cannot be checked."""


class _Kink(Exception):
    """The point lies on a kink or a tie: draw another."""


def gradcheck(
    fn: Callable[..., Tensor],
    inputs: Any,
    eps: float = 1e-6,
    rtol: float = 1e-5,
    atol: float = 1e-7,
    seed: int = 0,
    *,
    mode: str = "full",
    directions: int = 4,
) -> bool:
    """Compares the gradients of `fn` with central differences; returns True or raises GradcheckError.

    fn          takes the inputs as Tensors (and may ignore them, where they are leaves that it holds, such as a model's
                parameters: `gradcheck(lambda *_: model(x), list(model.parameters()), mode="projected")`); returns a
                Tensor of any shape, the same for the same inputs
    inputs      an array or Tensor, or a sequence of them.  Floating arrays and Tensors that require a gradient are
                checked; other Tensors and integer arrays are passed on.  Arrays of lower precision are converted to
                float64; a Tensor that requires a gradient must be float64, as it is perturbed in place and restored
    eps         step of the central difference
    rtol, atol  |numerical − analytical| ≤ atol + rtol · max(|numerical|, largest gradient of that input) is allowed
    seed        of the cotangent, the directions and the redraws
    mode        "full": every element of every input; "projected": `directions` random directions through each input
                at the cost of two forward passes each, for whole networks

    A point on a kink (ReLU at 0) or a tie (equal maxima) is noticed and moved by a small random step, at most 20 times.
    The inputs come back unmodified.
    """
    number(eps, "eps", 0, open_minimum=True)
    number(rtol, "rtol", 0)
    number(atol, "atol", 0)
    choice(mode, "mode", ("full", "projected"))
    integer(directions, "directions", 1)
    rng = np.random.default_rng(integer(seed, "seed", 0))

    tensors, checked = _prepare(inputs)
    if not checked:
        raise ValueError("inputs must hold at least one floating array or a Tensor that requires a gradient")
    originals = {i: tensors[i].data.copy() for i in checked}
    try:
        for draw in range(MAX_REDRAWS + 1):
            if draw:
                for i in checked:
                    scale = 1e-2 * (1 + np.abs(originals[i]))
                    tensors[i].data[...] = originals[i] + scale * rng.standard_normal(originals[i].shape)
            try:
                return _check(fn, tensors, checked, eps, rtol, atol, rng, mode, directions)
            except _Kink as kink:
                last = kink
        raise GradcheckError(f"after {MAX_REDRAWS} redraws the inputs still lie on a kink or a tie: {last}")
    finally:
        for i in checked:
            tensors[i].data[...] = originals[i]
            tensors[i].grad = None


def _prepare(inputs: Any) -> tuple[list[Any], list[int]]:
    """The arguments of fn, and the positions of those to be checked."""
    if not isinstance(inputs, Sequence):
        inputs = [inputs]
    arguments: list[Any] = []
    checked = []
    for position, value in enumerate(inputs):
        if isinstance(value, Tensor):
            if value.requires_grad:
                if value.dtype != np.float64:
                    raise TypeError(f"input {position} must be float64 to be perturbed in place, got {value.dtype}")
                if value.node is not None:
                    raise ValueError(f"input {position} must be a leaf, but it was computed by {value.node!r}")
                checked.append(position)
            arguments.append(value)
        else:
            array = np.asarray(value)
            if array.dtype.kind == "f":
                checked.append(position)
                arguments.append(Tensor(array.astype(np.float64), requires_grad=True))
            else:
                arguments.append(value)
    return arguments, checked


def _check(
    fn: Callable[..., Tensor],
    arguments: list[Any],
    checked: list[int],
    eps: float,
    rtol: float,
    atol: float,
    rng: np.random.Generator,
    mode: str,
    directions: int,
) -> bool:
    before = {i: arguments[i].data.copy() for i in checked}
    for i in checked:
        arguments[i].grad = None
    output = fn(*arguments)
    if not isinstance(output, Tensor):
        raise GradcheckError(f"fn must return a Tensor, got {type(output).__name__}")
    if output.dtype != np.float64:
        raise GradcheckError(f"fn must compute in float64, its output is {output.dtype}")
    if not output.requires_grad:
        raise GradcheckError("fn's output depends on none of the inputs through the tape")
    y = output.data.copy()
    if not np.isfinite(y).all():
        where = tuple(int(n) for n in np.argwhere(~np.isfinite(y))[0])
        raise GradcheckError(f"fn's output is not finite: {y[where]} at index {where}")
    cotangent = rng.standard_normal(y.shape)
    output.backward(cotangent)

    def value() -> float:
        with no_grad():
            return float(np.vdot(fn(*arguments).data, cotangent))

    base = value()
    if base != value():
        raise GradcheckError("fn is not deterministic: two calls with the same inputs differ (dropout without a seed?)")
    for i in checked:
        if not np.array_equal(before[i], arguments[i].data):
            raise GradcheckError(f"fn changed its input {i} in place")

    for i in checked:
        data: Array = arguments[i].data
        grad = arguments[i].grad
        if grad is None:
            grad = np.zeros_like(data)  # no path on the tape: then the differences must be zero too
        if grad.shape != data.shape:
            raise GradcheckError(f"input {i}: the gradient has shape {grad.shape}, the input {data.shape}")
        if not np.isfinite(grad).all():
            where = tuple(int(n) for n in np.argwhere(~np.isfinite(grad))[0])
            raise GradcheckError(f"input {i}: the gradient at index {where} is {grad[where]}")
        largest = float(np.abs(grad).max(initial=0.0))
        steps = _single_elements(data) if mode == "full" else _random_directions(data, directions, rng)
        failures = []
        for where, direction in steps:
            analytical = float(np.vdot(grad, direction))
            numerical = _slope(value, data, direction, eps)
            # Rounding of the two sums bounds what a difference quotient can resolve.
            rounding = 8 * np.finfo(np.float64).eps * (abs(base) + np.abs(y * cotangent).sum()) / eps
            tolerance = atol + rtol * max(abs(numerical), largest) + rounding
            if not abs(numerical - analytical) <= tolerance:
                if _on_a_kink(value, data, direction, eps, base, abs(numerical - analytical)):
                    raise _Kink(f"input {i}, {where}")
                failures.append((abs(numerical - analytical) / tolerance, where, numerical, analytical, tolerance))
        if failures:
            _, where, numerical, analytical, tolerance = max(failures, key=lambda f: (f[0] != f[0], f[0]))
            raise GradcheckError(
                f"input {i} of shape {data.shape}: the gradient is wrong at {len(failures)} of the places tried; "
                f"worst at {where}: numerical {numerical:.10g}, analytical {analytical:.10g}, "
                f"tolerance {tolerance:.2g}"
            )
    return True


def _single_elements(data: Array) -> Any:
    for where in np.ndindex(data.shape):
        direction = np.zeros_like(data)
        direction[where] = 1
        yield f"index {where}", direction


def _random_directions(data: Array, directions: int, rng: np.random.Generator) -> Any:
    for number_ in range(directions):
        direction = rng.standard_normal(data.shape)
        yield f"direction {number_}", direction / max(float(np.linalg.norm(direction)), 1e-300)


def _at(value: Callable[[], float], data: Array, direction: Array, step: float) -> float:
    kept = data.copy()
    data += step * direction
    try:
        return value()
    finally:
        data[...] = kept


def _slope(value: Callable[[], float], data: Array, direction: Array, eps: float) -> float:
    return (_at(value, data, direction, eps) - _at(value, data, direction, -eps)) / (2 * eps)


def _on_a_kink(
    value: Callable[[], float], data: Array, direction: Array, eps: float, base: float, disagreement: float
) -> bool:
    """Whether a jump of the slope within ±eps explains the disagreement (see the top of this file)."""

    def gap(step: float) -> float:
        right = (_at(value, data, direction, step) - base) / step
        left = (base - _at(value, data, direction, -step)) / step
        return abs(right - left)

    coarse = gap(eps)
    if not coarse >= disagreement:  # NaN is no kink either
        return False
    shrinks_in_proportion = 0.7 < gap(eps / 8) / (coarse / 8) < 1.4
    return not shrinks_in_proportion
