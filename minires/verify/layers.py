"""Checks the gradient of every node while a whole network runs forward and backward once.

At each node of the tape, in backward order, three checks use the arrays of this run:

1. The gradient that arrives is the sum of the gradients that the users of the node's output sent.      (the tape)
2. Running backward again, alone, returns the same gradients.                                (no array was overwritten)
3. Each gradient that backward returns is the derivative of the node's own forward: central differences in float64,
   along a random direction through each input.                                                      (the operation)

A network's gradient is wrong only if a check fails.  The first failure in backward order is the culprit, because the
nodes before it passed on right gradients.  An exception in backward is a failure too; its node is the last row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import numpy as np

from minires.arrays import Array
from minires.autograd import Function
from minires.context import Observer, enable_grad
from minires.nn import Module
from minires.tensor import Tensor
from minires.verify.gradcheck import wrong_element
from minires.verify.recorded import Recorded, gradients

# Relative to |gradient| · |direction|.  An error's slope along a random direction is seldom below a quarter of the
# error's length, so a gradient that is wrong by about 4e-6 of its length fails.  A central difference with step EPS
# errs by EPS² plus rounding / EPS, together below about 1e-8.
RTOL = 1e-6
EPS = 1e-6
# A kink within the step spoils the difference; a smaller step may avoid the kink.  A smaller step has a larger rounding
# error (about 4e-6 of the gradient for the smallest), so its slope counts only if it differs by more than this error.
FINER = (1, 16, 256)
REDRAWS = 8
NAN = float("nan")
SAME = 1e-9  # relative: the same backward twice, on operands in another memory layout


@dataclass(frozen=True)
class Fault:
    """What is wrong at a node.

    what         "gradient": not the derivative of forward
                 "sum": what arrived is not the sum of the gradients that the users of the output sent
                 "replay": running backward again, alone, returns other gradients
                 "error": an exception in backward or when the call is repeated
                 "form": wrong shape or dtype
                 "lost": a gradient that was sent but not received by any node or leaf
    input        name of the input with the wrong gradient, e.g. "x"; "grad_output" for "sum" and "lost"
    index        index of a wrong element; () if the fault concerns no single element
    numerical    slope by central differences; for "sum" and "replay" the expected value; otherwise NaN
    analytical   value that the network computed; NaN if the fault concerns no single element
    message      text of an "error", "form" or "lost" fault
    """

    what: str
    input: str
    index: tuple[int, ...] = ()
    numerical: float = NAN
    analytical: float = NAN
    message: str = ""

    def __str__(self) -> str:
        if self.message:
            return self.message
        title = {
            "gradient": "the gradient is not the derivative of forward",
            "sum": "the gradient that arrives is not the sum of the gradients that the output's users sent",
            "replay": "running backward again, alone, returns another gradient",
        }[self.what]
        at = f"{self.input} at index {self.index}"
        return f"{title}: {at}: numerical {self.numerical:.10g}, analytical {self.analytical:.10g}"


@dataclass(frozen=True)
class Layer:
    """A node's row of the report, in backward order.

    module, operation    dotted path ("" outside of modules), and e.g. "Conv2d"
    heading              operation, options and module in a line
    shapes, output       shapes of the inputs that are present, shape of the output
    error                largest disagreement, relative to the gradient; NaN if no input requires a gradient
    fault                what is wrong, or None
    """

    module: str
    operation: str
    heading: str
    shapes: tuple[tuple[int, ...], ...]
    output: tuple[int, ...]
    error: float
    fault: Fault | None

    def __repr__(self) -> str:
        return f"<{self.heading}: {self.fault or f'right, error {self.error:.2g}'}>"


def check_layers(
    model: Module | Callable[[Tensor], Tensor],
    images: Array,
    *,
    seed: int = 0,
) -> list[Layer]:
    """Runs forward and backward once with a random cotangent; returns a row for every node, in backward order.

    model      in float64; runs in its current mode; its parameters and running statistics are restored afterwards
    images     (N, C, H, W), float64
    seed       seed of the cotangent and the directions

    Raises TypeError for arrays that are not float64: float32's rounding hides the differences.
    """
    state = model.state_dict() if isinstance(model, Module) else {}
    for name, array in {"images": images, **state}.items():
        if array.dtype != np.float64:
            raise TypeError(f"{name} must be float64, got {array.dtype}")
    named = dict(model.named_parameters()) if isinstance(model, Module) else {}
    audit = _Audit(np.random.default_rng(seed))
    with unchanged(model) if isinstance(model, Module) else nullcontext(), enable_grad(), audit:
        for p in named.values():
            p.grad = None
        x = Tensor(images, requires_grad=True)
        output = model(x)
        cotangent = audit.rng.standard_normal(output.shape)
        try:
            output.backward(cotangent)
        except Exception as error:
            if not audit.blames(error):
                raise
        else:
            audit.check_leaves({"images": x} | named, all_named=isinstance(model, Module))
    return audit.layers


@contextmanager
def unchanged(model: Module) -> Iterator[None]:
    """Restores the parameters, their gradients and the running statistics on exit."""
    state = model.state_dict()
    kept = {name: array.copy() for name, array in state.items()}
    grads = [(p, p.grad) for p in model.parameters()]
    try:
        yield
    finally:
        for p, grad in grads:
            p.grad = grad
        for name, array in kept.items():
            if not np.array_equal(state[name], array, equal_nan=True):  # a parameter may still be on a tape
                state[name][...] = array


def first_fault(layers: Sequence[Layer]) -> Layer | None:
    """The first layer with a fault, in backward order; None if all layers passed."""
    return next((layer for layer in layers if layer.fault is not None), None)


class _Audit(Observer):
    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.layers: list[Layer] = []
        self.recorded: dict[Function, Recorded] = {}
        self.sent: dict[Function | Tensor, Array] = {}  # receiver -> the sum of the gradients sent to it
        self.arrival: Fault | None = None  # a wrong sum at the running node
        self.running: Function | None = None  # the node whose backward runs

    def before_forward(self, node: Function, arrays: tuple[Array | None, ...]) -> None:
        self.recorded[node] = Recorded.before(node, arrays)

    def before_backward(self, node: Function, grad_output: Array) -> None:
        expected = self.sent.pop(node, None)
        self.arrival = None if expected is None else _differs("sum", "grad_output", grad_output, expected)
        self.running = node

    def after_backward(self, node: Function, grad_output: Array, grads: tuple[Array | None, ...]) -> None:
        self.running = None
        recorded = self.recorded.pop(node)
        for parent, grad in zip(node.parents, grads, strict=True):
            if parent is not None and grad is not None:
                before = self.sent.get(parent)
                self.sent[parent] = grad.copy() if before is None else before + grad
        error, fault = NAN, self.arrival
        if fault is None:
            error, fault = check_gradient(recorded, grad_output, grads, self.rng)
        self._add(node, error, fault)

    def blames(self, error: Exception) -> bool:
        """Whether a node's backward raised the error; if so, adds a row for that node.

        If the gradient that arrived was already wrong, the row reports that fault instead of the error.
        """
        if self.running is None:
            return False
        self._add(self.running, NAN, self.arrival or _raised("backward", error))
        return True

    def check_leaves(self, leaves: dict[str, Tensor], all_named: bool) -> None:
        """Checks the gradients of the leaves, and that each gradient that was sent was received.

        all_named   whether a leaf outside `leaves` is a fault too: a parameter that its module did not register
        """
        for name, leaf in leaves.items():
            expected, grad = self.sent.pop(leaf, None), leaf.grad
            if expected is None and grad is None:
                continue
            zero = np.zeros(leaf.shape)
            fault = _differs("sum", "grad", zero if grad is None else grad, zero if expected is None else expected)
            if fault is not None:
                self.layers.append(Layer(name, "leaf", f"leaf {name}", (), leaf.shape, NAN, fault))
        for receiver in self.sent:
            if isinstance(receiver, Function):
                lost = Fault("lost", "grad_output", message="the gradient sent to this node never reached its backward")
                self._add(receiver, NAN, lost)
            elif all_named or receiver.grad is None:
                lost = Fault("lost", "grad", message="the gradient sent to this leaf reached no parameter of the model")
                self.layers.append(Layer("", "leaf", f"leaf of shape {receiver.shape}", (), receiver.shape, NAN, lost))
        self.sent.clear()

    def _add(self, node: Function, error: float, fault: Fault | None) -> None:
        shapes = tuple(shape for shape in node.input_shapes if shape is not None)
        self.layers.append(Layer(node.module, node.name, node.heading, shapes, node.output_shape, error, fault))


def check_gradient(
    recorded: Recorded, grad_output: Array, grads: tuple[Array | None, ...], rng: np.random.Generator
) -> tuple[float, Fault | None]:
    """Checks a node's gradients `grads`; returns the largest relative disagreement, and the fault or None."""
    wanted = [i for i, w in enumerate(recorded.node.needs_input_grad) if w]
    for i in wanted:
        fault = _misshapen(recorded.names[i], recorded.inputs[i], grads[i])
        if fault is not None:
            return NAN, fault
    try:
        output, again = recorded.forward()
        replayed = gradients(again, grad_output)
    except Exception as bug:
        return NAN, _raised("the call, repeated alone,", bug)
    worst = 0.0 if wanted else NAN
    for i in wanted:
        name, x, grad = recorded.names[i], recorded.inputs[i], grads[i]
        assert x is not None
        if grad is None:
            grad = np.zeros(x.shape)
        point = _Point(recorded, i, output, grad_output, grad)
        error = point.error(rng)
        if not error <= 1 and not point.kinked:
            return error * RTOL, point.fault("gradient", name)
        if not error <= 1:
            error, fault = _moved(recorded, i, grad_output, rng)
            if fault is not None:
                return error * RTOL, fault
        alone = replayed[i]
        fault = _differs("replay", name, grad, np.zeros(x.shape) if alone is None else alone)
        if fault is not None:
            return NAN, fault
        worst = max(worst, error * RTOL)
    return worst, None


def _moved(recorded: Recorded, i: int, grad_output: Array, rng: np.random.Generator) -> tuple[float, Fault | None]:
    """Repeats the check at slightly moved operands, because the original ones lie on a kink or a tie."""
    for _ in range(REDRAWS):
        inputs = [None if a is None else a + 0.01 * _scale(a) * rng.standard_normal(a.shape) for a in recorded.inputs]
        beside = Recorded(recorded.node, tuple(inputs), recorded.names, recorded.random_state)
        output, again = beside.forward()
        grad = gradients(again, grad_output)[i]
        assert grad is not None
        point = _Point(beside, i, output, grad_output, grad)
        error = point.error(rng)
        if error <= 1:
            return error, None
        if not point.kinked:
            break
    return error, point.fault("gradient", recorded.names[i])


class _Point:
    """Compares the slope of  Σ forward · grad_output  along directions through one input with its gradient."""

    def __init__(self, recorded: Recorded, i: int, output: Array, grad_output: Array, grad: Array) -> None:
        self.recorded, self.i = recorded, i
        self.output, self.cotangent, self.grad = output, grad_output, grad
        self.x: Array = np.asarray(recorded.inputs[i])
        self.scale = _scale(self.x)
        # Each output is rounded independently, so the error of a sum of n outputs grows with √n.
        self.noise = 64 * np.finfo(np.float64).eps * float(np.linalg.norm(output * grad_output))
        self.kinked = False
        self.direction: Array = np.zeros(0)

    def slopes(self, direction: Array, eps: float) -> tuple[float, float]:
        """The slopes to the left and to the right of the point."""
        inputs = list(self.recorded.inputs)
        sides = []
        for sign in (-1, 1):
            inputs[self.i] = self.x + sign * eps * direction
            y, _ = self.recorded.forward(inputs)
            sides.append(float(np.vdot(y - self.output, self.cotangent)) / (sign * eps))
        return sides[0], sides[1]

    def error(self, rng: np.random.Generator) -> float:
        """The disagreement along a random direction, as a multiple of the tolerance; NaN for a gradient with NaN."""
        self.direction = self.scale * rng.standard_normal(self.x.shape)
        analytical = float(np.vdot(self.grad, self.direction))
        length = self.scale * float(np.linalg.norm(self.grad))
        gaps, slopes, errors = [], [], []
        for finer in FINER:
            eps = EPS / finer
            left, right = self.slopes(self.direction, eps)
            numerical, rounding = (left + right) / 2, self.noise / eps
            gaps.append(abs(right - left))
            slopes.append(numerical)
            if abs(numerical - slopes[0]) <= rounding and finer > 1:
                continue  # the same slope up to rounding as with the largest step
            allowed = RTOL * max(abs(numerical), length) + rounding + np.finfo(np.float64).tiny
            errors.append(abs(numerical - analytical) / allowed)
            if errors[-1] <= 1:
                return errors[-1]
        # For a smooth function, the gap between the two slopes shrinks in proportion to the step.
        self.kinked = bool(gaps[-1] > 4 * self.noise * FINER[-1] / EPS and gaps[-1] > gaps[0] / FINER[-1] ** 0.5)
        return min(errors)

    def fault(self, what: str, name: str) -> Fault:
        """Finds one wrong element by bisecting the direction with the wrong slope."""
        index = wrong_element(lambda along: sum(self.slopes(along, EPS)) / 2, self.grad, self.direction)
        element = np.zeros(self.x.shape)
        element[index] = self.scale
        # A single element may move by a larger step, which makes its slope larger than the rounding error.
        numerical = sum(self.slopes(element, 100 * EPS)) / 2 / self.scale
        return Fault(what, name, index, numerical, float(self.grad[index]))


def _scale(x: Array) -> float:
    """The root mean square, 1 for zeros: steps are relative to it."""
    return float(np.linalg.norm(x)) / max(x.size, 1) ** 0.5 or 1.0


def _raised(what: str, error: Exception) -> Fault:
    message = " ".join(f"{what} raised {type(error).__name__}: {error}".split())
    return Fault("error", "", message=message)


def _misshapen(name: str, x: Array | None, grad: Array | None) -> Fault | None:
    if x is None or grad is None or (grad.shape == x.shape and grad.dtype == x.dtype):
        return None
    message = f"the gradient of {name} is {grad.dtype} of shape {grad.shape}; {name} is {x.dtype} of shape {x.shape}"
    return Fault("form", name, message=message)


def _differs(what: str, name: str, ours: Array, expected: Array) -> Fault | None:
    if ours.shape != expected.shape:
        return Fault(what, f"{name} of shape {ours.shape}, not {expected.shape}")
    difference = np.abs(ours - expected)
    if difference.size and not float(difference.max()) <= SAME * float(np.abs(expected).max()):
        index = tuple(int(k) for k in np.unravel_index(int(np.argmax(difference)), difference.shape))
        return Fault(what, name, index, float(expected[index]), float(ours[index]))
    return None
