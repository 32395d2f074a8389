"""Traces every node of the tape, forward to the loss and back again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from minires import _checks, random
from minires import functional as F
from minires._atomic import write_text
from minires.arrays import Array
from minires.autograd import Function
from minires.context import Observer, enable_grad
from minires.inspect.card import input_names
from minires.inspect.cost import memory_owners, multiply_adds
from minires.inspect.explaining import Call
from minires.inspect.tracing import embedded, exports, notebook, page
from minires.inspect.tracing.events import Event, Join, View
from minires.nn import Module
from minires.tensor import Tensor, as_tensor

RUNS, SECONDS = 5, 10.0  # timed runs at most; none begins later than this
KEPT = 2**28  # bytes of arrays and gradients that a trace keeps for `explain`


@dataclass
class Trace:
    """A traced forward and backward, as a `page`, a `timeline` or a `graph`; `save` writes one of them.

    title     the network and its input
    loss      the cross-entropy
    events    forward from the first operation to the loss, then backward
    classes   the classes of the operations that ran, by name
    runs      number of runs behind the times, which are medians; the traced run warms up.  0: no times, because the
              operations differed from run to run
    command   of the shell that repeats the run in a debugger with the same bits; "" if it was made in code

    A notebook shows the page below the cell, in a frame without access to the notebook.  The notebook's file holds a
    page of up to 2 MB.  A larger page goes into the folder minires-traces of the working directory, which is the
    notebook's.  The file's name holds the title and the page's checksum, so no other file is ever overwritten; each
    new trace adds a file.  Delete the folder when you no longer need its pages.
    """

    title: str
    events: list[Event] = field(default_factory=list)
    loss: float = 0.0
    classes: dict[str, type[Function]] = field(default_factory=dict)
    runs: int = 0
    command: str = ""

    def headline(self) -> str:
        """Title, numbers of operations and the loss, in a line."""
        counts = [sum(event.phase == phase for event in self.events) for phase in ("forward", "backward")]
        return f"{self.title}: {counts[0]} operations forward, {counts[1]} backward, loss {self.loss:.4g}"

    def __repr__(self) -> str:
        return f'<trace of {self.headline()}; save("trace.html") writes its page>'

    def _repr_html_(self) -> str:
        return notebook.frame(self.title, self.headline(), page.page([self._content(embedded.NOTEBOOK)]))

    def page(self) -> str:
        """One self-contained HTML file."""
        return page.page([self.content()])

    def content(self) -> dict[str, Any]:
        """What the page holds, as JSON can hold it."""
        return self._content(embedded.BUDGET)

    def _content(self, budget: int) -> dict[str, Any]:
        return page.content(self.title, self.loss, self.runs, self.events, self.classes, self.command, budget)

    def timeline(self) -> str:
        """JSON for Perfetto and chrome://tracing: modules nested as they were called."""
        return exports.timeline(self.title, self.events)

    def graph(self) -> str:
        """The tape in Graphviz's language."""
        return exports.graph(self.title, self.events)

    def save(self, path: str | Path, format: str = "html") -> Path:
        """Writes "html", "chrome" or "dot" atomically.  Returns the path."""
        formats = {"html": self.page, "chrome": self.timeline, "dot": self.graph}
        target = _checks.path(path, "path")
        write_text(target, formats[_checks.choice(format, "format", tuple(formats))]())
        return target


class Tracer(Observer):
    """Fills a trace."""

    def __init__(self, trace: Trace, parameters: dict[str, Tensor]) -> None:
        self.trace = trace
        self.names = {id(p): path for path, p in parameters.items()}
        self.weights = {id(p.data) for p in parameters.values()}
        self.numbers: dict[Function, int] = {}
        self.sent: dict[Function, list[tuple[int, Array]]] = {}
        self.owners: dict[int, int] = {}  # id of an array that owns memory -> number of nodes that keep it
        self.kept: dict[Function, dict[int, int]] = {}
        self.leaves: dict[int, Tensor] = {}
        self.alive = 0
        self.calls: dict[Function, Call] = {}
        self.left = KEPT

    def before_forward(self, node: Function, arrays: tuple[Array | None, ...]) -> None:
        named = zip(input_names(node), arrays, node.parents, strict=True)
        views = [View.of(name, a, self.names.get(id(parent), "")) for name, a, parent in named if a is not None]
        self._event(node, "forward", tuple(views))

    def after_forward(self, node: Function, arrays: tuple[Array | None, ...], output: Array) -> None:
        event = self.trace.events[-1]
        self.leaves |= {id(p): p for p in node.parents if isinstance(p, Tensor)}
        event.results = (View.of("output", output),)
        self.left -= 2 * (output.nbytes + sum(a.nbytes for a in arrays if a is not None))  # the gradients as well
        if self.left >= 0:
            event.call = self.calls[node] = Call.of(node, arrays, output)
        event.macs = multiply_adds(node)
        event.params = sum(p.size for p in node.parents if isinstance(p, Tensor) and id(p) in self.names)
        if any(node.needs_input_grad):
            # Without the weights, which exist anyway.
            owners = {id(a): a.nbytes for a in memory_owners(node.saved) if id(a) not in self.weights}
            self.kept[node] = owners
            event.kept = sum(owners.values())
            for owner, size in owners.items():
                self.alive += 0 if self.owners.get(owner) else size
                self.owners[owner] = self.owners.get(owner, 0) + 1
        event.alive = self.alive

    def before_backward(self, node: Function, grad_output: Array) -> None:
        self._event(node, "backward", (View.of("grad_output", grad_output),))
        sent = self.sent.pop(node, [])
        if len(sent) > 1:
            self.trace.events[-1].joins = tuple(Join(number, View.of("part", grad)) for number, grad in sent)

    def after_backward(self, node: Function, grad_output: Array, grads: tuple[Array | None, ...]) -> None:
        event = self.trace.events[-1]
        event.macs = multiply_adds(node, "backward")
        event.call = self.calls.pop(node, None)
        if event.call is not None:
            event.call.complete(node, grad_output, grads)
        views = []
        for name, parent, grad in zip(input_names(node), node.parents, grads, strict=True):
            if parent is None or grad is None:
                continue
            if isinstance(parent, Function):
                self.sent.setdefault(parent, []).append((event.number, grad))
            views.append(View.of(f"∂{name}", grad, self.names.get(id(parent), "")))
        event.results = tuple(views)
        for owner, size in self.kept.pop(node, {}).items():
            self.owners[owner] -= 1
            self.alive -= 0 if self.owners[owner] else size
        event.alive = self.alive

    def _event(self, node: Function, phase: str, arrays: tuple[View, ...]) -> None:
        number = self.numbers.setdefault(node, len(self.numbers))
        self.trace.classes[node.name] = type(node)
        options = ", ".join(f"{k}={v!r}" for k, v in node.options().items())
        parents = tuple(self.numbers.get(p) if isinstance(p, Function) else None for p in node.parents)
        place = "" if node.place.startswith(__file__) else node.place  # the place is `run` in `trace`
        self.trace.events.append(Event(number, phase, node.name, node.module, options, place, parents, arrays))


class Stopwatch(Observer):
    """The times at which each forward and each backward began and ended."""

    def __init__(self) -> None:
        self.moments: list[float] = []

    def before_forward(self, *_: Any) -> None:
        self.moments.append(time.perf_counter())

    after_forward = before_backward = after_backward = before_forward  # type: ignore[assignment]


@contextmanager
def _undone(model: Module, leaves: Iterable[Tensor], generator: Any) -> Iterator[None]:
    """Starts with the random generator in the given state; at the end restores it, gradients and statistics."""
    bits = random.generator().bit_generator
    grads = [(leaf, leaf.grad) for leaf in leaves]
    buffers = [(buffer, buffer.copy()) for _, buffer in model.named_buffers()]
    before, bits.state = bits.state, generator
    try:
        yield
    finally:
        bits.state = before
        for leaf, grad in grads:
            leaf.grad = grad
        for buffer, kept in buffers:
            buffer[...] = kept


def _measure(trace: Trace, run: Callable[[], Any]) -> None:
    """Sets the times of the trace's events: medians of several runs."""
    runs: list[list[float]] = []
    begin = time.perf_counter()
    while len(runs) < RUNS and (not runs or time.perf_counter() - begin < SECONDS):
        with Stopwatch() as watch:
            run()
        if len(watch.moments) != 2 * len(trace.events):
            return
        runs.append(watch.moments)
    spans = np.median(
        np.diff(runs, axis=1, prepend=[[m[0]] for m in runs]), axis=0
    )  # gap before each event, and its duration
    moments = np.cumsum(spans).tolist()
    for event, begin, end in zip(trace.events, moments[::2], moments[1::2], strict=True):
        event.begin, event.seconds = begin, end - begin
    trace.runs = len(runs)


def trace(model: Module, images: Any, labels: Any, title: str = "") -> Trace:
    """Traces one forward and backward of the cross-entropy.

    images   (N, C, H, W), an array or a Tensor; the trace shows its gradient if the Tensor requires one
    labels   (N,), integers
    title    default: the name of the model's class

    The model runs in its present mode; backward adds to its gradients, as always.  Up to five further runs within ten
    seconds time the operations.  These runs leave gradients, statistics and the state of `minires.random` unchanged.
    """
    if not isinstance(model, Module):
        raise TypeError(f"model must be a Module, got {type(model).__name__}")
    found = Trace(_checks.instance(title, "title", str) or type(model).__name__)
    images = as_tensor(images, "images")
    generator = random.generator().bit_generator.state

    def run() -> float:
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        return loss.item()

    with enable_grad():
        with Tracer(found, dict(model.named_parameters())) as tracer:
            found.loss = run()
        with _undone(model, tracer.leaves.values(), generator):
            _measure(found, run)
    return found
