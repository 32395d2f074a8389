"""Two backends in lockstep: the same batch through both, node by node, forward and backward.

Each node is looked at twice.  Its *own* error is that of the second backend on the very operands that the first one
had: what the kernel itself does.  The *grown* error is the difference of the two runs, each on its own results: what
has become of all errors before it, through ReLUs that flip and batch norms that amplify.  A kernel is wrong where its
own error leaves the tolerance, be the grown one as small as it may.

The fused form of a network (`Module.fuse`) must give the same bits as the plain one: the second backend computes both.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from minires import functional as F
from minires import random
from minires._repr import shown
from minires.arrays import Array, array_module
from minires.autograd import Function
from minires.backends import backend
from minires.context import Observer, enable_grad
from minires.inspect.cost import multiply_adds
from minires.nn import Module
from minires.nn.fusing import in_form
from minires.ops import BatchNorm
from minires.readonly import Frozen, freeze
from minires.tensor import Tensor
from minires.verify.distance import relative_norm, ulps
from minires.verify.layers import unchanged
from minires.verify.network import running_statistics
from minires.verify.recorded import Recorded, gradients, statistics

FACTOR = 16.0
"""Of the tolerance: relative to an array's norm, a sum of K rounded products errs by about eps · √K, in any order; the
factor covers what Winograd's algorithm and the cancellation in a batch norm's sums lose besides (up to 2 was seen).
Products in half precision or TF32 stay above it."""


@dataclass(frozen=True)
class Step:
    """A node's forward or backward in both backends.

    number             of the node, from 0 in the order of forward
    phase              "forward" or "backward"
    module, operation  dotted path and e.g. "Conv2d"
    array              the result whose own error is the largest part of its tolerance: "output", "running_var" or
                       "∂weight"
    index              where in this array the own error is largest
    numbers            that the first and the second backend found there
    own, grown         relative norms  ‖second − first‖ / ‖first‖  (see above)
    own_ulp, grown_ulp largest differences, in units in the last place of the array's root mean square
    tolerance          of `own`
    """

    number: int
    phase: str
    module: str
    operation: str
    array: str
    index: tuple[int, ...]
    numbers: tuple[float, float]
    own: float
    own_ulp: float
    grown: float
    grown_ulp: float
    tolerance: float

    def __repr__(self) -> str:
        of = f" of {self.module}" if self.module else ""
        errors = f"own error {self.own:.2g} of {self.tolerance:.2g} allowed, grown {self.grown:.2g}"
        return f"<{self.operation}{of}, {self.phase}: {self.array}: {errors}>"

    @property
    def passed(self) -> bool:
        return self.own <= self.tolerance


@dataclass
class Lockstep:
    """What two backends made of the same batch.

    first, second   the backends' names
    steps           forward from the first operation to the loss, then backward
    losses          of the two runs
    other_form      names of what the second backend computes with other bits in the network's other form, fused or
                    plain: "loss", parameters (for their gradients), running statistics
    """

    first: str
    second: str
    steps: list[Step] = field(default_factory=list)
    losses: tuple[float, float] = (0.0, 0.0)
    other_form: list[str] = field(default_factory=list)
    _calls: dict[int, tuple[Recorded, Array | None]] = field(default_factory=dict, repr=False)

    def __repr__(self) -> str:
        fault, losses = self.fault, " and ".join(f"{loss:.6g}" for loss in self.losses)
        found = "each within its tolerance" if fault is None else f"wrong first in {fault}"
        beside = f"; other bits in the other form: {', '.join(self.other_form[:3])}" if self.other_form else ""
        return f"<{self.second} beside {self.first}: {len(self.steps)} steps, {found}; losses {losses}{beside}>"

    @property
    def fault(self) -> Step | None:
        """The first step that leaves its tolerance."""
        return next((step for step in self.steps if not step.passed), None)

    @property
    def passed(self) -> bool:
        return self.fault is None and not self.other_form

    def save_fault(self, folder: Path) -> Path | None:
        """Writes the operands of the first step that leaves its tolerance; returns the file, None if there is none."""
        fault = self.fault
        if fault is None:
            return None
        recorded, grad_output = self._calls[fault.number]
        place = fault.module or "network"
        path = folder / f"lockstep-{place}-{fault.operation}-{fault.phase}.npz"
        recorded.save(path, grad_output)
        return path


@dataclass
class _Run:
    """What one backend did: the calls in order, what they gave, and backward by the number of the call."""

    backend: str = ""  # its name
    calls: list[Recorded] = field(default_factory=list)
    outputs: list[Array] = field(default_factory=list)
    statistics: list[dict[str, Array]] = field(default_factory=list)  # running ones, after the call
    cotangents: dict[int, Array] = field(default_factory=dict)
    grads: dict[int, tuple[Array | None, ...]] = field(default_factory=dict)
    results: dict[str, Array] = field(default_factory=dict)  # loss, running statistics, parameters' gradients


class _Watch(Observer):
    def __init__(self, run: _Run) -> None:
        self.run = run
        self.numbers: dict[Function, int] = {}
        self.frozen: list[Frozen] = []

    def before_forward(self, node: Function, arrays: tuple[Array | None, ...]) -> None:
        self.numbers[node] = len(self.run.calls)
        self.run.calls.append(Recorded.before(node, arrays))
        self.frozen = freeze(arrays)  # a kernel that writes into an operand fails at the line that does it

    def after_forward(self, node: Function, arrays: tuple[Array | None, ...], output: Array) -> None:
        self.frozen = []
        self.run.outputs.append(output)
        self.run.statistics.append({name: array.copy() for name, array in statistics(node).items()})
        self.run.calls[self.numbers[node]].node.output_shape = output.shape

    def after_backward(self, node: Function, grad_output: Array, grads: tuple[Array | None, ...]) -> None:
        number = self.numbers[node]
        self.run.cotangents[number] = grad_output
        self.run.grads[number] = grads


def lockstep(
    model: Module, images: Array, labels: Array, backends: tuple[Any, Any] = ("reference", "native"), **options: Any
) -> Lockstep:
    """Runs forward and backward of the cross-entropy by both backends.

    model           in the mode it is in; parameters and running statistics come back as they were
    images, labels  (N, C, H, W), or what else the model takes, with its dtype; (N,) integers
    backends        two of what `mr.backend` takes: a name, an object, its class or "module:object"
    options         of the second backend, e.g. isa="portable"

    Raises BackendUnavailable for a backend that this installation lacks, TypeError for an object that is no backend and
    for images of another floating dtype than the model's.
    """
    if not isinstance(backends, (tuple, list)) or len(backends) != 2:
        raise TypeError(f"backends must be two, such as ('reference', 'native'), got {shown(backends)}")
    state = random.generator().bit_generator.state
    runs = []
    fused = any(module.fused for module in model.modules())
    for chosen, given, form in (
        (backends[0], {}, fused), (backends[1], options, fused), (backends[1], options, not fused)
    ):  # fmt: skip
        random.generator().bit_generator.state = state  # the same dropout masks
        with in_form(model, form):
            runs.append(_run(model, images, labels, chosen, given))
    ours, theirs, other = runs
    first, second = ours.backend, theirs.backend
    names = [[call.node.name for call in run.calls] for run in (ours, theirs)]
    if names[0] != names[1]:
        raise RuntimeError(f"{first} and {second} ran different operations: {len(names[0])} and {len(names[1])}")
    found = Lockstep(first, second, losses=(float(ours.results["loss"]), float(theirs.results["loss"])))
    found.other_form = [name for name in {**theirs.results, **other.results} if not _same(name, theirs, other)]
    found._calls = {i: (call, ours.cotangents.get(i)) for i, call in enumerate(ours.calls)}
    backward: dict[int, Step] = {}
    for number, call in enumerate(ours.calls):
        output, again = _on_the_same_operands(call, theirs.calls[number])
        told = (number, call.node.module, call.node.name)
        pairs = [("output", ours.outputs[number], output, theirs.outputs[number])]
        own_statistics, grown_statistics = statistics(again), theirs.statistics[number]
        pairs += [(k, a, own_statistics[k], grown_statistics[k]) for k, a in ours.statistics[number].items()]
        found.steps.append(_step("forward", told, call, pairs))
        if number in ours.grads and number in theirs.grads:
            cotangent = _beside(ours.cotangents[number], output)
            own = gradients(again, cotangent)
            pairs = []
            for name, x, *found_by in zip(
                call.names, call.inputs, ours.grads[number], own, theirs.grads[number], strict=True
            ):
                if x is not None and any(g is not None for g in found_by):  # one that is forgotten is zero
                    a, b, c = (np.zeros(x.shape, x.dtype) if g is None else g for g in found_by)
                    pairs.append((f"∂{name}", a, b, c))
            if pairs:
                backward[number] = _step("backward", told, call, pairs)
    found.steps += [backward[number] for number in ours.grads if number in backward]
    return found


def _run(model: Module, images: Array, labels: Array, chosen: Any, options: dict[str, Any]) -> _Run:
    run = _Run()
    with backend(chosen, **options) as active, _at_home(model, active), unchanged(model):
        run.backend = active.name
        like = next(iter(model.parameters())).data
        xp = array_module(like)
        images = xp.asarray(images)
        if images.dtype.kind == "f" and images.dtype != like.dtype:
            told = f"images must have the model's dtype {like.dtype}, got {images.dtype}"
            raise TypeError(f"{told}; convert them with images.astype({str(like.dtype)!r})")
        model.zero_grad()
        with enable_grad(), _Watch(run):
            loss = F.cross_entropy(model(Tensor(images, requires_grad=True)), xp.asarray(labels))
            loss.backward()
        grads = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        run.results = {"loss": loss.data, **running_statistics(model), **grads}
    return run


def _same(name: str, run: _Run, other: _Run) -> bool:
    """Whether two runs gave a result the same bits."""
    a, b = run.results.get(name), other.results.get(name)
    return a is not None and b is not None and a.dtype == b.dtype and a.tobytes() == b.tobytes()


@contextlib.contextmanager
def _at_home(model: Module, backend: Any) -> Iterator[None]:
    """Within it the model lies where the backend computes."""
    home = getattr(getattr(backend, "array_module", np), "__name__", "numpy")
    if home == "numpy":
        yield
        return
    model.to("cuda")
    try:
        yield
    finally:
        model.to("cpu")


def _on_the_same_operands(call: Recorded, other: Recorded) -> tuple[Array, Function]:
    """The second backend's call on the first one's operands."""
    inputs = [None if a is None or b is None else _beside(a, b) for a, b in zip(call.inputs, other.inputs, strict=True)]
    return other.forward(inputs)


def _beside(array: Array, like: Array) -> Array:
    """`array` on the device of `like`."""
    return (
        array if isinstance(array, np.ndarray) and isinstance(like, np.ndarray) else array_module(like).asarray(array)
    )


def _step(phase: str, told: tuple[int, str, str], call: Recorded, pairs: list[tuple[str, Array, Array, Array]]) -> Step:
    number, module, operation = told
    steps = []
    for name, expected, own, grown in pairs:
        expected, own, grown = (a if isinstance(a, np.ndarray) else a.get() for a in (expected, own, grown))
        tolerance = FACTOR * float(np.finfo(expected.dtype).eps) * _terms(call, expected.size) ** 0.5
        errors = (
            relative_norm(own, expected),
            ulps(own, expected),
            relative_norm(grown, expected),
            ulps(grown, expected),
        )
        worst = int(np.argmax(np.abs(own.astype(np.float64) - expected))) if expected.size else 0  # NaN before all
        index = tuple(int(i) for i in np.unravel_index(worst, expected.shape)) if expected.size else ()
        numbers = (float(expected[index]), float(own[index])) if expected.size else (0.0, 0.0)
        steps.append(Step(number, phase, module, operation, name, index, numbers, *errors, tolerance))
    # NaN is worse than any number
    return max(steps, key=lambda step: (np.isnan(step.own), step.own / step.tolerance))


def _terms(call: Recorded, size: int) -> float:
    """About how many products or numbers are summed for one element of a result of `size` elements."""
    macs = multiply_adds(call.node)
    largest = max(a.size for a in call.inputs if a is not None)
    if isinstance(call.node, BatchNorm):
        return largest / call.node.input_shapes[0][1]  # type: ignore[index]
    return max(macs / max(size, 1), largest / max(size, 1), 1.0)
