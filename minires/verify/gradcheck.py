"""Gradients against finite differences.

The tape's gradient of  s = Σ y · c  for a random cotangent c is compared with central differences of s, in float64.
(A cotangent of ones would hide bugs: a batch-norm gradient multiplied by −7 passes it.)

ReLU and max pooling have kinks, and a central difference across one is wrong though the gradient is right.  Where the
two disagree, the step is therefore made smaller and the slopes are looked at again:

- the numerical slope now agrees: a kink lay within the step.  A wrong gradient does not become right so.
- the slopes to the left and to the right stay apart: the point lies on a kink.  Of a smooth function they close in
  proportion to the step.
- anything else is a wrong gradient, and is reported at once, whatever else was seen at this point.

A point on a kink proves nothing either way: it is moved a little and checked anew.  So is, element by element, one that
is near a kink; along random directions through a whole network, where a step moves millions of units at once and some
of them cross theirs at every point, the agreement of the finer difference counts.  The check passes only at a point
where every difference agrees, so a wrong gradient that was taken for a kink by mistake is still never let through.

A wrong slope along a direction is followed down to one element: of the two halves of the direction, the one that holds
more of the disagreement holds a wrong element.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from minires import readonly
from minires._checks import choice, integer, iterable, number
from minires._repr import shown
from minires.arrays import Array
from minires.context import no_grad
from minires.tensor import Tensor

FINER = (16, 256)  # by how much the step shrinks for a second look, and along a random direction for a third


class GradcheckError(AssertionError):
    """A gradient that disagrees with finite differences, or a function that cannot be checked.

    input                    whose gradient is wrong, e.g. "input 1 (weight)"; "" where the function cannot be checked
    index                    of the worst element found
    numerical, analytical    its two slopes, of Σ y · c for a random cotangent c
    """

    def __init__(
        self,
        message: str,
        input: str = "",
        index: tuple[int, ...] = (),
        numerical: float = float("nan"),
        analytical: float = float("nan"),
    ) -> None:
        super().__init__(message)
        self.input, self.index, self.numerical, self.analytical = input, index, numerical, analytical


class _Kink(Exception):
    """The point lies on a kink or a tie: move it."""


@dataclass(frozen=True)
class _Wrong:
    """A place where the two slopes disagree."""

    index: tuple[int, ...]
    numerical: float
    analytical: float
    tolerance: float

    @property
    def excess(self) -> float:
        return abs(self.numerical - self.analytical) / self.tolerance

    def __str__(self) -> str:
        slopes = f"numerical {self.numerical:.10g}, analytical {self.analytical:.10g}"
        return f"index {self.index}: {slopes}, both of Σ y · c for a random cotangent c, tolerance {self.tolerance:.2g}"


@dataclass
class _Checked:
    """An input whose gradient is checked."""

    told: str  # "input 1 (weight)"
    tensor: Tensor
    original: Array
    original_grad: Array | None


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
    redraws: int = 20,
) -> bool:
    """Compares the gradients of `fn` with central differences; returns True or raises GradcheckError.

    fn          takes the inputs as Tensors, in order, and returns a Tensor of any shape, the same for the same inputs
    inputs      an array or Tensor, several of them, or a mapping whose keys name them in the failure text.
                Floating arrays are checked in float64, on a converted copy; so are leaf Tensors with requires_grad,
                but in place (and restored afterwards), so that fn may hold them itself instead of taking them.
                All else (integer arrays such as labels, Tensors that require no gradient) is passed on as it is
    eps         step of the central difference; in projected mode shorter for an input whose gradient exceeds the output
    rtol, atol  |numerical − analytical| ≤ atol + rtol · max(|numerical|, largest gradient of that input) is allowed,
                and what rounding the output's sum may cost
    seed        of the cotangent, the directions and the redraws
    mode        "full": every element of every input; "projected": `directions` random directions through each input,
                two forward passes each, for whole networks
    redraws     how often a point on a kink (ReLU at 0) or a tie (equal maxima) is moved by a small random step

        gradcheck(F.conv2d, {"x": x, "weight": w}, seed=1)
        gradcheck(lambda *_: model(x), dict(model.named_parameters()), mode="projected")     # model.astype("float64")

    Raises GradcheckError with the input, the worst index, both values and the tolerance; and when fn changes its
    inputs, is not deterministic, gives NaN or inf, or does not depend on an input.
    """
    if not callable(fn):
        raise TypeError(f"fn must be a function of Tensors, got {shown(fn)}")
    eps = number(eps, "eps", 0, open_minimum=True)
    rtol, atol = number(rtol, "rtol", 0), number(atol, "atol", 0)
    choice(mode, "mode", ("full", "projected"))
    integer(directions, "directions", 1)
    integer(redraws, "redraws", 0)
    rng = np.random.default_rng(integer(seed, "seed", 0))

    arguments, checked = _prepare(inputs)
    try:
        for draw in range(redraws + 1):
            if draw:
                _move(checked, min(1e-3 * 2**draw, 0.1), rng)
            try:
                _check(fn, arguments, checked, eps, rtol, atol, rng, directions if mode == "projected" else None)
                return True
            except _Kink as kink:
                last = kink
        raise GradcheckError(f"after {redraws} redraws the inputs still lie on a kink or a tie: {last}")
    finally:
        for entry in checked:
            with readonly.writable(entry.tensor.data):  # an error's traceback may keep a tape alive
                entry.tensor.data[...] = entry.original
            entry.tensor.grad = entry.original_grad


def _prepare(inputs: Any) -> tuple[list[Any], list[_Checked]]:
    """The arguments of fn, and those among them that are checked."""
    named: Iterable[tuple[Any, Any]]
    if isinstance(inputs, Mapping):
        named = inputs.items()
    elif isinstance(inputs, (Tensor, np.ndarray, float, int)):
        named = [("", inputs)]
    else:
        named = [("", value) for value in iterable(inputs, "inputs", "arrays, or a mapping of names to arrays")]
    arguments: list[Any] = []
    checked = []
    for position, (name, value) in enumerate(named):
        told = f"input {position} ({name})" if name else f"input {position}"
        argument = value
        if not isinstance(value, Tensor) and np.asarray(value).dtype.kind == "f":
            argument = Tensor(np.array(value, np.float64), requires_grad=True)
        arguments.append(argument)
        if isinstance(argument, Tensor) and argument.requires_grad:
            if argument.node is not None:
                raise ValueError(f"{told} must be a leaf, but it was computed by {argument.node!r}")
            if argument.dtype != np.float64:
                raise TypeError(f"{told} must be float64 to be perturbed in place, got {argument.dtype}")
            if not argument.data.flags.writeable:
                raise ValueError(f"{told} must be writeable to be perturbed in place, but its array is read-only")
            checked.append(_Checked(told, argument, argument.data.copy(), argument.grad))
    if not checked:
        raise ValueError("inputs must hold at least one floating array or Tensor that requires a gradient, got none")
    return arguments, checked


def _move(checked: list[_Checked], scale: float, rng: np.random.Generator) -> None:
    for entry in checked:
        step = rng.standard_normal(entry.original.shape) * (1 + np.abs(entry.original))
        entry.tensor.data[...] = entry.original + scale * step


def _check(
    fn: Callable[..., Tensor],
    arguments: list[Any],
    checked: list[_Checked],
    eps: float,
    rtol: float,
    atol: float,
    rng: np.random.Generator,
    directions: int | None,
) -> None:
    """The whole comparison at one point; `directions` is None for every element."""
    for entry in checked:
        entry.tensor.grad = None
    y, cotangent = _differentiate(fn, arguments, checked, rng)

    def value() -> float:
        with no_grad():
            return float(np.vdot(fn(*arguments).data, cotangent))

    base = float(np.vdot(y, cotangent))
    projected = directions is not None
    noise = 8 * float(np.finfo(np.float64).eps) * (abs(base) + float(np.abs(y * cotangent).sum()))  # of one value

    kinks: list[str] = []
    whole_eps, whole_noise, size = eps, noise, float(np.linalg.norm(y * cotangent))
    for entry in checked:
        data, grad = entry.tensor.data, _gradient(entry)
        largest = 0.0 if grad is None else float(np.abs(grad).max(initial=0.0))
        if projected:
            # Where gradients explode, as in a plain network of 110 layers, the output bends as quickly, and rounding
            # grows as they do: the steeper beside its own size, the shorter the step, and what the last bit of the
            # input does to the output is allowed.
            eps = whole_eps / max(1.0, largest / max(size, 1e-300))
            noise = max(whole_noise, _last_bit(value, data, base, rng))
        moved = 0.0
        wrong: list[_Wrong] = []
        for index, direction in _directions(data, directions, rng):
            analytical = 0.0 if grad is None else float(np.vdot(grad, direction))
            left, right = _slopes(value, data, direction, eps, base)
            numerical = (left + right) / 2
            moved = max(moved, abs(left), abs(right))
            tolerance = atol + rtol * max(abs(numerical), largest) + noise / eps
            if grad is None or abs(numerical - analytical) <= tolerance:
                continue
            found = _Wrong(index, numerical, analytical, tolerance)
            for finer in FINER if projected else FINER[:1]:
                finer_left, finer_right = _slopes(value, data, direction, eps / finer, base)
                within_the_step = abs((finer_left + finer_right) / 2 - analytical) <= tolerance
                if within_the_step:
                    break
            gap, finer_gap = abs(right - left), abs(finer_right - finer_left)
            on_the_point = finer_gap > noise * finer / eps and finer_gap > gap / 4  # a smooth one: gap / finer
            if within_the_step and projected:
                continue
            if within_the_step or on_the_point:
                kinks.append(f"{entry.told}, {found}")
            else:
                wrong.append(_narrowed(value, data, grad, direction, eps, base, found) if projected else found)
        if grad is None and moved <= noise / eps:
            raise GradcheckError(f"fn's output does not depend on {entry.told}")
        if grad is None:
            told = f"fn's output depends on {entry.told}, but backward gives that input no gradient"
            raise GradcheckError(told, entry.told)
        if wrong:
            worst = max(wrong, key=lambda w: (np.isnan(w.excess), w.excess))  # NaN is worse than any number
            told = f"the gradient is wrong at {len(wrong)} of the places tried; worst at {worst}"
            told = f"{entry.told} of shape {data.shape}: {told}"
            raise GradcheckError(told, entry.told, worst.index, worst.numerical, worst.analytical)
    if kinks:
        raise _Kink(kinks[0])


def _differentiate(
    fn: Callable[..., Tensor], arguments: list[Any], checked: list[_Checked], rng: np.random.Generator
) -> tuple[Array, Array]:
    """Calls fn, sees whether it can be checked at all, and sends a cotangent back: the output and the cotangent."""
    arrays = [np.asarray(a.data if isinstance(a, Tensor) else a) for a in arguments]
    before = [array.copy() for array in arrays]
    output = fn(*arguments)
    if not isinstance(output, Tensor):
        raise GradcheckError(f"fn must return a Tensor, got {type(output).__name__}")
    for position, (kept, array) in enumerate(zip(before, arrays, strict=True)):
        if not _same(kept, array):
            raise GradcheckError(f"fn changes its input {position} in place")
    if output.dtype != np.float64:
        raise GradcheckError(f"fn must compute in float64, its output is {output.dtype}")
    y = output.data.copy()
    if not np.isfinite(y).all():
        where = _first(~np.isfinite(y))
        raise GradcheckError(f"fn's output is not finite: {y[where]} at index {where}")
    if not output.requires_grad:
        raise GradcheckError("fn's output depends on none of the inputs through the tape")
    with no_grad():
        again = fn(*arguments).data
    if not _same(y, again):
        raise GradcheckError("fn is not deterministic: two calls with the same inputs differ (dropout without a seed?)")
    cotangent = rng.standard_normal(y.shape)
    given = cotangent.copy()
    output.backward(given)
    if not _same(cotangent, given):
        raise GradcheckError("fn's backward changes grad_output in place")
    return y, cotangent


def _gradient(entry: _Checked) -> Array | None:
    grad, data = entry.tensor.grad, entry.tensor.data
    if grad is None:
        return None
    if grad.shape != data.shape or grad.dtype != data.dtype:
        raise GradcheckError(
            f"{entry.told}: the gradient has shape {grad.shape} and dtype {grad.dtype}, "
            f"the input {data.shape} and {data.dtype}"
        )
    if not np.isfinite(grad).all():
        where = _first(~np.isfinite(grad))
        raise GradcheckError(f"{entry.told}: the gradient at index {where} is {grad[where]}")
    return grad


def _directions(
    data: Array, directions: int | None, rng: np.random.Generator
) -> Iterator[tuple[tuple[int, ...], Array]]:
    """(index of the element, direction); of a random direction the index of its largest element."""
    if directions is None:
        for where in np.ndindex(data.shape):
            direction = np.zeros_like(data)
            direction[where] = 1
            yield where, direction
    elif data.size:
        for _ in range(directions):
            direction = rng.standard_normal(data.shape)
            largest = np.unravel_index(np.abs(direction).argmax(), data.shape)
            yield tuple(int(i) for i in largest), direction / np.linalg.norm(direction)


def _narrowed(
    value: Callable[[], float], data: Array, grad: Array, direction: Array, eps: float, base: float, found: _Wrong
) -> _Wrong:
    """One wrong element, for a direction along which the slope is wrong.

    Where a difference as small as one element's drowns in rounding, the slopes are still those along the direction.
    """

    def slope(along: Array) -> float:
        return sum(_slopes(value, data, along, eps, base)) / 2

    index = wrong_element(slope, grad, direction)
    element = np.zeros_like(data)
    element[index] = 1
    at_it = _Wrong(index, slope(element), float(grad[index]), found.tolerance)
    return at_it if at_it.excess > 1 else replace(found, index=index)


def wrong_element(slope: Callable[[Array], float], grad: Array, direction: Array) -> tuple[int, ...]:
    """The index of an element of `grad` that is wrong, if the slope along `direction` is not that of `grad`.

    Of the two halves of the direction, the one that holds more of the disagreement holds a wrong element.
    """
    flat = direction.ravel()
    low, high = 0, flat.size
    while high - low > 1:
        middle = (low + high) // 2
        disagreements = []
        for begin, end in ((low, middle), (middle, high)):
            part = np.zeros_like(flat)
            part[begin:end] = flat[begin:end]
            half = part.reshape(direction.shape)
            disagreements.append(abs(slope(half) - float(np.vdot(grad, half))))
        low, high = (middle, high) if disagreements[0] < disagreements[1] else (low, middle)
    return tuple(int(i) for i in np.unravel_index(low, direction.shape))


def _last_bit(value: Callable[[], float], data: Array, base: float, rng: np.random.Generator) -> float:
    """How far the value moves when about half of the input's elements change in their last bit."""
    kept = data.copy()
    try:
        data[...] = kept * (1 + np.finfo(np.float64).eps * rng.integers(-1, 2, data.shape))
        return 4 * abs(value() - base)
    finally:
        data[...] = kept


def _slopes(value: Callable[[], float], data: Array, direction: Array, step: float, base: float) -> tuple[float, float]:
    """The slopes to the left and to the right of the point; their mean is the central difference."""
    kept = data.copy()
    try:
        data[...] = kept - step * direction
        left = (base - value()) / step
        data[...] = kept + step * direction
        right = (value() - base) / step
    finally:
        data[...] = kept
    return left, right


def _same(a: Array, b: Array) -> bool:
    return np.array_equal(a, b, equal_nan=a.dtype.kind == "f")


def _first(mask: Array) -> tuple[int, ...]:
    return tuple(int(n) for n in np.argwhere(mask)[0])
