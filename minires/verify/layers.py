"""Every layer's own gradient, looked at while one forward and backward of a whole network runs.

At each node of the tape, in backward order, three questions on the very arrays of the run:

1. Is the gradient that arrives the sum of those that the users of its output sent?       (the tape)
2. Does backward, made again alone, give the same?                                         (nothing was overwritten)
3. Is what it passes on the derivative of its own forward?  Along a random direction through each input, by central
   differences in float64.                                                                 (the operation)

A network's gradient is wrong only if the answer is no somewhere, and the first no in backward order is the culprit: the
nodes after it were given right gradients.  A backward that raises is a no as well, and the last row.
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

# Relative to the gradient's length times that of the direction.  A slope along a random direction is a fraction of it,
# seldom below a quarter: a gradient that is wrong by some 4e-6 of its length shows.  A central difference of step EPS
# errs by EPS² and by rounding / EPS, below some 1e-8.
RTOL = 1e-6
EPS = 1e-6
# A kink within the step spoils the difference; a smaller step may lie without it.  Its rounding is larger (some 4e-6 of
# the gradient for the smallest): it counts only where it gives another slope by more than that, as behind a kink.
FINER = (1, 16, 256)
REDRAWS = 8
NAN = float("nan")
SAME = 1e-9  # relative: the same backward twice, on operands in another memory layout


@dataclass(frozen=True)
class Fault:
    """What is wrong at a node.

    what         "gradient", "sum" (of what its users sent), "replay" (backward alone gives something else), "error" (an
                 exception, in backward or when the call is made again), "form" (shape or dtype), "lost" (a gradient
                 that was sent and reached nobody)
    input        whose gradient, e.g. "x"; "grad_output" for a sum and what is lost
    index        of a wrong element; () where no element is to blame
    numerical    its slope by central differences; for a sum and a replay what it should be; else NaN
    analytical   what the network computed; NaN where no number is to blame
    told         the rest of an error, a form and what is lost
    """

    what: str
    input: str
    index: tuple[int, ...] = ()
    numerical: float = NAN
    analytical: float = NAN
    told: str = ""

    def __str__(self) -> str:
        if self.told:
            return self.told
        said = {
            "gradient": "the gradient is not the derivative of its forward",
            "sum": "what arrives is not the sum of what the users of its output sent",
            "replay": "backward made again alone gives another gradient",
        }[self.what]
        at = f"{self.input} at index {self.index}"
        return f"{said}: {at}: numerical {self.numerical:.10g}, analytical {self.analytical:.10g}"


@dataclass(frozen=True)
class Layer:
    """A node's row of the report, in backward order.

    module, operation    dotted path ("" outside of modules) and e.g. "Conv2d"
    heading              operation, options and module in a line
    shapes, output       of the inputs that there are, of the output
    error                the largest disagreement, relative to the gradient; NaN where no gradient was wanted
    fault                None where all is right
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
    """Runs one forward and one backward with a random cotangent; a row for every node, in backward order.

    model      in float64, in the mode it is in; parameters and running statistics come back as they were
    images     (N, C, H, W), float64
    seed       of the cotangent and the directions

    Raises TypeError for arrays that are not float64: differences drown in float32's rounding.
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
    """Afterwards parameters, their gradients and running statistics are as they were."""
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
    """The guilty one: the first in backward order with a fault."""
    return next((layer for layer in layers if layer.fault is not None), None)


class _Audit(Observer):
    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.layers: list[Layer] = []
        self.recorded: dict[Function, Recorded] = {}
        self.sent: dict[Function | Tensor, Array] = {}  # to whom -> the sum of the gradients sent
        self.arrival: Fault | None = None
        self.running: Function | None = None  # whose backward it is

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
        """Whether a node's own backward raised it; then it is that node's fault, unless what arrived was wrong."""
        if self.running is None:
            return False
        self._add(self.running, NAN, self.arrival or _raised("backward", error))
        return True

    def check_leaves(self, leaves: dict[str, Tensor], all_named: bool) -> None:
        """The gradients of the leaves, and whatever else was sent: it must have arrived somewhere.

        all_named   whether a leaf that is none of `leaves` is a fault too: a parameter that its module does not know
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
                self._add(receiver, NAN, Fault("lost", "grad_output", told="what was sent to it reached no backward"))
            elif all_named or receiver.grad is None:
                fault = Fault("lost", "grad", told="what was sent to it reached no parameter of the model")
                self.layers.append(Layer("", "leaf", f"leaf of shape {receiver.shape}", (), receiver.shape, NAN, fault))
        self.sent.clear()

    def _add(self, node: Function, error: float, fault: Fault | None) -> None:
        shapes = tuple(shape for shape in node.input_shapes if shape is not None)
        self.layers.append(Layer(node.module, node.name, node.heading, shapes, node.output_shape, error, fault))


def check_gradient(
    recorded: Recorded, grad_output: Array, grads: tuple[Array | None, ...], rng: np.random.Generator
) -> tuple[float, Fault | None]:
    """The largest relative disagreement of a node's gradients `grads`, and what is wrong."""
    wanted = [i for i, w in enumerate(recorded.node.needs_input_grad) if w]
    for i in wanted:
        fault = _misshapen(recorded.names[i], recorded.inputs[i], grads[i])
        if fault is not None:
            return NAN, fault
    try:
        output, again = recorded.forward()
        replayed = gradients(again, grad_output)
    except Exception as bug:
        return NAN, _raised("the call, made again alone,", bug)
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
    """The same question at operands a little beside those that lie on a kink or a tie."""
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
    """The slope of Σ forward · grad_output along directions through one input, beside that of its gradient."""

    def __init__(self, recorded: Recorded, i: int, output: Array, grad_output: Array, grad: Array) -> None:
        self.recorded, self.i = recorded, i
        self.output, self.cotangent, self.grad = output, grad_output, grad
        self.x: Array = np.asarray(recorded.inputs[i])
        self.scale = _scale(self.x)
        # Each output is rounded on its own: the errors of a sum of n of them grow with √n.
        self.noise = 64 * np.finfo(np.float64).eps * float(np.linalg.norm(output * grad_output))
        self.kinked = False
        self.direction: Array = np.zeros(0)

    def slopes(self, direction: Array, eps: float) -> tuple[float, float]:
        """To the left and to the right."""
        inputs = list(self.recorded.inputs)
        sides = []
        for sign in (-1, 1):
            inputs[self.i] = self.x + sign * eps * direction
            y, _ = self.recorded.forward(inputs)
            sides.append(float(np.vdot(y - self.output, self.cotangent)) / (sign * eps))
        return sides[0], sides[1]

    def error(self, rng: np.random.Generator) -> float:
        """The disagreement along a random direction as a multiple of what is allowed; NaN for gradients with NaN."""
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
                continue  # it tells nothing that the first one did not
            allowed = RTOL * max(abs(numerical), length) + rounding + np.finfo(np.float64).tiny
            errors.append(abs(numerical - analytical) / allowed)
            if errors[-1] <= 1:
                return errors[-1]
        # Of a smooth function the two slopes close in proportion to the step.
        self.kinked = bool(gaps[-1] > 4 * self.noise * FINER[-1] / EPS and gaps[-1] > gaps[0] / FINER[-1] ** 0.5)
        return min(errors)

    def fault(self, what: str, name: str) -> Fault:
        """Follows the wrong slope down to one element."""
        index = wrong_element(lambda along: sum(self.slopes(along, EPS)) / 2, self.grad, self.direction)
        element = np.zeros(self.x.shape)
        element[index] = self.scale
        # One element alone may move far: its slope then stands out of the rounding.
        numerical = sum(self.slopes(element, 100 * EPS)) / 2 / self.scale
        return Fault(what, name, index, numerical, float(self.grad[index]))


def _scale(x: Array) -> float:
    """The root mean square, 1 for zeros: steps are relative to it."""
    return float(np.linalg.norm(x)) / max(x.size, 1) ** 0.5 or 1.0


def _raised(what: str, error: Exception) -> Fault:
    told = " ".join(f"{what} raised {type(error).__name__}: {error}".split())
    return Fault("error", "", told=told)


def _misshapen(name: str, x: Array | None, grad: Array | None) -> Fault | None:
    if x is None or grad is None or (grad.shape == x.shape and grad.dtype == x.dtype):
        return None
    told = f"the gradient of {name} is {grad.dtype} of shape {grad.shape}; {name} is {x.dtype} of shape {x.shape}"
    return Fault("form", name, told=told)


def _differs(what: str, name: str, ours: Array, expected: Array) -> Fault | None:
    if ours.shape != expected.shape:
        return Fault(what, f"{name} of shape {ours.shape}, not {expected.shape}")
    difference = np.abs(ours - expected)
    if difference.size and not float(difference.max()) <= SAME * float(np.abs(expected).max()):
        index = tuple(int(k) for k in np.unravel_index(int(np.argmax(difference)), difference.shape))
        return Fault(what, name, index, float(expected[index]), float(ours[index]))
    return None
