"""Capture: record a call once, replay it without Python.

    fast = mr.capture(model, x)                         fast(x2) -> the output, a plain array
    step = mr.capture(train_step, images, labels, 0.1)  step(images2, labels2, 0.05) -> what train_step returns

The backend records the kernel calls that `fn` launches, in memory of the recording's own: on the CPU as a list
(csrc/cpu/recording.h), on a GPU as a CUDA graph (backends/kernels/graph.py).  A replay copies its inputs there and
launches the same kernels in the same order.  Between them runs no Python, so what a NumPy expression computes is not
recorded.  Therefore each capture is tested before it is returned: `fn` runs on other inputs, the recording is
replayed on them, and every result, gradient, parameter and statistic must have the same bits.

Four parts: `Captured` is the callable and chooses the plan for given shapes.  `Plan` is one tested recording with its
buffers.  The backend's recording holds the launches.  `State` (_state.py) finds, compares and restores what `fn` moves.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import numpy as np

from minires import backends
from minires._checks import choice
from minires._state import Saved, State, digest
from minires.arrays import Array, array_module, is_array, on_cpu
from minires.autograd import Function
from minires.context import Observer, no_grad
from minires.nn import Module
from minires.readonly import REMEDY as READ_ONLY
from minires.readonly import Frozen, pin, unpin
from minires.tensor import Tensor

REMEDY = "compute it by operations that the backend records, or pass it as an input"


class CaptureError(RuntimeError):
    """A call cannot be captured, or a capture does not fit what it is called with."""


class Scalar(float):
    """A number that replays read anew, from the array `cell` ()."""

    cell: Array


def capture(fn: Callable[..., Any], *inputs: Any, shapes: str = "fixed") -> Captured:
    """Records fn(*inputs); the result, called with other inputs, replays it without Python.

    fn       a Module, which is recorded under `no_grad`, or a function, such as a whole training step.  It returns a
             Tensor, an array, None, or tuples, lists and dicts of these
    inputs   arrays, Tensors, and numbers that change from call to call, such as the learning rate
    shapes   "fixed": other shapes, dtypes, modes or parameters raise CaptureError; "any": they make a new recording

    `fn` runs two or three times, on a GPU once more, on other values of the inputs and of the parameters too.
    Afterwards parameters, statistics, velocities, gradients and random numbers are as before: those that `fn`, its
    closure, the globals that it names and their attributes hold.  The recording fixes which branches `fn` takes, and
    the backend.

    Raises CaptureError with the first operation, array or result that is not recorded, and where the backend cannot
    record: `native` can, and `cuda`.
    """
    choice(shapes, "shapes", ("fixed", "any"))
    if not callable(fn):
        raise TypeError(f"fn must be callable, got {type(fn).__name__}")
    captured = Captured(fn, shapes)
    captured.plan_for(inputs)
    return captured


_living: weakref.WeakSet[Captured] = weakref.WeakSet()


def _unlock_in_child() -> None:
    """After a fork: a thread that was replaying in the parent does not run in the child."""
    for captured in _living:
        captured._lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_unlock_in_child)


class Captured:
    """A captured call; one thread replays at a time.

    It returns what the recorded function returned, with a new array in the place of each Tensor and array.  Leaves with
    a gradient after the recorded call have their gradient after a replay, in memory that the next replay writes again.
    No observer sees a replay, and of the checks of values only that of labels runs.
    """

    def __init__(self, fn: Callable[..., Any], shapes: str) -> None:
        self.fn, self.shapes = fn, shapes
        self._plans: dict[tuple[Any, ...], Plan] = {}
        self._lock = threading.RLock()
        _living.add(self)

    def __call__(self, *inputs: Any) -> Any:
        with self._lock:
            return self.plan_for(inputs).replay(inputs)

    def __repr__(self) -> str:
        name = getattr(self.fn, "__name__", type(self.fn).__name__)
        return f"<capture of {name}: {', '.join(map(repr, self._plans.values()))}>"

    def plan_for(self, inputs: tuple[Any, ...]) -> Plan:
        """The plan for these inputs, made if it is missing or no longer valid and `shapes` allows it."""
        key = tuple(_kind(value, f"inputs[{position}]") for position, value in enumerate(inputs))
        plan = self._plans.get(key)
        problem = ""
        if plan is not None:
            problem = plan.state.changed()
        elif self._plans:
            problem = f"inputs are {_listed(key)}, the recording takes {_listed(next(iter(self._plans)))}"
        if problem and self.shapes == "fixed":
            raise CaptureError(f"{problem}: capture again, or pass shapes='any'")
        if plan is None or problem:
            plan = self._plans[key] = Plan(self.fn, inputs)
        return plan


class Seen(NamedTuple):
    """What a run computed: each operation's results as checksums, what it returned, and the state afterwards."""

    operations: list[int | bytes]
    results: list[bytes]  # digests
    state: dict[str, bytes]  # digests by name


class Plan:
    """One recording of fn(*inputs), tested, with the buffers of its inputs and results."""

    recording: Any
    places: Any
    results: Any
    buffers: list[Array]
    grads: list[tuple[Tensor, Array | None]]

    def __init__(self, fn: Callable[..., Any], inputs: tuple[Any, ...]) -> None:
        self.fn = fn
        self.state = State(fn)
        self.frozen: list[Frozen] = []  # empty: the next replay computes the constants first
        arrays = (
            *(value.data if isinstance(value, Tensor) else value for value in inputs),
            *self.state.arrays().values(),
        )
        homes = {array_module(array).__name__ for array in arrays if is_array(array)}
        backend = backends.active("cupy" if "cupy" in homes else "numpy")
        self.bytes = 0  # that the call takes at a time
        self.array_module: Any = getattr(backend, "array_module", np)
        self._make: Callable[[bool, int, bool], Any] | None = getattr(backend, "recording", None)
        if self._make is None:
            raise CaptureError(
                f"backend {backend.name!r} cannot record: use the backend 'native', or 'cuda' with CuPy's arrays"
            )
        before = self.state.save()
        try:
            self._record_and_test(inputs, before)
        except BaseException:
            self.state.restore(before, keep_new=False)
            raise
        self.state.restore(before, keep_new=True)
        self.state.settle([*self.recording.written, *self.moved], self.fixed_rates)

    def __repr__(self) -> str:
        launches = len(self.recording)
        return f"{launches} launch{'es' * (launches != 1)}, {self.recording.bytes() / 1e6:.0f} MB"

    def replay(self, inputs: tuple[Any, ...]) -> Any:
        self._fill(inputs)
        for array in self.recording.written:
            unpin(array)  # what another capture computed from it is out of date
            if not array.flags.writeable:
                raise ValueError(f"an array of shape {array.shape} is read-only; nothing was replayed: {READ_ONLY}")
        if self.recording.constant and not self.frozen:
            frozen = pin(self.recording.constant, self)
            self.recording.run_constants()
            self.frozen = frozen
        self._run(0, len(self.recording))
        return mapped(self.results, lambda array: array.copy(order="K"))

    def unpinned(self) -> None:
        """Called before a parameter or statistic is written: the next replay computes the constants again."""
        self.frozen = []

    def _record_and_test(self, inputs: tuple[Any, ...], before: Saved) -> None:
        others = tuple(_other(value, self.array_module) for value in inputs)
        self.state.disturb(before)
        disturbed = self.state.contents()
        expected = [self._eager(others)]  # the first run also makes what `fn` makes once, such as velocities
        after = self.state.contents()
        self.moved = [a for name, a in self.state.arrays().items() if after[name] != disturbed.get(name)]
        moves = any(after[name] != digest for name, digest in disturbed.items())
        if moves:
            expected.append(self._eager(others))
        for marked in (True, False):
            self.state.restore(before, keep_new=True)  # with its velocities: a graph would make them anew each time
            self._record(inputs, constants=not moves, before=before, marked=marked)
            self.state.restore(before, keep_new=True)
            self.state.disturb(before)
            self.recording.run_constants()
            for run, seen in enumerate(expected):
                self._test(others, seen, operations=marked and run == 0)
            if self.recording.whole:
                return

    def _eager(self, inputs: tuple[Any, ...]) -> Seen:
        recording = self._make(False, self.bytes, True)  # type: ignore[misc]  # for its memory, which goes with it
        watch = _Checksums(recording)
        results = self._call(recording, watch, inputs)
        self.bytes = recording.peak()
        return Seen(watch.sums, _digests(results), self.state.contents())

    def _record(self, inputs: tuple[Any, ...], constants: bool, before: Saved, marked: bool) -> None:
        """marked: operations are marked for the test, by which a CUDA graph falls into parts"""
        self.recording = self.places = self.results = None  # the memory of a recording before is freed first
        self.buffers, self.grads = [], []
        self.recording = self._make(constants, self.bytes, False)  # type: ignore[misc]
        self.buffers = [_buffer(self.recording, value) for value in inputs]
        self._fill(inputs)
        self.places = _Places(self.recording)
        arguments = [_argument(value, buffer) for value, buffer in zip(inputs, self.buffers, strict=True)]
        try:
            results = self._call(self.recording, self.places if marked else nullcontext(), arguments)
        except self.recording.refusals as error:
            if isinstance(error, CaptureError):
                raise
            raise CaptureError(f"{self.places.after(error)} the call cannot be recorded: {error}; {REMEDY}") from error
        self.results = mapped(results, self._recorded_result)
        grads = {id(leaf): grad for leaf, grad in before.grads}
        self.grads = [(leaf, leaf.grad) for leaf in self.state.leaves() if leaf.grad is not grads.get(id(leaf))]
        self.fixed_rates = not any(isinstance(optimiser.lr, Scalar) for optimiser in self.state.optimisers)
        for array in self.recording.written:
            if not self.state.holds(array):
                raise CaptureError(
                    f"an array of shape {array.shape} is written that fn does not reach through its closure, the "
                    "globals that it names or their attributes"
                )
        if constants:
            frozen = pin(self.recording.constant, self)
            writable = any(array.flags.writeable for array in self.recording.constant)
            del frozen
            if writable:  # another framework's memory: a write to it would not be noticed
                self._record(inputs, constants=False, before=before, marked=marked)

    def _call(self, recording: Any, observer: AbstractContextManager[Any], arguments: Sequence[Any]) -> Any:
        with recording, observer, _mode(self.fn):
            return self.fn(*arguments)

    def _recorded_result(self, array: Array) -> Array:
        if not self.recording.holds(array):
            raise CaptureError(f"a returned array is computed by a NumPy expression: {REMEDY}")
        return array

    def _test(self, inputs: tuple[Any, ...], expected: Seen, operations: bool) -> None:
        """Replays on inputs of which an eager run is known, operation by operation if asked for."""
        self._fill(inputs)
        done = 0
        if operations:
            if len(expected.operations) != len(self.places.marks):
                raise CaptureError("fn runs other operations on other values of its inputs")
            for (what, place, launches), checksum in zip(self.places.marks, expected.operations, strict=True):
                self._run(done, launches)
                done = launches
                if place.checksum() != checksum:
                    raise CaptureError(f"{what} depends on a value that is not recorded: {REMEDY}")
        self._run(done, len(self.recording))
        state = self.state.contents()
        moved = [name for name in expected.state if state.get(name) != expected.state[name]]
        if moved:
            raise CaptureError(f"{moved[0]} is not computed as in a run without capture: {REMEDY}")
        if _digests(self.results) != expected.results:
            raise CaptureError(f"a returned array depends on a value that is not recorded: {REMEDY}")

    def _fill(self, inputs: tuple[Any, ...]) -> None:
        values = [value.data if isinstance(value, Tensor) else value for value in inputs]
        for check, position in self.recording.checks:
            check(values[position])
        for value, buffer in zip(values, self.buffers, strict=True):
            buffer[...] = array_module(buffer).asarray(value) if is_array(value) else value

    def _run(self, begin: int, end: int) -> None:
        self.recording.run(begin, end)
        for leaf, grad in self.grads:
            leaf.grad = grad


class _Checksums(Observer):
    """Checksums of the results of each operation, forward and backward, in order."""

    def __init__(self, recording: Any) -> None:
        self.place = recording.place
        self.sums: list[int | bytes] = []

    def after_forward(self, node: Function, arrays: tuple[Array | None, ...], output: Array) -> None:
        self.sums.append(self.place(output).checksum())

    def after_backward(self, node: Function, grad_output: Array, grads: tuple[Array | None, ...]) -> None:
        self.sums += [self.place(grad).checksum() for grad in grads if grad is not None]


class _Places(Observer):
    """Where the results of each operation lie in the recording: (operation, place, launches until then)."""

    def __init__(self, recording: Any) -> None:
        self.recording = recording
        self.marks: list[tuple[str, Any, int]] = []

    def after_forward(self, node: Function, arrays: tuple[Array | None, ...], output: Array) -> None:
        self._mark(f"forward of {node!r}, called at {node.place},", output)

    def after_backward(self, node: Function, grad_output: Array, grads: tuple[Array | None, ...]) -> None:
        for grad in grads:
            if grad is not None:
                self._mark(f"backward of {node!r}, whose forward was called at {node.place},", grad)

    def after(self, error: BaseException) -> str:
        """Where an error comes from: the note of an operation that failed, else the operation before it."""
        notes: list[str] = getattr(error, "__notes__", [])
        return f"{notes[0]}:" if notes else f"after {self.marks[-1][0]}" if self.marks else "before any operation,"

    def _mark(self, what: str, array: Array) -> None:
        if not self.recording.holds(array):
            raise CaptureError(
                f"{what} computes by a NumPy expression or in memory of another pool, which is not recorded: {REMEDY}"
            )
        self.marks.append((what, *self.recording.mark(array)))


def mapped(results: Any, change: Callable[[Array], Any]) -> Any:
    """What a function returned, with change(array) in the place of each Tensor and array."""
    if isinstance(results, Tensor) or is_array(results):
        return change(results.data if isinstance(results, Tensor) else results)
    if isinstance(results, dict):
        return {key: mapped(value, change) for key, value in results.items()}
    if isinstance(results, (tuple, list)):
        parts = [mapped(value, change) for value in results]
        return type(results)(*parts) if hasattr(results, "_fields") else type(results)(parts)
    if results is None:
        return None
    raise CaptureError(
        f"fn must return Tensors, arrays, or tuples, lists and dicts of these, got {type(results).__name__}; "
        "return a Tensor, not its item()"
    )


def _digests(results: Any) -> list[bytes]:
    found: list[bytes] = []
    mapped(results, lambda array: found.append(digest(array)))
    return found


def _mode(fn: Any) -> AbstractContextManager[Any]:
    """A Module is captured for its output; a function decides about gradients itself."""
    return no_grad() if isinstance(fn, Module) else nullcontext()


def _kind(value: Any, argument: str) -> tuple[Any, ...]:
    """Inputs of one kind share a recording."""
    if isinstance(value, Tensor) or is_array(value):
        if getattr(value, "requires_grad", False):
            raise CaptureError(f"{argument} must not require a gradient, which a replay could not return")
        return type(value).__name__, value.shape, value.dtype.name
    if isinstance(value, (int, float, np.number)) and not isinstance(value, bool):
        return ("number",)
    raise CaptureError(f"{argument} must be an array, a Tensor or a number, got {type(value).__name__}")


def _listed(key: tuple[Any, ...]) -> str:
    return ", ".join(" ".join(map(str, kind)) for kind in key) or "none"


def _buffer(recording: Any, value: Any) -> Array:
    """Where a replay puts an input: images channels-last and integers as int64, as the kernels read them."""
    if not isinstance(value, Tensor) and not is_array(value):
        number: Array = recording.empty((), np.dtype(np.float64))
        return number
    dtype = np.dtype(np.int64) if value.dtype.kind in "iu" else value.dtype
    if value.ndim != 4:
        buffer: Array = recording.empty(value.shape, dtype)
        return buffer
    N, C, H, W = value.shape
    images: Array = recording.empty((N, H, W, C), dtype)
    return images.transpose(0, 3, 1, 2)


def _argument(value: Any, buffer: Array) -> Any:
    """What the recorded call gets for an input: its buffer, as what was given."""
    if isinstance(value, Tensor):
        return Tensor(buffer)
    if is_array(value):
        return buffer
    number = Scalar(value)
    number.cell = buffer
    return number


def _other(value: Any, xp: Any) -> Any:
    """Another input of the same kind, for the test of a capture, as an array of `xp`."""
    if isinstance(value, Tensor):
        return Tensor(_other(value.data, xp))
    if not is_array(value):
        return 0.5 * value if value else 0.25
    return xp.asarray(_other_values(on_cpu(value)))


def _other_values(value: Array) -> Array:
    if value.dtype.kind == "f":
        finite, noise = np.nan_to_num(value, posinf=1, neginf=-1), np.random.default_rng(0).standard_normal(value.shape)
        return (finite + noise * (np.abs(finite).max(initial=0) or 1) / 4).astype(value.dtype)
    if value.dtype.kind == "b":
        return ~value
    return np.where(value > 0, value - 1, 1).astype(np.int64)  # a label stays one
