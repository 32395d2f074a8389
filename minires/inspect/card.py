"""A node's card: one operation on one screen."""

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
    """A node as `str` and notebooks show it.

    node     the operation
    phase    "forward", "backward", or "" for a node on the tape
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
        """Parameters, multiply-adds and the place of the call, where known.

        Parameters are the leaves that get a gradient, except the first input, which is the data.
        """
        node = self.node
        leaves = (p for p in node.parents if isinstance(p, Tensor) and p is not node.parents[0])
        parameters = sum(leaf.size for leaf in leaves)
        macs = multiply_adds(node, self.phase)
        facts = [f"parameters {parameters:,}"] if parameters else []
        facts += [f"multiply-adds {macs:,}"] if macs else []
        return facts + ([f"called at {node.place}"] if node.place else [])

    def __repr__(self) -> str:
        return str(self)

    def __str__(self) -> str:
        width = max((len(name) for name, _ in self.arrays), default=0)
        lines = [self.head, *(f"  {name:{width}}  {statistics}" for name, statistics in self.arrays)]
        return "\n".join(lines + [f"  {fact}" for fact in self.facts])

    def _repr_html_(self) -> str:
        return html_table(list(self.arrays), "; ".join([self.head, *self.facts]))


def card(node: Function) -> Card:
    """The card of a node of the tape, such as `loss.node` or one of its `parents`, with the arrays that it keeps."""
    if not isinstance(node, Function):
        raise TypeError(f"node must be a Function, such as tensor.node, got {type(node).__name__}")
    return Card(node, "", tuple((name, Statistics.of(a)) for name, a in saved_by_name(node)))


def forward_card(node: Function, arrays: Sequence[Array | None]) -> Card:
    """The card of a node whose forward is about to run."""
    named = zip(input_names(node), arrays, strict=True)
    return Card(node, "forward", tuple((name, Statistics.of(a)) for name, a in named if a is not None))


def backward_card(node: Function, grad_output: Array) -> Card:
    """The card of a node whose backward is about to run."""
    return Card(node, "backward", (("grad_output", Statistics.of(grad_output)), *card(node).arrays))


def saved_by_name(node: Function) -> list[tuple[str, Array]]:
    """(name, array) of the arrays in `saved`, by their names in the operation's assignment to `self.saved`.

    `self.saved = x, weight` gives "x" and "weight"; the parts of a tuple `kept` are "kept[0]", "kept[1]".  If the
    source is ambiguous or not available, the names are "saved[0]", "saved[1]".
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
    """The names in the one assignment to `self.saved` of a tuple of `parts` elements (None: of no tuple)."""
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
    """The names of forward's parameters, one an input."""
    own = [p for p in inspect.signature(type(node).forward).parameters.values() if p.name != "self"]
    names = [p.name for p in own if p.kind is not p.VAR_POSITIONAL]
    return names + [f"input {i}" for i in range(len(names), len(node.input_shapes))]
