"""A node's card: everything about one operation that fits on a screen."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass

from minires.arrays import Array
from minires.autograd import Function
from minires.inspect.counting import multiply_adds, saved_arrays
from minires.statistics import Statistics, html_table
from minires.tensor import Tensor


@dataclass(frozen=True)
class Card:
    """What `str` and notebooks show of a node.

    node     the operation
    phase    "forward", "backward", or "" for a node that lies on the tape
    arrays   name -> statistics, in the order of the computation
    """

    node: Function
    phase: str
    arrays: tuple[tuple[str, Statistics], ...]

    @property
    def head(self) -> str:
        return self.node.heading + (f", {self.phase}" if self.phase else "")

    @property
    def facts(self) -> list[str]:
        """Parameters, multiply-adds and the place of the call, as far as they are known."""
        node = self.node
        parameters = sum(parent.size for parent in node.parents if isinstance(parent, Tensor))
        told = [f"parameters {parameters:,}"] if parameters else []
        macs = multiply_adds(node)
        told += [f"multiply-adds {macs:,}"] if macs else []
        return told + ([f"called at {node.place}"] if node.place else [])

    def __repr__(self) -> str:
        return str(self)

    def __str__(self) -> str:
        width = max((len(name) for name, _ in self.arrays), default=0)
        lines = [self.head, *(f"  {name:{width}}  {told}" for name, told in self.arrays)]
        return "\n".join(lines + [f"  {fact}" for fact in self.facts])

    def _repr_html_(self) -> str:
        return html_table(list(self.arrays), "; ".join([self.head, *self.facts]))


def card(node: Function) -> Card:
    """The card of a node of the tape, e.g. of `loss.node` or of one of its `parents`, with the arrays it keeps."""
    if not isinstance(node, Function):
        raise TypeError(f"node must be a Function, such as tensor.node, got {type(node).__name__}")
    return Card(node, "", tuple((f"saved {i}", Statistics.of(a)) for i, a in enumerate(saved_arrays(node.saved))))


def forward_card(node: Function, arrays: Sequence[Array | None]) -> Card:
    """Of a node whose forward is about to run."""
    told = zip(input_names(node), arrays, strict=True)
    return Card(node, "forward", tuple((name, Statistics.of(a)) for name, a in told if a is not None))


def backward_card(node: Function, grad_output: Array) -> Card:
    """Of a node whose backward is about to run."""
    return Card(node, "backward", (("grad_output", Statistics.of(grad_output)), *card(node).arrays))


def input_names(node: Function) -> list[str]:
    """What forward calls its inputs."""
    own = [p for p in inspect.signature(type(node).forward).parameters.values() if p.name != "self"]
    names = [p.name for p in own if p.kind is not p.VAR_POSITIONAL]
    return names + [f"input {i}" for i in range(len(names), len(node.input_shapes))]
