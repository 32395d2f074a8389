"""Two backends in lockstep: runs the same batch through both and compares them node by node, forward and backward.

Each node has two errors.  For its *own* error, the second backend repeats the node on the first backend's operands:
this is the kernel's error alone.  Its *grown* error is the difference of the two complete runs at this node: it
includes the errors of all nodes before, which ReLUs that flip and batch norms amplify.  A kernel is wrong if its own
error exceeds the tolerance, however small the grown error is.

A network's fused form (`Module.fuse`) must be bit-identical to its plain form, so the second backend computes both.
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
from minires.arrays import Array, array_module, on_cpu
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
"""The tolerance is FACTOR · eps · √K, relative to the array's norm.

A sum of K rounded products errs by about eps · √K, in any order.  The factor covers the additional loss in Winograd's
algorithm and in the cancellation of a batch norm's sums (at most 2 was measured).  Products in half precision or TF32
exceed the tolerance."""


@dataclass(frozen=True)
class Step:
    """A node's forward or backward in both backends.

    number             the node's number, from 0 in forward order
    phase              "forward" or "backward"
    module, operation  dotted path, and e.g. "Conv2d"
    array              the result with the largest ratio of own error to tolerance, e.g. "output" or "∂weight"
    index              index of the largest own error in this array
    numbers            the first and the second backend's value at this index
    own, grown         own and grown error (see the module's docstring): relative norms  ‖second − first‖ / ‖first‖
    own_ulp, grown_ulp largest differences, in units in the last place of the array's root mean square
    tolerance          largest `own` that passes
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
    """The comparison of two backends on the same batch.

    first, second   the backends' names
    steps           forward from the first operation to the loss, then backward
    losses          loss of each run
    other_form      names of the second backend's results whose bits differ between the fused and the plain form:
                    "loss", parameters (for their gradients), running statistics
    """

    first: str
    second: str
    steps: list[Step] = field(default_factory=list)
    losses: tuple[float, float] = (0.0, 0.0)
    other_form: list[str] = field(default_factory=list)
    _calls: dict[int, tuple[Recorded, Array | None]] = field(default_factory=dict, repr=False)

    def __repr__(self) -> str:
        fault, losses = self.fault, " and ".join(f"{loss:.6g}" for loss in self.losses)
        found = "each within its tolerance" if fault is None else f"the first wrong step is {fault}"
        forms = f"; fused and plain differ in {', '.join(self.other_form[:3])}" if self.other_form else ""
        return f"<{self.second} compared with {self.first}: {len(self.steps)} steps, {found}; losses {losses}{forms}>"

    @property
    def fault(self) -> Step | None:
        """The first step whose own error exceeds its tolerance, or None."""
        return next((step for step in self.steps if not step.passed), None)

    @property
    def passed(self) -> bool:
        return self.fault is None and not self.other_form

    def save_fault(self, folder: Path) -> Path | None:
        """Writes the operands of `fault`, the first wrong step, to a file; returns its path, None without a fault."""
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
    """One backend's run: the calls in order with their results, and backward by the number of the call."""

    backend: str = ""  # the backend's name
    calls: list[Recorded] = field(default_factory=list)
    outputs: list[Array] = field(default_factory=list)
    statistics: list[dict[str, Array]] = field(default_factory=list)  # running statistics after each call
    cotangents: dict[int, Array] = field(default_factory=dict)
    grads: dict[int, tuple[Array | None, ...]] = field(default_factory=dict)
    whole: bool = True  # False: the logits hold NaN, so the run ends before the loss
    results: dict[str, Array] = field(default_factory=dict)  # loss, running statistics, parameters' gradients


class _Watch(Observer):
    def __init__(self, run: _Run) -> None:
        self.run = run
        self.numbers: dict[Function, int] = {}
        self.frozen: list[Frozen] = []

    def before_forward(self, node: Function, arrays: tuple[Array | None, ...]) -> None:
        self.numbers[node] = len(self.run.calls)
        self.run.calls.append(Recorded.before(node, arrays))
        self.frozen = freeze(arrays)  # a kernel that writes into an operand fails at the line that writes

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
    """Runs forward and backward of the cross-entropy with both backends and compares them node by node.

    model           runs in its current mode; its parameters and running statistics are restored afterwards
    images, labels  (N, C, H, W) or another shape that the model takes, in the model's dtype; (N,) integers
    backends        two backends as for `mr.backend`: each a name, an object, a class or "module:object"
    options         options of the second backend, e.g. isa="portable"

    If the second backend's logits hold NaN, the comparison ends before the loss, and the second loss is NaN.

    Raises BackendUnavailable for a backend that this installation lacks.  Raises TypeError for an object that is no
    backend, and for images whose floating dtype is not the model's.
    """
    if not isinstance(backends, (tuple, list)) or len(backends) != 2:
        raise TypeError(f"backends must be a pair such as ('reference', 'native'), got {shown(backends)}")
    state = random.generator().bit_generator.state
    runs: list[_Run] = []
    fused = any(module.fused for module in model.modules())
    for chosen, given, form in (
        (backends[0], {}, fused), (backends[1], options, fused), (backends[1], options, not fused)
    ):  # fmt: skip
        random.generator().bit_generator.state = state  # the same dropout masks
        with in_form(model, form):
            runs.append(_run(model, images, labels, chosen, given, first=not runs))
    ours, theirs, other = runs
    first, second = ours.backend, theirs.backend
    names = [[call.node.name for call in run.calls] for run in (ours, theirs)]
    if names[0] != names[1] and (theirs.whole or names[0][: len(names[1])] != names[1]):
        raise RuntimeError(f"{first} and {second} ran different operations: {len(names[0])} and {len(names[1])}")
    found = Lockstep(first, second, losses=(float(ours.results["loss"]), float(theirs.results["loss"])))
    found.other_form = [name for name in {**theirs.results, **other.results} if not _same(name, theirs, other)]
    found._calls = {i: (call, ours.cotangents.get(i)) for i, call in enumerate(ours.calls)}
    backward: dict[int, Step] = {}
    for number, call in enumerate(ours.calls[: len(theirs.calls)]):
        output, again = _on_the_same_operands(call, theirs.calls[number])
        node = (number, call.node.module, call.node.name)
        pairs = [("output", ours.outputs[number], output, theirs.outputs[number])]
        own_statistics, grown_statistics = statistics(again), theirs.statistics[number]
        pairs += [(k, a, own_statistics[k], grown_statistics[k]) for k, a in ours.statistics[number].items()]
        found.steps.append(_step("forward", node, call, pairs))
        if number in ours.grads and number in theirs.grads:
            cotangent = _beside(ours.cotangents[number], output)
            own = gradients(again, cotangent)
            pairs = []
            for name, x, *found_by in zip(
                call.names, call.inputs, ours.grads[number], own, theirs.grads[number], strict=True
            ):
                if x is not None and any(g is not None for g in found_by):  # a missing gradient counts as zero
                    a, b, c = (np.zeros(x.shape, x.dtype) if g is None else g for g in found_by)
                    pairs.append((f"∂{name}", a, b, c))
            if pairs:
                backward[number] = _step("backward", node, call, pairs, on_cpu(ours.cotangents[number]))
    found.steps += [backward[number] for number in ours.grads if number in backward]
    return found


def _run(model: Module, images: Array, labels: Array, chosen: Any, options: dict[str, Any], first: bool) -> _Run:
    """One backend's run.  NaN in the logits of the first backend raises ValueError; the second's run ends there."""
    run = _Run()
    with backend(chosen, **options) as active, _at_home(model, active), unchanged(model):
        run.backend = active.name
        like = next(iter(model.parameters())).data
        xp = array_module(like)
        images = xp.asarray(images)
        if images.dtype.kind == "f" and images.dtype != like.dtype:
            message = f"images must have the model's dtype {like.dtype}, got {images.dtype}"
            raise TypeError(f"{message}; convert them with images.astype({str(like.dtype)!r})")
        model.zero_grad()
        with enable_grad(), _Watch(run):
            logits = model(Tensor(images, requires_grad=True))
            run.whole = first or not bool(xp.isnan(logits.data).any())
            if run.whole:
                loss = F.cross_entropy(logits, xp.asarray(labels))
                loss.backward()
        if not run.whole:  # no loss exists, but the forward shows the wrong operation
            run.results = {"loss": np.array(np.nan, np.float32)}
            return run
        grads = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        run.results = {"loss": loss.data, **running_statistics(model), **grads}
    return run


def _same(name: str, run: _Run, other: _Run) -> bool:
    """Whether the result `name` is bit-identical in two runs."""
    a, b = run.results.get(name), other.results.get(name)
    return a is not None and b is not None and a.dtype == b.dtype and a.tobytes() == b.tobytes()


@contextlib.contextmanager
def _at_home(model: Module, backend: Any) -> Iterator[None]:
    """Moves the model to the backend's device, and back to the CPU on exit."""
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
    """The second backend's call `other`, run on the operands of the first backend's `call`."""
    inputs = [None if a is None or b is None else _beside(a, b) for a, b in zip(call.inputs, other.inputs, strict=True)]
    return other.forward(inputs)


def _beside(array: Array, like: Array) -> Array:
    """`array` on the device of `like`."""
    return (
        array if isinstance(array, np.ndarray) and isinstance(like, np.ndarray) else array_module(like).asarray(array)
    )


def _step(
    phase: str,
    place: tuple[int, str, str],
    call: Recorded,
    pairs: list[tuple[str, Array, Array, Array]],
    cotangent: Array | None = None,
) -> Step:
    number, module, operation = place
    steps = []
    for name, expected, own, grown in pairs:
        expected, own, grown = map(on_cpu, (expected, own, grown))
        tolerance = FACTOR * float(np.finfo(expected.dtype).eps) * _terms(call, expected.size) ** 0.5
        # A sum over a channel may cancel: batch norm's gradient sums to zero, as does the gradient of a bias before it.
        # Rounding follows the terms, so the error is relative to the norm of such sums without cancellation.
        scale = 0.0
        if cotangent is not None and expected.ndim == 1 and expected.shape == cotangent.shape[1:2]:
            scale = float(np.linalg.norm(cotangent.astype(np.float64)))
        errors = (
            relative_norm(own, expected, scale),
            ulps(own, expected),
            relative_norm(grown, expected, scale),
            ulps(grown, expected),
        )
        worst = int(np.argmax(np.abs(own.astype(np.float64) - expected))) if expected.size else 0  # NaN before all
        index = tuple(int(i) for i in np.unravel_index(worst, expected.shape)) if expected.size else ()
        numbers = (float(expected[index]), float(own[index])) if expected.size else (0.0, 0.0)
        steps.append(Step(number, phase, module, operation, name, index, numbers, *errors, tolerance))
    # NaN is worse than any number
    return max(steps, key=lambda step: (np.isnan(step.own), step.own / step.tolerance))


def _terms(call: Recorded, size: int) -> float:
    """The approximate number of terms in the sum for one element of a result of `size` elements."""
    macs = multiply_adds(call.node)
    largest = max(a.size for a in call.inputs if a is not None)
    if isinstance(call.node, BatchNorm):
        return largest / call.node.input_shapes[0][1]  # type: ignore[index]
    return max(macs / max(size, 1), largest / max(size, 1), 1.0)
