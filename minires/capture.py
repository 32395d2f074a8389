"""Capture: record a call once, replay it without Python.

    fast = mr.capture(model, x)                               fast(x2) -> the output as a plain array
    step = mr.capture(train_step, images, labels, 0.1)        step(images2, labels2, 0.05)

The backend records the kernel calls that `fn` launches, in memory of the recording's own.  A replay copies its inputs
there and runs the same calls in the same order.  Between the calls there is no Python: what a plain NumPy expression
computes is not recorded.  So a capture proves itself before it is returned: `fn` runs on other inputs, the recording is
replayed on the same inputs, and every result, gradient, parameter and statistic must agree bit by bit.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from types import FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

from minires import backends, random
from minires._checks import choice
from minires.arrays import Array
from minires.autograd import Function
from minires.context import Observer, no_grad
from minires.nn import Module
from minires.optim import Optimiser
from minires.readonly import Frozen, hold, release
from minires.tensor import Tensor

__all__ = ["CaptureError", "Captured", "capture"]


class CaptureError(RuntimeError):
    """A call cannot be captured, or a capture does not fit what it is called with."""


class Scalar(float):
    """A number that a capture reads anew at each replay, from the array `cell` ()."""

    cell: Array


def capture(fn: Callable[..., Any], *inputs: Any, shapes: str = "fixed") -> Captured:
    """Records fn(*inputs) and returns a callable that replays it on other inputs.

    fn       a Module, which is recorded under `no_grad`, or any function, such as a whole training step.  It returns a
             Tensor, an array, None, or tuples, lists and dicts of these
    inputs   arrays, Tensors, and numbers that change from call to call, such as the learning rate
    shapes   "fixed": other shapes, dtypes, modes or parameters raise CaptureError.  "any": each makes one more recording

    `fn` runs three times or more; parameters, statistics, velocities, gradients and random numbers are restored
    afterwards.  Found are those that `fn`, its closure and the globals that it names reach.

    Raises CaptureError, naming the first operation, parameter or result that is not recorded, and for a backend that
    cannot record: `native` can.
    """
    choice(shapes, "shapes", ("fixed", "any"))
    if not callable(fn):
        raise TypeError(f"fn must be callable, got {type(fn).__name__}")
    return Captured(fn, inputs, shapes)


class Captured:
    """A recorded call.  Thread-safe: one replay at a time.

    Calling it returns what the recorded function returns, with a new array in place of each Tensor and array.
    Leaves that had a gradient afterwards have it after a replay, in memory that the next replay writes again.
    Neither observers nor checks of values (labels in range excepted) run during a replay.
    """

    def __init__(self, fn: Callable[..., Any], inputs: tuple[Any, ...], shapes: str) -> None:
        self.fn = fn
        self._any = shapes == "any"
        self._lock = threading.RLock()
        self._plans: dict[Any, Plan] = {}
        self._plan(inputs)

    def __call__(self, *inputs: Any) -> Any:
        with self._lock:
            return self._plan(inputs).replay(inputs)

    def __repr__(self) -> str:
        told = getattr(self.fn, "__name__", type(self.fn).__name__)
        return f"<capture of {told}: {', '.join(map(repr, self._plans.values()))}>"

    def _plan(self, inputs: tuple[Any, ...]) -> Plan:
        key = tuple(_kind(value, f"inputs[{position}]") for position, value in enumerate(inputs))
        plan = self._plans.get(key)
        if plan is None:
            if self._plans and not self._any:
                (first,) = self._plans
                raise CaptureError(
                    f"inputs must be as recorded, {_told(first)}, got {_told(key)}; capture again, or pass shapes='any'"
                )
            plan = self._plans[key] = Plan(self.fn, inputs)
        elif changed := plan.state.changed():
            if not self._any:
                raise CaptureError(f"{changed} since the capture; capture again, or pass shapes='any'")
            plan = self._plans[key] = Plan(self.fn, inputs)
        return plan


class Plan:
    """One recording, for inputs of certain shapes."""

    def __init__(self, fn: Callable[..., Any], inputs: tuple[Any, ...]) -> None:
        self.fn = fn
        self.frozen: list[Frozen] = []
        self.state = State(fn)
        backend = backends.active()
        make = getattr(backend, "recording", None)
        if make is None:
            raise CaptureError(
                f"backend {backend.name!r} cannot record: it computes by array expressions, call by call; "
                "capture with the backend 'native'"
            )
        before = self.state.saved()
        try:
            others = tuple(map(_other, inputs))
            expected = [self._run(make, others)]  # also the warm-up: what `fn` makes on its first call exists now
            trains = self.state.differs(before)
            if trains:
                expected.append(self._run(make, others))
            self.state.load(before)
            self._record(make, inputs, constants=not trains)
            self._prove(others, expected, before)
        except BaseException:
            self.state.load(before)
            raise
        self.state.put_back(before)

    def __repr__(self) -> str:
        return f"{len(self.recording)} launches, {self.recording.bytes() / 1e6:.0f} MB"

    def replay(self, inputs: tuple[Any, ...]) -> Any:
        """Runs the recording; the inputs are of the recorded kinds."""
        self._fill(inputs)
        for array in self.recording.written:
            release(array)
        if self.recording.constant and not self.frozen:
            self._hold()
            self.recording.run_constants()
        self.recording.run(0, len(self.recording))
        for leaf, grad in self.grads:
            leaf.grad = grad
        return _mapped(self.result, lambda array: np.array(array))

    def let_go(self) -> None:
        """What was computed from parameters and statistics is computed again at the next replay."""
        self.frozen = []

    def _hold(self) -> None:
        self.frozen = hold(self.recording.constant, self)

    def _run(self, make: Callable[[bool], Any], inputs: tuple[Any, ...]) -> _Seen:
        """fn(*inputs), and what is seen of it."""
        seen = _Checksums(make(False))
        with seen, _mode(self.fn):
            result = self.fn(*inputs)
        sums: list[Any] = []
        _mapped(result, lambda array: sums.append(array.tobytes()))
        return seen.sums, sums, self.state.contents()

    def _record(self, make: Callable[[bool], Any], inputs: tuple[Any, ...], constants: bool) -> None:
        recording = self.recording = make(constants)
        self.inputs = [_buffer(recording, value) for value in inputs]
        self._fill(inputs)
        self.places = _Places(recording)
        given = [_like(value, buffer) for value, buffer in zip(inputs, self.inputs, strict=True)]
        with ExitStack() as stack:
            recording.start()
            stack.callback(recording.stop)
            stack.enter_context(self.places)
            stack.enter_context(_mode(self.fn))
            result = self.fn(*given)
        self.result = _mapped(result, lambda array: array)
        _mapped(result, self._check_result)
        self.grads = [(leaf, leaf.grad) for leaf in self.state.leaves() if leaf.grad is not None]
        unknown = [array for array in recording.written if not self.state.holds(array)]
        if unknown:
            raise CaptureError(
                f"an array of shape {unknown[0].shape} is written that fn does not reach through its closure, its "
                "globals or its attributes: capture could not restore it"
            )
        if constants:
            self._hold()
            if any(array.flags.writeable for array in recording.constant):  # another framework's memory
                self.frozen = []
                self._record(make, inputs, constants=False)

    def _check_result(self, array: Array) -> None:
        if not self.recording.holds(array):
            raise CaptureError("a returned array is computed by a NumPy expression, which is not recorded")

    def _fill(self, inputs: tuple[Any, ...]) -> None:
        for value, buffer in zip(inputs, self.inputs, strict=True):
            buffer[...] = value.data if isinstance(value, Tensor) else value

    def _prove(self, inputs: tuple[Any, ...], expected: list[_Seen], before: Any) -> None:
        """Replays on the other inputs, node by node, and compares with the eager runs."""
        self.state.put_back(before)
        for run, (sums, results, contents) in enumerate(expected):
            self._fill(inputs)
            done = 0
            if run == 0:
                if len(sums) != len(self.places.marks):
                    raise CaptureError("fn calls other operations on other inputs of the same shapes")
                for (node, place, launches), expected_sum in zip(self.places.marks, sums, strict=True):
                    self.recording.run(done, launches)
                    done = max(done, launches)
                    if place.checksum() != expected_sum:
                        raise CaptureError(f"{node} depends on a value that is not recorded: {REMEDY}")
            self.recording.run(done, len(self.recording))
            for leaf, grad in self.grads:
                leaf.grad = grad
            found: list[Any] = []
            _mapped(self.result, lambda array, found=found: found.append(array.tobytes()))
            if found != results:
                raise CaptureError(f"a returned array depends on a value that is not recorded: {REMEDY}")
            if name := self.state.first_difference(contents):
                raise CaptureError(f"{name} is not written as in a run without capture: {REMEDY}")


REMEDY = "compute it by operations of the network or optim.SGD with momentum, or pass it as an input"
_Seen = tuple[list[int], list[Any], dict[str, bytes]]


class State:
    """What `fn` reaches and may move: modules, optimisers, leaves, arrays."""

    def __init__(self, fn: Any) -> None:
        self.modules: list[tuple[str, Module]] = []
        self.optimisers: list[Optimiser] = []
        self._loose: dict[str, Any] = {}  # Tensors and arrays that no module holds
        for name, value in _reached(fn):
            if isinstance(value, Module):
                self.modules.append((name, value))
            elif isinstance(value, Optimiser):
                self.optimisers.append(value)
            else:
                self._loose[name] = value
        self._parts = [module for _, root in self.modules for module in root.modules()]
        self._held = self._identity()
        self._modes = self._mode()

    def leaves(self) -> list[Tensor]:
        loose = [value for value in self._loose.values() if isinstance(value, Tensor)]
        owned = [p for part in self._parts for p in part._parameters.values()]
        return [*owned, *loose, *(p for optimiser in self.optimisers for p in optimiser.params)]

    def changed(self) -> str:
        """What is no longer as it was captured; "" if nothing."""
        if self._mode() != self._modes:
            return "the mode of a module (training, fused) has changed"
        if not all(a is b for a, b in zip(self._identity(), self._held, strict=False)):
            return "a parameter or statistic has been replaced"
        return ""

    def arrays(self) -> dict[str, Array]:
        """Parameters, statistics, velocities, and arrays by themselves, by name."""
        named: dict[str, Array] = {}
        for root, module in self.modules:
            named.update({f"{root}.{name}": array for name, array in module.state_dict().items()})
        for name, value in self._loose.items():
            named[name] = value.data if isinstance(value, Tensor) else value
        for number, optimiser in enumerate(self.optimisers):
            named.update({f"optimiser {number}: {n}": a for n, a in optimiser.state_dict().items()})
            named.update({f"optimiser {number}: parameter {i}": p.data for i, p in enumerate(optimiser.params)})
        return named

    def holds(self, array: Array) -> bool:
        return any(array is own or np.shares_memory(array, own) for own in self.arrays().values())

    def contents(self) -> dict[str, bytes]:
        grads = {f"gradient {i}": leaf.grad for i, leaf in enumerate(self.leaves()) if leaf.grad is not None}
        return {name: array.tobytes() for name, array in (self.arrays() | grads).items()}

    def first_difference(self, expected: dict[str, bytes]) -> str:
        found = self.contents()
        return next((name for name in expected if found.get(name) != expected[name]), "")

    def saved(self) -> Any:
        """A copy of everything, for `load` and `put_back`."""
        arrays = [(array, array.copy()) for array in self.arrays().values()]
        velocities = [
            ({name: array.copy() for name, array in o.state_dict().items()}, o.lr) for o in self.optimisers
        ]
        grads = [(leaf, leaf.grad) for leaf in self.leaves()]
        return arrays, velocities, grads, random.generator().bit_generator.state

    def differs(self, saved: Any) -> bool:
        return any(array.tobytes() != copy.tobytes() for array, copy in saved[0])

    def load(self, saved: Any) -> None:
        """Everything as it was; optimisers get new arrays."""
        self._restore(saved)
        for optimiser, (state, _) in zip(self.optimisers, saved[1], strict=True):
            optimiser.load_state_dict(state)

    def put_back(self, saved: Any) -> None:
        """Everything as it was, in the arrays that are recorded; a velocity from before the first step is 0."""
        self._restore(saved)
        for optimiser, (state, _) in zip(self.optimisers, saved[1], strict=True):
            for name, array in optimiser.state_dict().items():
                array[...] = state.get(name, 0)

    def _restore(self, saved: Any) -> None:
        arrays, velocities, grads, drawn = saved
        for array, copy in arrays:
            release(array)
            array[...] = copy
        for optimiser, (_, lr) in zip(self.optimisers, velocities, strict=True):
            optimiser.lr = lr
        for leaf, grad in grads:
            leaf.grad = grad
        random.generator().bit_generator.state = drawn

    def _identity(self) -> list[Any]:
        held: list[Any] = []
        for part in self._parts:
            held += [p.data for p in part._parameters.values()]
            held += part._buffers.values()
        return held

    def _mode(self) -> list[tuple[bool, bool]]:
        return [(part.training, part.fused) for part in self._parts]


class _Checksums(Observer):
    """Checksums of what each operation computes, forward and backward, in order."""

    def __init__(self, recording: Any) -> None:
        self.place = recording.place
        self.sums: list[int] = []

    def after_forward(self, node: Function, arrays: tuple[Array | None, ...], output: Array) -> None:
        self.sums.append(self.place(output).checksum())

    def after_backward(self, node: Function, grad_output: Array, grads: tuple[Array | None, ...]) -> None:
        for grad in grads:
            if grad is not None:
                self.sums.append(self.place(grad).checksum())


class _Places(Observer):
    """Where each operation's results lie in the recording: (operation, place, launches until then)."""

    def __init__(self, recording: Any) -> None:
        self.recording = recording
        self.marks: list[tuple[str, Any, int]] = []

    def after_forward(self, node: Function, arrays: tuple[Array | None, ...], output: Array) -> None:
        self._mark(f"forward of {node!r}, called at {node.place},", output)

    def after_backward(self, node: Function, grad_output: Array, grads: tuple[Array | None, ...]) -> None:
        for grad in grads:
            if grad is not None:
                self._mark(f"backward of {node!r}, whose forward was called at {node.place},", grad)

    def _mark(self, what: str, array: Array) -> None:
        if not self.recording.holds(array):
            raise CaptureError(f"{what} computes by a NumPy expression, which is not recorded: {REMEDY}")
        self.marks.append((what, self.recording.place(array), len(self.recording)))


def _reached(root: Any) -> Iterator[tuple[str, Any]]:
    """(name, Module, Optimiser, Tensor or array) that a function reaches, each once."""
    seen: set[int] = set()
    queue: list[tuple[str, Any]] = [(getattr(root, "__name__", type(root).__name__), root)]
    while queue:
        name, value = queue.pop()
        if id(value) in seen or isinstance(value, (ModuleType, type, str, bytes)):
            continue
        seen.add(id(value))
        if isinstance(value, (Module, Optimiser, Tensor, np.ndarray)):
            yield name, value
        elif isinstance(value, MethodType):
            queue += [(name, value.__self__), (name, value.__func__)]
        elif isinstance(value, partial):
            queue += [(name, value.func), (name, value.args), (name, value.keywords)]
        elif isinstance(value, FunctionType):
            if value.__module__ and value.__module__.partition(".")[0] == "minires":
                continue
            found = inspect.getclosurevars(value)
            queue += [*found.nonlocals.items(), *found.globals.items(), (name, value.__defaults__)]
        elif isinstance(value, dict):
            queue += [(f"{name}[{key!r}]", item) for key, item in value.items()]
        elif isinstance(value, (list, tuple, set)):
            queue += [(f"{name}[{position}]", item) for position, item in enumerate(value)]
        elif hasattr(value, "__dict__") and not isinstance(value, Captured):
            queue += [(f"{name}.{attribute}", item) for attribute, item in vars(value).items()]


def _mode(fn: Any) -> Any:
    """Of a Module only the outputs are asked for."""
    return no_grad() if isinstance(fn, Module) else ExitStack()


def _kind(value: Any, argument: str) -> tuple[Any, ...]:
    if isinstance(value, Tensor):
        return (Tensor, value.shape, value.dtype)
    if isinstance(value, np.ndarray):
        return (np.ndarray, value.shape, value.dtype)
    if isinstance(value, (int, float, np.number)) and not isinstance(value, bool):
        return (float,)
    raise CaptureError(f"{argument} must be an array, a Tensor or a number, got {type(value).__name__}")


def _told(key: tuple[Any, ...]) -> str:
    return "(" + ", ".join("a number" if k[0] is float else f"{k[0].__name__} {k[1]} {k[2]}" for k in key) + ")"


def _buffer(recording: Any, value: Any) -> Array:
    """Where an input of the recording lies; images channels-last, labels as int64, as the kernels read them."""
    if not isinstance(value, (Tensor, np.ndarray)):
        return np.zeros(())
    shape, dtype = value.shape, np.dtype(np.int64) if value.dtype.kind in "iu" else value.dtype
    if len(shape) != 4:
        return recording.empty(shape, dtype)
    N, C, H, W = shape
    return recording.empty((N, H, W, C), dtype).transpose(0, 3, 1, 2)


def _like(value: Any, buffer: Array) -> Any:
    """The recorded input, of the kind that was given."""
    if isinstance(value, Tensor):
        return Tensor(buffer, requires_grad=value.requires_grad)
    if isinstance(value, np.ndarray):
        return buffer
    number = Scalar(value)
    number.cell = buffer
    return number


def _other(value: Any) -> Any:
    """Another input of the same kind, on which the capture proves itself."""
    if isinstance(value, Tensor):
        return Tensor(_other(value.data), requires_grad=value.requires_grad)
    if not isinstance(value, np.ndarray):
        return 0.5 * value if value else 0.25
    if value.dtype.kind == "f":
        noise = np.random.default_rng(0).standard_normal(value.shape)
        return (value + noise * (np.abs(value).max(initial=0) or 1) / 4).astype(value.dtype)
    if value.dtype.kind == "b":
        return ~value
    return np.where(value > 0, value - 1, 1).astype(np.int64)  # a label that two classes have


def _mapped(result: Any, change: Callable[[Array], Any]) -> Any:
    if isinstance(result, Tensor):
        return change(result.data)
    if isinstance(result, np.ndarray):
        return change(result)
    if isinstance(result, dict):
        return {key: _mapped(value, change) for key, value in result.items()}
    if isinstance(result, (tuple, list)):
        return type(result)([_mapped(value, change) for value in result])
    if result is None:
        return None
    raise CaptureError(
        f"fn must return Tensors, arrays, or tuples, lists and dicts of these, got {type(result).__name__}; "
        "return the Tensor, not its item()"
    )
