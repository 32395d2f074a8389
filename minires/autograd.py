"""The tape: what a node is, how gradients walk it backward, and how to watch it.

An operation is a `Function`: an object that is made for one call, keeps what its backward needs in `saved`, and stays
behind the output tensor as a node of the tape.  `backward` walks the nodes from the newest to the oldest.  A node is
made after the nodes of its inputs, so that order alone guarantees that a node's gradient is complete when its turn
comes: no recursion and no sorting beforehand.
"""

from __future__ import annotations

import functools
import heapq
import inspect
import itertools
import operator
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType
from typing import Any, ClassVar, ParamSpec, TypeVar

from minires import _guard, backends
from minires.arrays import Array, array_module, as_array, is_array
from minires.deferred import Deferred, array_if_computed, resolved
from minires.tensor import Tensor

P = ParamSpec("P")
R = TypeVar("R")

_serials = itertools.count()

# Frames of these files lie between an operation and the code that called for it.
_HOME = Path(__file__).parent
_ENGINE = (
    *(str(_HOME / name) for name in ("autograd.py", "tensor.py", "operators.py", "functional.py", "_losses.py")),
    *(str(_HOME / name) + "/" for name in ("ops", "nn", "models")),
)


class _State(threading.local):
    """What each thread has of its own."""

    grad_enabled = True
    module = ""
    depth = 0  # of module calls within one another

    def __init__(self) -> None:
        self.observers: list[Observer] = []
        self.deferred: list[weakref.ref[Deferred]] = []  # results of the outermost module call that still wait
        self.outer_grad_enabled: list[bool] = []  # what each `with no_grad()` that is open goes back to


_state = _State()


class Function:
    """One operation applied once: a node of the tape.

    A subclass takes its options in `__init__` and defines

        forward(*arrays) -> array                       (an absent optional input is None)
        backward(grad_output) -> gradient per input     (an array for one input, a tuple for several; None: no gradient)

    `forward` puts the arrays that backward needs into `self.saved`; backward neither changes them nor `grad_output`.
    As long as the node is on the tape these arrays are read-only.

    Calling the object runs forward and, if an input requires a gradient, leaves the object on the tape:

        y = Conv2d(stride=(1, 1), ...)(x, weight, bias)

    name                operation, e.g. "Conv2d"
    module              dotted path of the module that made the call, e.g. "layer2.0.conv1"; "" outside of modules
    backend             the backend that computes this node, in forward and in backward
    takes_deferred      a class says when its forward can be given results that are still to be computed (Deferred):
                        "always", where it saves none of its inputs, "unrecorded", where there is no tape, or "" (never)
    takes_deferred_gradient     a class says whether its backward can
    parents             for each input the node that made it, the leaf Tensor that wants its gradient, or None
    needs_input_grad    for each input whether its gradient is wanted: backward may skip the others
    input_shapes        for each input its shape, None for an absent one
    output_shape        shape of the output
    place               "file:line" of the call, in the first frame that is not the engine's; "" where neither a tape
                        nor an observer wants it
    serial              rises with every node made
    """

    takes_deferred: ClassVar[str] = ""
    takes_deferred_gradient: ClassVar[bool] = False

    module: str
    backend: Any
    parents: tuple[Function | Tensor | None, ...] = ()
    needs_input_grad: tuple[bool, ...] = ()
    input_shapes: tuple[tuple[int, ...] | None, ...]
    output_shape: tuple[int, ...]
    serial: int
    saved: Any = None
    released = False
    _held: _guard.Held | None = None
    _caller: tuple[str, int] | None = None

    @property
    def name(self) -> str:
        return type(self).__name__

    def __repr__(self) -> str:
        shapes = ""
        if "output_shape" in self.__dict__:
            shapes = ", ".join(str(shape) for shape in self.input_shapes if shape is not None)
            shapes = f": {shapes} -> {self.output_shape}"
        return f"<{self.heading}{shapes}>"

    @property
    def heading(self) -> str:
        """Operation, options and module in a line."""
        told = ", ".join(f"{k}={v!r}" for k, v in self.options().items())
        return f"{self.name}({told})" + (f" of {self.module}" if getattr(self, "module", "") else "")

    @property
    def place(self) -> str:
        return "{}:{}".format(*self._caller) if self._caller else ""

    def options(self) -> dict[str, Any]:
        """What the operation was made with, as far as it is a number, a word or a tuple of such."""
        own = {k: v for k, v in vars(self).items() if k not in Function.__annotations__}
        return {k: v for k, v in own.items() if isinstance(v, (int, float, str, tuple))}

    def forward(self, *arrays: Any) -> Array:
        raise TypeError(f"{self.name} defines no forward")

    def backward(self, grad_output: Array) -> Any:
        raise TypeError(f"{self.name} defines no backward")

    def __call__(self, *inputs: Tensor | None) -> Tensor:
        if "serial" in self.__dict__:
            raise RuntimeError(f"{self!r} has been called already; a node is one call: make a new {self.name}")
        self.serial = next(_serials)
        self.module = _state.module
        record = _state.grad_enabled
        for position, t in enumerate(inputs):
            if t is not None and not isinstance(t, Tensor):
                raise TypeError(f"inputs[{position}] must be a Tensor or None, got {type(t).__name__}")
        self.needs_input_grad = tuple(record and t is not None and t.requires_grad for t in inputs)
        self.parents = tuple(
            (t.node or t) if t is not None and wanted else None
            for t, wanted in zip(inputs, self.needs_input_grad, strict=True)
        )
        recorded = any(self.needs_input_grad)
        form = "eager" if _state.depth == 0 or _watched() else "fused" if recorded else "inference"
        arrays: tuple[Any, ...] = tuple(None if t is None else t.promised for t in inputs)
        self.backend = _backend_for(self, arrays, form)
        joins = self.takes_deferred == "always" or (self.takes_deferred and not recorded)
        if not (joins and getattr(self.backend, "defers", False)):
            arrays = tuple(None if t is None else t.data for t in inputs)
        self.input_shapes = tuple(None if a is None else a.shape for a in arrays)
        if recorded or _state.observers:
            self._caller = _caller()
        for observer in _state.observers:
            observer.before_forward(self, arrays)
        try:
            output = as_array(self.forward(*arrays))
        except Exception as error:
            self._caller = self._caller or _caller()
            error.add_note(f"in forward of {self!r}, called at {self.place}")
            raise
        self.output_shape = output.shape
        if isinstance(output, Deferred):
            output.origin = f"in forward of {self!r}"
            _state.deferred.append(weakref.ref(output))
        for observer in reversed(_state.observers):
            observer.after_forward(self, arrays, output)
        if not recorded:
            return Tensor(output)
        self._held = _guard.hold(self.saved)
        return Tensor(output, requires_grad=True, node=self)

    def run_backward(self, grad_output: Array) -> tuple[Array | None, ...]:
        """`backward` as the walk calls it: watched, and always a tuple with one entry per input."""
        if self.released:
            raise RuntimeError(
                f"the tape behind {self!r} has been walked already and its arrays are freed: run the forward pass again"
            )
        if _watched():
            self.backend = getattr(self.backend, "eager", self.backend)  # someone may look at every single result
        if not (self.takes_deferred_gradient and getattr(self.backend, "defers", False)):
            grad_output = resolved(grad_output)
        for observer in _state.observers:
            observer.before_backward(self, grad_output)
        try:
            grads = self.backward(grad_output)
            grads = tuple(map(as_array, grads)) if isinstance(grads, tuple) else (as_array(grads),)
            self._check(grads)
        except Exception as error:
            error.add_note(f"in backward of {self!r}, whose forward was called at {self.place}")
            raise
        for observer in reversed(_state.observers):
            observer.after_backward(self, grad_output, grads)
        return grads

    def _check(self, grads: tuple[Any, ...]) -> None:
        """A wrong shape would broadcast into a wrong gradient further on: it is an error here, where it was made."""
        if len(grads) != len(self.input_shapes):
            told = f"{len(grads)} gradients for {len(self.input_shapes)} inputs"
            raise RuntimeError(f"backward of {self!r} returned {told}; None stands for one that is not wanted")
        for position, (grad, shape) in enumerate(zip(grads, self.input_shapes, strict=True)):
            if grad is None or not self.needs_input_grad[position]:
                continue
            if not is_array(grad) and not isinstance(grad, Deferred):
                told = f"{type(grad).__name__}, not an array"
            elif grad.shape != shape:
                told = f"an array of shape {grad.shape}; the input has {shape}"
            else:
                continue
            raise RuntimeError(f"backward of {self!r} returned for input {position} {told}")

    def release(self) -> None:
        """Lets go of everything that only backward needed."""
        self.saved = None
        self.parents = ()
        self.released = True
        held, self._held = self._held, None
        if held:
            _guard.let_go(held)

    def __del__(self) -> None:
        if self._held:  # nobody walked this tape backward
            _guard.let_go(self._held)


def backward(output: Tensor, grad_output: Array, on_leaf: Callable[[Tensor], None] | None = None) -> None:
    """Adds d(sum(output · grad_output))/d(leaf) to the `.grad` of every leaf that `output` depends on.

    Each node is released as soon as its gradient has been passed on, so that the arrays of the tape are freed on the
    way and the peak of memory stays near the forward pass's.

    on_leaf   is called with every leaf once, as soon as nothing that is left of the walk can add to its gradient
    """
    if output.node is None:
        _accumulate(output, grad_output, owned=False)
        if on_leaf is not None:
            on_leaf(output)
        return
    uses = _uses_of_leaves(output.node) if on_leaf is not None else {}
    grads: dict[Function, Array] = {output.node: grad_output}
    newest_first = [(-output.node.serial, output.node)]
    while newest_first:
        _, node = heapq.heappop(newest_first)
        grad = grads.pop(node)
        parents = node.parents
        grad_inputs = node.run_backward(grad)
        node.release()
        for position, (parent, grad_input) in enumerate(zip(parents, grad_inputs, strict=True)):
            if parent is None or grad_input is None:
                continue
            if isinstance(parent, Tensor):
                array = resolved(grad_input)
                # An array that somebody else holds as well (a view, the cotangent itself, a sibling's) is copied first.
                shared = array.base is not None or array is array_if_computed(grad)
                shared = shared or any(array is array_if_computed(other) for other in grad_inputs[:position])
                _accumulate(parent, array, owned=not shared)
                del array
            elif parent in grads:
                grads[parent] = _sum(parent.backend, grads[parent], grad_input)
            else:
                grads[parent] = grad_input
                heapq.heappush(newest_first, (-parent.serial, parent))
        if on_leaf is not None:
            for leaf in (parent for parent in parents if isinstance(parent, Tensor)):
                uses[leaf] -= 1
                if uses[leaf] == 0:
                    del uses[leaf]
                    on_leaf(leaf)
        del grad, grad_inputs, grad_input, parent, parents
    if on_leaf is not None:
        for leaf in uses:  # behind a node that passed no gradient on
            on_leaf(leaf)


def _uses_of_leaves(node: Function) -> dict[Tensor, int]:
    """How often each leaf stands among the inputs of this node and of all before it."""
    uses: dict[Tensor, int] = {}
    seen, ahead = {node}, [node]
    while ahead:
        for parent in ahead.pop().parents:
            if isinstance(parent, Tensor):
                uses[parent] = uses.get(parent, 0) + 1
            elif parent is not None and parent not in seen:
                seen.add(parent)
                ahead.append(parent)
    return uses


def _sum(backend: Any, a: Any, b: Any) -> Any:
    """Of two gradients that reach one node.  One that waits is computed with the other added on the way."""
    if isinstance(a, Deferred) or isinstance(b, Deferred):
        return a + b
    return as_array(getattr(backend, "accumulate", operator.add)(a, b))


def _accumulate(leaf: Tensor, grad: Array, owned: bool) -> None:
    if leaf.grad is not None:
        leaf.grad = as_array(leaf.grad + grad)
    else:
        leaf.grad = grad if owned else grad.copy(order="C")


def _backend_for(node: Function, arrays: tuple[Any, ...], form: str) -> Any:
    """The backend that computes on these arrays; of its forms, if it has some, "eager", "fused" or "inference"."""
    modules = {array_module(a).__name__ for a in arrays if a is not None}
    if len(modules) > 1:
        homes = " and of ".join(sorted(modules))
        raise TypeError(f"{node.name}: inputs are arrays of {homes}; move them to one device first")
    if not modules:
        raise ValueError(f"{node.name}: inputs must hold at least one Tensor, got none")
    (home,) = modules
    backend = backends.active(home)
    wanted = getattr(backend, "array_module", None)  # the reference backend takes them all
    if wanted is not None and home != wanted.__name__:
        raise TypeError(f"{node.name}: backend {backend.name!r} computes on {wanted.__name__} arrays, got {home}'s")
    return getattr(backend, form, backend)


def _watched() -> bool:
    """Whether someone may look at the result of every single operation: an observer or a debugger."""
    return bool(_state.observers) or sys.gettrace() is not None or _debugger() is not None


if sys.version_info >= (3, 12):

    def _debugger() -> str | None:
        """A debugger need not trace any more: it registers here."""
        return sys.monitoring.get_tool(sys.monitoring.DEBUGGER_ID)

else:

    def _debugger() -> str | None:
        return None


_engines: dict[CodeType, bool] = {}


def _caller() -> tuple[str, int]:
    """File and line of the code that called for the operation being made: the first frame that is not the engine's."""
    frame = sys._getframe(2)
    while True:
        code = frame.f_code
        engine = _engines.get(code)
        if engine is None:
            engine = _engines[code] = code.co_filename.startswith(_ENGINE)
        if not engine or frame.f_back is None:
            return code.co_filename, frame.f_lineno
        frame = frame.f_back


class Observer:
    """Watches every node that this thread runs while the observer is active (`with observer: ...`).

    Override any of the four callbacks.  `arrays` are forward's inputs (None where an optional one is absent), `grads`
    what backward returned, one entry per input.  Observers look; they do not change what they are shown.
    The outermost observer is called first before, and last after, an operation.
    """

    def before_forward(self, node: Function, arrays: tuple[Array | None, ...]) -> None: ...

    def after_forward(self, node: Function, arrays: tuple[Array | None, ...], output: Array) -> None: ...

    def before_backward(self, node: Function, grad_output: Array) -> None: ...

    def after_backward(self, node: Function, grad_output: Array, grads: tuple[Array | None, ...]) -> None: ...

    def __enter__(self) -> Any:
        # A new list each time: entering or leaving from inside a callback doesn't disturb the loop that called it.
        _state.observers = [*_state.observers, self]
        return self

    def __exit__(self, *exc_info: object) -> None:
        last = max(i for i, o in enumerate(_state.observers) if o is self)
        _state.observers = [o for i, o in enumerate(_state.observers) if i != last]


class _GradMode:
    """A context manager and a decorator that says whether operations are recorded. Each thread has its own state.

    A decorated generator function runs in this mode each time it is resumed, and leaves the caller's mode alone.
    """

    enabled: bool

    def __enter__(self) -> None:
        _state.outer_grad_enabled.append(_state.grad_enabled)
        _state.grad_enabled = self.enabled

    def __exit__(self, *exc_info: object) -> None:
        _state.grad_enabled = _state.outer_grad_enabled.pop()

    def __call__(self, fn: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(fn)
        def in_this_mode(*args: P.args, **kwargs: P.kwargs) -> R:
            with type(self)():
                return fn(*args, **kwargs)

        @functools.wraps(fn)
        def resumed_in_this_mode(*args: P.args, **kwargs: P.kwargs) -> Iterator[Any]:
            generator: Any = fn(*args, **kwargs)
            resume: Any = generator.send
            value: Any = None
            while True:
                with type(self)():
                    try:
                        produced = resume(value)
                    except StopIteration as end:
                        return end.value
                try:
                    resume, value = generator.send, (yield produced)
                except BaseException as error:  # thrown in by the caller; GeneratorExit from close()
                    resume, value = generator.throw, error

        return resumed_in_this_mode if inspect.isgeneratorfunction(fn) else in_this_mode  # type: ignore[return-value]


class no_grad(_GradMode):
    """Within it nothing is recorded on the tape; a context manager and a decorator. Each thread has its own state."""

    enabled = False


class enable_grad(_GradMode):
    """Within it operations are recorded, inside of `no_grad` too; a context manager and a decorator."""

    enabled = True


def is_grad_enabled() -> bool:
    """Whether operations are being recorded in this thread."""
    return _state.grad_enabled


@contextmanager
def module_scope(name: str) -> Iterator[None]:
    """Nodes made within it belong to the module `name` of the enclosing module ("layer2" → "layer2.0" → …).

    Within it operations may wait for one another (see Deferred); when the outermost scope ends, all are computed.
    """
    outer = _state.module
    _state.module = f"{outer}.{name}" if outer and name else outer or name
    _state.depth += 1
    finished = False
    try:
        yield
        finished = True
    finally:
        _state.module = outer
        _state.depth -= 1
        if _state.depth == 0 and _state.deferred:
            waiting, _state.deferred = _state.deferred, []
            # The newest first: computing a sum computes the norm inside it, and what the sum alone held is gone then.
            for result in (reference() for reference in reversed(waiting)):
                if finished:
                    resolved(result)
                elif result is not None:  # a traceback holds it: its arrays are writable again all the same
                    result.let_go()
