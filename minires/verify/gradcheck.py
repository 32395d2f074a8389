"""Compares gradients with finite differences.

gradcheck draws a random cotangent c.  It compares the tape's gradient of  s = Σ y · c  with central differences of s,
in float64.  (A cotangent of ones would hide bugs: a batch-norm gradient multiplied by −7 passes with it.)

ReLU and max pooling have kinks.  A central difference across a kink is wrong even if the gradient is right.  Where the
difference and the gradient disagree, gradcheck therefore repeats the difference with a smaller step:

- The difference now agrees with the gradient: a kink lay within the larger step.  A smaller step does not make a wrong
  gradient agree.
- The slopes to the left and to the right stay apart: the point lies on a kink.  For a smooth function, the gap between
  the two slopes shrinks in proportion to the step.
- Otherwise the gradient is wrong.  gradcheck reports it at once, even if it found kinks at the same point.

A point on a kink is inconclusive: gradcheck moves the inputs a little and checks again.  In full mode it does the same
for a point near a kink.  In projected mode it accepts the smaller step's agreement instead: a step through a whole
network moves millions of units, and at every point some of them cross a kink.  The check passes only at a point where
every difference agrees, so a wrong gradient never passes because it was mistaken for a kink.

Mode "taylor" needs no step size: it sweeps the step and checks that the Taylor remainder falls as h² (taylor.py).  Use
it where a difference of two values is ill-conditioned.  The other modes report the remainder's order with each failure.

For a wrong slope along a random direction, gradcheck bisects the direction to find one wrong element.  The half with
the larger disagreement contains one.
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
from minires.verify.taylor import remainder

FINER = (16, 256)  # divisors of the step for the second difference and, in projected mode, the third


class GradcheckError(AssertionError):
    """A gradient disagrees with finite differences, or the function cannot be checked.

    input                    the input with the wrong gradient, e.g. "input 1 (weight)"; "" if the check is impossible
    index                    index of the worst element found
    numerical, analytical    both slopes of Σ y · c at that element, for a random cotangent c
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
    """The point lies on or near a kink or a tie, so the inputs must be moved."""


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

    label: str  # "input 1 (weight)"
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
                Floating arrays are checked on a float64 copy.
                Leaf Tensors with requires_grad must be float64.  They are perturbed in place and restored afterwards,
                so fn may use them (a model's parameters) without taking them as arguments.
                Other inputs (integer arrays such as labels, Tensors without requires_grad) are passed on unchanged
    eps         step of the central difference; in projected mode shorter for an input whose gradient exceeds the output
    rtol, atol  tolerance: |numerical − analytical| ≤ atol + rtol · max(|numerical|, largest gradient of that input),
                plus the rounding error of the output's sum
    seed        seed of the cotangent, the directions and the redraws
    mode        "full": every element of every input; "projected": `directions` random directions through each input,
                two forward passes each, for whole networks;
                "taylor": the order of the Taylor remainder along `directions` random directions through each input,
                with a sweep of steps instead of eps, rtol and atol
    redraws     largest number of random moves away from a kink (ReLU at 0) or a tie (equal maxima)

        gradcheck(F.conv2d, {"x": x, "weight": w}, seed=1)
        gradcheck(lambda *_: model(x), dict(model.named_parameters()), mode="projected")     # model.astype("float64")

    Raises GradcheckError for a wrong gradient, with the input, the worst index, both slopes and the tolerance.  Also
    raises it if fn changes its inputs, is not deterministic, returns NaN or inf, or does not depend on an input.
    """
    if not callable(fn):
        raise TypeError(f"fn must be a function of Tensors, got {shown(fn)}")
    eps = number(eps, "eps", 0, open_minimum=True)
    rtol, atol = number(rtol, "rtol", 0), number(atol, "atol", 0)
    choice(mode, "mode", ("full", "projected", "taylor"))
    integer(directions, "directions", 1)
    integer(redraws, "redraws", 0)
    rng = np.random.default_rng(integer(seed, "seed", 0))

    arguments, checked = _prepare(inputs)
    try:
        for draw in range(redraws + 1):
            if draw:
                _move(checked, min(1e-3 * 2**draw, 0.1), rng)
            try:
                if mode == "taylor":
                    _check_order(fn, arguments, checked, rng, directions)
                else:
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
    """The arguments of fn, and the arguments whose gradients are checked."""
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
        label = f"input {position} ({name})" if name else f"input {position}"
        argument = value
        if not isinstance(value, Tensor) and np.asarray(value).dtype.kind == "f":
            argument = Tensor(np.array(value, np.float64), requires_grad=True)
        arguments.append(argument)
        if isinstance(argument, Tensor) and argument.requires_grad:
            if argument.node is not None:
                raise ValueError(f"{label} must be a leaf, but it was computed by {argument.node!r}")
            if argument.dtype != np.float64:
                raise TypeError(f"{label} must be float64 to be perturbed in place, got {argument.dtype}")
            if not argument.data.flags.writeable:
                raise ValueError(f"{label} must be writeable to be perturbed in place, but its array is read-only")
            checked.append(_Checked(label, argument, argument.data.copy(), argument.grad))
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
    """Compares all gradients at one point, element by element if `directions` is None; raises _Kink at a kink."""
    value, base, noise, size = _point(fn, arguments, checked, rng)
    projected = directions is not None

    kinks: list[str] = []
    whole_eps, whole_noise = eps, noise
    for entry in checked:
        data, grad = entry.tensor.data, _gradient(entry)
        largest = 0.0 if grad is None else float(np.abs(grad).max(initial=0.0))
        if projected:
            # Where gradients explode, as in a plain network of 110 layers, the output bends quickly and amplifies
            # rounding.  So the step shrinks by the ratio of gradient to output, and the tolerance includes the change
            # of the output when the input's last bits change.
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
            on_the_point = finer_gap > noise * finer / eps and finer_gap > gap / 4  # smooth: finer_gap = gap / finer
            if within_the_step and projected:
                continue
            if within_the_step or on_the_point:
                kinks.append(f"{entry.label}, {found}")
            else:
                wrong.append(_narrowed(value, data, grad, direction, eps, base, found) if projected else found)
        if grad is None and moved <= noise / eps:
            raise GradcheckError(f"fn's output does not depend on {entry.label}")
        if grad is None:
            message = f"fn's output depends on {entry.label}, but backward gives that input no gradient"
            raise GradcheckError(message, entry.label)
        if wrong:
            worst = max(wrong, key=lambda w: (np.isnan(w.excess), w.excess))  # NaN is worse than any number
            message = f"the gradient is wrong at {len(wrong)} of the places tried; worst at {worst}"
            message = f"{entry.label} of shape {data.shape}: {message}"
            along = np.zeros_like(data)
            along[worst.index] = 1
            order = remainder(_change(value, data, along, base), worst.analytical, noise).order
            if np.isfinite(order):
                message += f"; the Taylor remainder falls as h^{order:.2f}, a right gradient's as h²"
            raise GradcheckError(message, entry.label, worst.index, worst.numerical, worst.analytical)
    if kinks:
        raise _Kink(kinks[0])


def _check_order(
    fn: Callable[..., Tensor], arguments: list[Any], checked: list[_Checked], rng: np.random.Generator, directions: int
) -> None:
    """Checks the order of the Taylor remainder at one point; raises _Kink on a kink."""
    value, base, noise, _ = _point(fn, arguments, checked, rng)
    visible = []
    for entry in checked:
        data, grad = entry.tensor.data, _gradient(entry)
        for index, direction in _directions(data, directions, rng):
            slope = 0.0 if grad is None else float(np.vdot(grad, direction))
            found = remainder(_change(value, data, direction, base), slope, noise)
            visible.append(not found.hidden)
            if found.right:
                continue
            where = f"along a direction that is largest at index {index}"
            if not remainder(_bend(value, data, direction, base), 0.0, 2 * noise).right:
                raise _Kink(f"{entry.label}, {where}")
            numerical = sum(_slopes(value, data, direction, found.steps[-1], base)) / 2
            message = f"the Taylor remainder falls as h^{found.order:.2f}, a right gradient's as h²"
            message = f"{message}; {where}: numerical {numerical:.10g}, analytical {slope:.10g}"
            message = f"{entry.label} of shape {data.shape}: {message}"
            raise GradcheckError(message, entry.label, index, numerical, slope)
    if visible and not any(visible):
        raise GradcheckError(f"nothing was checked: rounding of fn's output, {noise:.2g}, hides its change")


def _change(value: Callable[[], float], data: Array, direction: Array, base: float) -> Callable[[float], float]:
    """How the value changes when the input moves by a step along a direction"""

    def change(step: float) -> float:
        kept = data.copy()
        try:
            data[...] = kept + step * direction
            return value() - base
        finally:
            data[...] = kept

    return change


def _bend(value: Callable[[], float], data: Array, direction: Array, base: float) -> Callable[[float], float]:
    """The second difference: it falls as h² at a smooth point and as h on a kink."""
    change = _change(value, data, direction, base)
    return lambda step: change(step) + change(-step)


def _point(
    fn: Callable[..., Tensor], arguments: list[Any], checked: list[_Checked], rng: np.random.Generator
) -> tuple[Callable[[], float], float, float, float]:
    """Computes all gradients at one point, for a random cotangent.

    Returns a function that gives ⟨fn's output, cotangent⟩ at the inputs' present values, its value at the point, the
    rounding error of one value, and the norm of the output times the cotangent.
    """
    for entry in checked:
        entry.tensor.grad = None
    y, cotangent = _differentiate(fn, arguments, checked, rng)

    def value() -> float:
        with no_grad():
            return float(np.vdot(fn(*arguments).data, cotangent))

    base, products = float(np.vdot(y, cotangent)), y * cotangent
    noise = 8 * float(np.finfo(np.float64).eps) * (abs(base) + float(np.abs(products).sum()))
    return value, base, noise, float(np.linalg.norm(products))


def _differentiate(
    fn: Callable[..., Tensor], arguments: list[Any], checked: list[_Checked], rng: np.random.Generator
) -> tuple[Array, Array]:
    """Calls fn and backward with a random cotangent; returns the output and the cotangent.

    Raises GradcheckError if fn cannot be checked: it changes its inputs, is not deterministic, or returns NaN or inf.
    """
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
            f"{entry.label}: the gradient has shape {grad.shape} and dtype {grad.dtype}, "
            f"the input {data.shape} and {data.dtype}"
        )
    if not np.isfinite(grad).all():
        where = _first(~np.isfinite(grad))
        raise GradcheckError(f"{entry.label}: the gradient at index {where} is {grad[where]}")
    return grad


def _directions(
    data: Array, directions: int | None, rng: np.random.Generator
) -> Iterator[tuple[tuple[int, ...], Array]]:
    """Yields (index, direction): each element, or random unit directions with the index of their largest element."""
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
    """Finds one wrong element for a direction along which the slope is wrong.

    If rounding hides the disagreement of a single element, the slopes remain the ones along the direction.
    """

    def slope(along: Array) -> float:
        return sum(_slopes(value, data, along, eps, base)) / 2

    index = wrong_element(slope, grad, direction)
    element = np.zeros_like(data)
    element[index] = 1
    at_it = _Wrong(index, slope(element), float(grad[index]), found.tolerance)
    return at_it if at_it.excess > 1 else replace(found, index=index)


def wrong_element(slope: Callable[[Array], float], grad: Array, direction: Array) -> tuple[int, ...]:
    """The index of a wrong element of `grad`, given that `slope(direction)` differs from  Σ grad · direction.

    Bisects the direction: the half with the larger disagreement contains a wrong element.
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
