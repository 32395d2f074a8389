"""Traces a network: lists its operations in a form that is valid for any number of images.

The network runs twice, on one random image and on two others.  A difference between the runs comes from the number of
images or from their content.  So an input that is not the result of another operation must be equal in both runs.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import Any

import numpy as np

from minires.arrays import Array
from minires.autograd import Function
from minires.context import Observer, no_grad
from minires.nn import Module
from minires.nn.fusing import in_form
from minires.nn.module import evaluating
from minires.tensor import Tensor

# Where an input comes from: the number of an earlier step (IMAGES: the network's input), a name in the state dict, or a
# constant such as the 2 of `x * 2`.
Source = int | str | Array
IMAGES = -1


@dataclass
class Step:
    """One operation of the network."""

    node: Any  # with its options, without its saved arrays
    sources: tuple[Source | None, ...]  # sources of the inputs; None for an absent input
    shapes: tuple[tuple[int, ...], ...]  # shapes of the output for one image and for two

    def refuse(self, problem: str) -> ValueError:
        """An error for an operation that cannot be exported."""
        where = f", called at {self.node.place}" if self.node.place else ""
        return ValueError(f"{self.node!r}{where}: {problem}")


@dataclass
class Trace:
    steps: list[Step]  # in order
    output: int  # the number of the step that computes the output
    shape: tuple[int, int, int]  # (C, H, W) of an image
    state: dict[str, Array]  # parameters and running statistics by name
    dtype: np.dtype[Any]

    def shapes_of(self, source: Source | None) -> tuple[tuple[int, ...], ...]:
        """Shapes of a source for one image and for two."""
        if isinstance(source, int):
            return self.steps[source].shapes if source != IMAGES else ((1, *self.shape), (2, *self.shape))
        array = self.state[source] if isinstance(source, str) else source
        assert array is not None
        return (array.shape,) * 2


def trace(model: Module, shape: tuple[int, int, int]) -> Trace:
    """Traces the model in evaluation mode on images of `shape` (C, H, W).

    Raises ValueError with the name of the first operation that depends on the images other than through its inputs.
    """
    state = model.state_dict()
    if not all(isinstance(array, np.ndarray) for array in state.values()):
        raise ValueError('model must be on the CPU: model.to("cpu")')
    dtype = next((p.dtype for p in model.parameters()), np.dtype(np.float32))
    rng = np.random.default_rng(0)
    with evaluating(model), no_grad():
        one, two = (_Tracer(state).run(model, rng.standard_normal((n, *shape)).astype(dtype)) for n in (1, 2))
    for a, b in zip(one.steps, two.steps, strict=False):
        if (a.node.name, a.node.module) != (b.node.name, b.node.module):
            raise a.refuse(f"for two images the network computes {b.node!r} at this place")
        if not all(map(_same, a.sources, b.sources)):
            raise a.refuse(
                "it reads an array that depends on the images, or on their number, but is not an operation's result"
            )
        if _fixed_options(a.node) != _fixed_options(b.node):
            raise a.refuse(f"its options depend on the images, or on their number: for two of them it is {b.node!r}")
        a.shapes = (*a.shapes, *b.shapes)
    if len(one.steps) != len(two.steps) or not _same(one.output, two.output):
        raise ValueError("the network computes other operations for two images than for one")
    if not isinstance(one.output, int):
        raise ValueError("the network's output is not the result of an operation")
    return Trace(one.steps, one.output, shape, state, dtype)


def _same(one: Source | None, two: Source | None) -> bool:
    if isinstance(one, np.ndarray) and isinstance(two, np.ndarray):
        return np.array_equal(one, two, equal_nan=True)
    return type(one) is type(two) and one == two


def _fixed_options(node: Function) -> dict[str, Any]:
    """The options that must not depend on the number of images: all but a shape."""
    options = {name: value for name, value in node.options().items() if name != "shape"}
    return options | {"index": getattr(node, "index", None)}  # may be a single slice


class _Tracer(Observer):
    def __init__(self, state: dict[str, Array]) -> None:
        self.steps: list[Step] = []
        self.output: Source | None = None
        self.names = {id(array): name for name, array in reversed(state.items())}  # a shared array has its first name
        self.results: dict[int, tuple[Any, int]] = {}  # id of an array -> a weak reference to it, and its step's number

    def run(self, model: Module, images: Array) -> _Tracer:
        self.results[id(images)] = weakref.ref(images), IMAGES
        with self, in_form(model, fused=False):  # ONNX has the plain operations
            output = model(Tensor(images))
        if not isinstance(output, Tensor):
            raise TypeError(f"the network must return one Tensor, got {type(output).__name__}")
        self.output = self._source(output.data)
        return self

    def after_forward(self, node: Function, arrays: tuple[Array | None, ...], output: Array) -> None:
        light: Function = object.__new__(type(node))  # a node refuses copy.copy
        vars(light).update(vars(node))
        light.saved = None
        sources = tuple(None if array is None else self._source(array) for array in arrays)
        self.results[id(output)] = weakref.ref(output), len(self.steps)
        self.steps.append(Step(light, sources, (output.shape,)))

    def _source(self, array: Array) -> Source:
        alive, number = self.results.get(id(array), (lambda: None, IMAGES))
        return number if alive() is array else self.names.get(id(array), array)
