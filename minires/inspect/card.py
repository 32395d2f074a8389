"""A node's card: everything about one operation that fits on a screen."""

from __future__ import annotations

import ast
import functools
import inspect
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from minires.arrays import Array, is_array
from minires.autograd import Function
from minires.inspect.cost import multiply_adds
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
        """Parameters, multiply-adds and the place of the call, as far as they are known.

        Parameters are the leaves that get a gradient, except the first input: that is the data.
        """
        node = self.node
        leaves = (p for p in node.parents if isinstance(p, Tensor) and p is not node.parents[0])
        parameters = sum(leaf.size for leaf in leaves)
        told = [f"parameters {parameters:,}"] if parameters else []
        macs = multiply_adds(node, self.phase)
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
    return Card(node, "", tuple((name, Statistics.of(a)) for name, a in saved_by_name(node)))


def forward_card(node: Function, arrays: Sequence[Array | None]) -> Card:
    """Of a node whose forward is about to run."""
    told = zip(input_names(node), arrays, strict=True)
    return Card(node, "forward", tuple((name, Statistics.of(a)) for name, a in told if a is not None))


def backward_card(node: Function, grad_output: Array) -> Card:
    """Of a node whose backward is about to run."""
    return Card(node, "backward", (("grad_output", Statistics.of(grad_output)), *card(node).arrays))


def saved_by_name(node: Function) -> list[tuple[str, Array]]:
    """The arrays in `saved`, each under the name that it has where the operation's source assigns `self.saved`.

    `self.saved = x, weight` names two, "x" and "weight".  The parts of a tuple `kept` are "kept[0]", "kept[1]", and
    where the source is ambiguous or not at hand, those of `saved` are "saved[0]", "saved[1]".
    """

    def arrays(name: str, part: Any) -> list[tuple[str, Array]]:
        if isinstance(part, tuple):
            return [found for i, inner in enumerate(part) for found in arrays(f"{name}[{i}]", inner)]
        return [(name, part)] if is_array(part) else []

    operation: Any = type(node)
    if not isinstance(node.saved, tuple):
        (name,) = _saved_names(operation, None) or ("saved",)
        return arrays(name, node.saved)
    names = _saved_names(operation, len(node.saved)) or [f"saved[{i}]" for i in range(len(node.saved))]
    return [found for name, part in zip(names, node.saved, strict=True) for found in arrays(name, part)]


@functools.cache
def _saved_names(operation: type[Any], parts: int | None) -> tuple[str, ...] | None:
    """The names in the one assignment to `self.saved` of a tuple of so many parts; of no tuple where parts is None."""
    for cls in operation.__mro__[: operation.__mro__.index(Function)]:
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(cls)))
        except (OSError, TypeError, SyntaxError):
            continue
        found = set()
        for statement in ast.walk(tree):
            if not isinstance(statement, ast.Assign) or ast.unparse(statement.targets[0]) != "self.saved":
                continue
            value = statement.value
            elements = value.elts if isinstance(value, ast.Tuple) else [value]
            if (len(elements) if isinstance(value, ast.Tuple) else None) == parts:
                unnamed = [f"saved[{i}]" if parts else "saved" for i in range(len(elements))]
                found.add(tuple(getattr(e, "id", name) for e, name in zip(elements, unnamed, strict=True)))
        if found:
            return found.pop() if len(found) == 1 else None
    return None


def input_names(node: Function) -> list[str]:
    """What forward calls its inputs."""
    own = [p for p in inspect.signature(type(node).forward).parameters.values() if p.name != "self"]
    names = [p.name for p in own if p.kind is not p.VAR_POSITIONAL]
    return names + [f"input {i}" for i in range(len(names), len(node.input_shapes))]
