"""What a network computes, as a list of operations that holds for any number of images.

The network runs twice, on one random image and on two others.  What differs between the two runs is the number of
images or depends on what they show; what an operation reads beside the results of others must be the same in both.
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

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Result:
    """Of an earlier operation, by its place in the list; -1: the images."""

    place: int


@dataclass(frozen=True)
class Named:
    """A parameter or running statistic, by its name in the state-dict."""

    name: str


@dataclass(frozen=True, eq=False)
class Constant:
    """An array that belongs to nobody, such as the 2 of `x * 2`."""

    array: Array

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Constant) and np.array_equal(self.array, other.array, equal_nan=True)


Source = Result | Named | Constant


@dataclass
class Step:
    """One operation of the recorded network.

    node      with its options, but without the arrays that it saved
    sources   for each input where it comes from; None: an absent one
    shapes    of the output for one image, and for two
    """

    node: Any
    sources: tuple[Source | None, ...]
    shapes: tuple[Shape, ...]

    def refuse(self, problem: str) -> ValueError:
        """The error that this operation cannot be exported."""
        where = f", called at {self.node.place}" if self.node.place else ""
        return ValueError(f"{self.node!r}{where}: {problem}")


@dataclass
class Recording:
    """The operations, which of them makes the output, and the state (parameters and statistics) by name."""

    steps: list[Step]
    output: Result
    shape: tuple[int, int, int]  # of an image
    state: dict[str, Array]
    dtype: np.dtype[Any]


def record(model: Module, shape: tuple[int, int, int]) -> Recording:
    """The model in evaluation mode on images of `shape` (C, H, W).

    Raises ValueError naming the operation that depends on the images in a way that no list of operations tells.
    """
    state = model.state_dict()
    if not all(isinstance(array, np.ndarray) for array in state.values()):
        raise ValueError('model must be on the CPU: model.to("cpu")')
    dtype = next((p.dtype for p in model.parameters()), np.dtype(np.float32))
    rng = np.random.default_rng(0)
    with evaluating(model), no_grad():
        one, two = (_Recorder(state).run(model, rng.standard_normal((n, *shape)).astype(dtype)) for n in (1, 2))
    for a, b in zip(one.steps, two.steps, strict=False):
        if (a.node.name, a.node.module) != (b.node.name, b.node.module):
            raise a.refuse(f"for two images the network computes {b.node!r} at this place")
        for mine, theirs in zip(a.sources, b.sources, strict=True):
            if mine != theirs:
                raise a.refuse(
                    "it reads an array that depends on the images, or on their number, behind the tape's back"
                )
        if _fixed(a.node) != _fixed(b.node):
            raise a.refuse(f"its options depend on the images, or on their number: for two of them it is {b.node!r}")
        a.shapes = (*a.shapes, *b.shapes)
    if len(one.steps) != len(two.steps) or one.output != two.output:
        raise ValueError("the network computes other operations for two images than for one")
    if not isinstance(one.output, Result):
        raise ValueError("the network's output is an array that no operation made of the images")
    return Recording(one.steps, one.output, shape, state, dtype)


def _fixed(node: Function) -> dict[str, Any]:
    """The options that must not depend on the number of images: all but a shape."""
    options = {name: value for name, value in node.options().items() if name != "shape"}
    return options | {"index": getattr(node, "index", None)}  # which may be a lone slice


class _Recorder(Observer):
    def __init__(self, state: dict[str, Array]) -> None:
        self.steps: list[Step] = []
        self.output: Source | None = None
        self.names = {id(array): name for name, array in reversed(state.items())}  # of a shared one, the first name
        self.results: dict[int, tuple[Any, Result]] = {}  # id of an array -> the array, as long as it lives, and ...

    def run(self, model: Module, images: Array) -> _Recorder:
        self.results[id(images)] = weakref.ref(images), Result(-1)
        with self, in_form(model, fused=False):  # ONNX has the plain operations
            output = model(Tensor(images))
        if not isinstance(output, Tensor):
            raise TypeError(f"the network must give one Tensor, got {type(output).__name__}")
        self.output = self._source(output.data)
        return self

    def after_forward(self, node: Function, arrays: tuple[Array | None, ...], output: Array) -> None:
        light: Function = object.__new__(type(node))  # a node refuses copy.copy
        vars(light).update(vars(node))
        light.saved = None
        sources = tuple(None if array is None else self._source(array) for array in arrays)
        self.results[id(output)] = weakref.ref(output), Result(len(self.steps))
        self.steps.append(Step(light, sources, (output.shape,)))

    def _source(self, array: Array) -> Source:
        alive, result = self.results.get(id(array), (lambda: None, None))
        if result is not None and alive() is array:
            return result
        return Named(self.names[id(array)]) if id(array) in self.names else Constant(array)
