"""The recording: every node of the tape, forward to the loss and back again."""

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
from minires.arrays import Array, on_cpu
from minires.autograd import Function
from minires.context import Observer, enable_grad
from minires.inspect.card import input_names
from minires.inspect.cost import memory_owners, multiply_adds
from minires.inspect.tracing import graph, notebook, page, pictures, timeline
from minires.nn import Module
from minires.statistics import Statistics
from minires.tensor import Tensor, as_tensor

RUNS = 5  # that are timed, as far as they fit into
SECONDS = 10.0


@dataclass(frozen=True)
class View:
    """An array as it is shown.

    name        what forward calls it; "output", "grad_output", or "∂x" for the gradient of x
    leaf        the parameter's path, for a parameter or its gradient
    histogram   counts of 24 equal bins from min to max
    picture     a PNG of feature maps or filters, None for arrays that make none
    """

    name: str
    leaf: str
    statistics: Statistics
    histogram: tuple[int, ...] = field(repr=False)
    picture: bytes | None = field(repr=False)

    @classmethod
    def of(cls, name: str, array: Array, leaf: str = "") -> View:
        told: Any = on_cpu(array)
        shown = pictures.filters(told) if leaf or name == "weight" else pictures.maps(told)
        return cls(name, leaf, Statistics.of(array), _histogram(told), shown)


def _histogram(array: np.ndarray) -> tuple[int, ...]:
    """Counts of the finite elements in 24 equal bins; numpy.histogram refuses ranges of a few rounding errors."""
    values = array[np.isfinite(array)].astype(np.float64)
    low, high = (values.min(), values.max()) if values.size else (0.0, 0.0)
    place = (values - low) / (high - low) if high > low else np.zeros(values.size)
    return tuple(np.bincount(np.minimum((24 * place).astype(int), 23), minlength=24).tolist())


@dataclass(frozen=True)
class Join:
    """One of the gradients that were added up to a node's grad_output: the node it came from, and what it was."""

    source: int
    view: View


@dataclass
class Event:
    """A node's forward or backward.

    number, phase    `number` counts forward nodes from 0; a node's backward has its number
    begin, seconds   when it began and how long it took: medians of several runs, see `Trace.runs`
    parents          numbers of the nodes that made the inputs; None for leaves and where no gradient is wanted
    arrays, results  what came in, what came out
    joins            in backward: where the output had several users, what each of them sent back
    macs             multiply-adds
    kept, alive      bytes of activations that backward needs: because of this node, and in all after this event
    """

    number: int
    phase: str
    operation: str
    module: str
    options: str
    place: str
    parents: tuple[int | None, ...]
    arrays: tuple[View, ...]
    begin: float = 0.0
    seconds: float = 0.0
    results: tuple[View, ...] = ()
    joins: tuple[Join, ...] = ()
    macs: int = 0
    params: int = 0
    kept: int = 0
    alive: int = 0

    def __repr__(self) -> str:
        of = f" of {self.module}" if self.module else ""
        return f"<{self.operation}{of}, {self.phase}: {1e3 * self.seconds:.3g} ms>"


@dataclass
class Trace:
    """A recording.  `page`, `timeline` and `graph` make something to look at; `save` chooses by name.

    title     what was run
    loss      the cross-entropy
    events    forward from the first operation to the loss, then backward
    classes   the classes of the operations that ran, by name
    runs      times are the median of so many runs, after the recorded one warmed up; 0: no times, as the operations
              differed from run to run

    A notebook shows the page below the cell, in a frame without access to the notebook.  The notebook's file holds a
    page of up to 2 MB.  A larger page goes into the folder minires-traces of the working directory, which is the
    notebook's.  The file's name holds the title and the page's checksum, so no other file is ever overwritten; each
    new recording adds a file.  Delete the folder when you no longer need those pages.
    """

    title: str
    events: list[Event] = field(default_factory=list)
    loss: float = 0.0
    classes: dict[str, type[Function]] = field(default_factory=dict)
    runs: int = 0

    def headline(self) -> str:
        """Title, numbers of operations and the loss, in a line."""
        counts = [sum(event.phase == phase for event in self.events) for phase in ("forward", "backward")]
        return f"{self.title}: {counts[0]} operations forward, {counts[1]} backward, loss {self.loss:.4g}"

    def __repr__(self) -> str:
        return f'<trace of {self.headline()}; save("trace.html") writes its page>'

    def _repr_html_(self) -> str:
        return notebook.frame(self)

    def page(self) -> str:
        """One HTML file that needs nothing else."""
        return page.page([self])

    def timeline(self) -> str:
        """JSON for Perfetto and chrome://tracing: modules nested as they were called."""
        return timeline.timeline(self)

    def graph(self) -> str:
        """The tape in Graphviz's language."""
        return graph.graph(self)

    def save(self, path: str | Path, format: str = "html") -> Path:
        """Writes "html", "chrome" or "dot"; whole or not at all.  Returns the path."""
        made = {"html": self.page, "chrome": self.timeline, "dot": self.graph}
        target = _checks.path(path, "path")
        text = made[_checks.choice(format, "format", tuple(made))]()
        write_text(target, text)
        return target


class Recorder(Observer):
    """Fills a trace."""

    def __init__(self, trace: Trace, parameters: dict[str, Tensor]) -> None:
        self.trace = trace
        self.names = {id(p): path for path, p in parameters.items()}
        self.weights = {id(p.data) for p in parameters.values()}
        self.numbers: dict[Function, int] = {}
        self.sent: dict[Function, list[tuple[int, Array]]] = {}
        self.owners: dict[int, int] = {}  # id of the array that owns the memory -> how many nodes keep it
        self.kept: dict[Function, dict[int, int]] = {}
        self.leaves: dict[int, Tensor] = {}
        self.alive = 0

    def before_forward(self, node: Function, arrays: tuple[Array | None, ...]) -> None:
        names = input_names(node)
        leaves = [self.names.get(id(parent), "") for parent in node.parents]
        views = [
            View.of(name, array, leaf)
            for name, array, leaf in zip(names, arrays, leaves, strict=True)
            if array is not None
        ]
        self._event(node, "forward", tuple(views))

    def after_forward(self, node: Function, arrays: tuple[Array | None, ...], output: Array) -> None:
        event = self.trace.events[-1]
        self.leaves |= {id(p): p for p in node.parents if isinstance(p, Tensor)}
        event.results = (View.of("output", output),)
        event.macs = multiply_adds(node)
        event.params = sum(p.size for p in node.parents if isinstance(p, Tensor) and id(p) in self.names)
        if any(node.needs_input_grad):
            self.kept[node] = owners = self._activations(node)
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

    def _activations(self, node: Function) -> dict[int, int]:
        """id -> bytes of what the node keeps for backward, without the weights, which are there anyway."""
        return {id(a): a.nbytes for a in memory_owners(node.saved) if id(a) not in self.weights}

    def _event(self, node: Function, phase: str, arrays: tuple[View, ...]) -> None:
        number = self.numbers.setdefault(node, len(self.numbers))
        self.trace.classes[node.name] = type(node)
        options = ", ".join(f"{k}={v!r}" for k, v in node.options().items())
        parents = tuple(self.numbers.get(p) if isinstance(p, Function) else None for p in node.parents)
        place = "" if node.place.startswith(__file__) else node.place  # that is no news
        self.trace.events.append(Event(number, phase, node.name, node.module, options, place, parents, arrays))


class Stopwatch(Observer):
    """The moments at which each forward and each backward began and ended."""

    def __init__(self) -> None:
        self.moments: list[float] = []

    def before_forward(self, *_: Any) -> None:
        self.moments.append(time.perf_counter())

    after_forward = before_backward = after_backward = before_forward  # type: ignore[assignment]


@contextmanager
def _undone(model: Module, leaves: Iterable[Tensor], generator: Any) -> Iterator[None]:
    """Within it the random generator stands as given; afterwards it, gradients and statistics are what they were."""
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
    """Times of the trace's events: the median of several runs."""
    runs: list[list[float]] = []
    begin = time.perf_counter()
    while len(runs) < RUNS and (not runs or time.perf_counter() - begin < SECONDS):
        with Stopwatch() as watch:
            run()
        if len(watch.moments) != 2 * len(trace.events):
            return
        runs.append(watch.moments)
    spans = np.median(np.diff(runs, axis=1, prepend=[[m[0]] for m in runs]), axis=0)  # before and in every event
    moments = np.cumsum(spans).tolist()
    for event, begin, end in zip(trace.events, moments[::2], moments[1::2], strict=True):
        event.begin, event.seconds = begin, end - begin
    trace.runs = len(runs)


def trace(model: Module, images: Any, labels: Any, title: str = "") -> Trace:
    """Records one forward and backward of the cross-entropy.

    images   (N, C, H, W), an array or a Tensor; a Tensor that requires a gradient gets it shown
    labels   (N,), integers
    title    what to call it; default: the model's class

    The model runs in the mode it is in; its gradients are added to as by any backward.  It runs up to five times more,
    for ten seconds at most, to time the operations: what these runs change is put back (gradients, statistics, the
    state of `minires.random`).
    """
    if not isinstance(model, Module):
        raise TypeError(f"model must be a Module, got {type(model).__name__}")
    recorded = Trace(_checks.instance(title, "title", str) or type(model).__name__)
    images = as_tensor(images, "images")
    generator = random.generator().bit_generator.state

    def run() -> float:
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        return loss.item()

    with enable_grad():
        with Recorder(recorded, dict(model.named_parameters())) as recorder:
            recorded.loss = run()
        with _undone(model, recorder.leaves.values(), generator):
            _measure(recorded, run)
    return recorded
