"""What each thread has of its own while it computes: the grad mode, the path of the running module, the observers."""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from minires.arrays import Array

if TYPE_CHECKING:
    from minires.autograd import Function

P = ParamSpec("P")
R = TypeVar("R")


class _Context(threading.local):
    grad_enabled = True
    module = ""  # dotted path of the module whose forward is running

    def __init__(self) -> None:
        self.observers: list[Observer] = []
        self.grad_modes: list[tuple[_GradMode, bool]] = []  # each open `with no_grad()`, and the mode before it


context = _Context()


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
        context.observers = [*context.observers, self]
        return self

    def __exit__(self, *exc_info: object) -> None:
        places = [i for i, o in enumerate(context.observers) if o is self]
        if places:  # none after a second exit
            context.observers = [o for i, o in enumerate(context.observers) if i != places[-1]]


class _GradMode:
    """A context manager and a decorator that sets whether operations are recorded, in this thread.

    A decorated generator function runs in this mode each time it is resumed, and leaves the caller's mode alone.
    """

    enabled: bool

    def __enter__(self) -> None:
        context.grad_modes.append((self, context.grad_enabled))
        context.grad_enabled = self.enabled

    def __exit__(self, *exc_info: object) -> None:
        modes = context.grad_modes
        places = [place for place, (opened, _) in enumerate(modes) if opened is self]
        if not places:
            return
        _, before = modes.pop(places[-1])
        if places[-1] == len(modes):
            context.grad_enabled = before
        else:  # a generator ends inside of another mode: that one stays, and goes back to what was before both
            modes[places[-1]] = modes[places[-1]][0], before

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
    return context.grad_enabled


class module_scope:
    """Nodes made within it belong to the module `name` of the enclosing module ("layer2" → "layer2.0" → …)."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> None:
        self.outer = context.module
        context.module = f"{self.outer}.{self.name}" if self.outer and self.name else self.outer or self.name

    def __exit__(self, *exc_info: object) -> None:
        context.module = self.outer
