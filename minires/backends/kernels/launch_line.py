"""The first line of a kernel of your own: its launch, as expressions of integers.

    // launch: block=(16,16) grid=(ceil(N/16), ceil(M/16)) shared=4*K

One to three sizes of `block` and of `grid`; `shared`, optional: bytes of `extern __shared__` memory.  An expression has
the names that the caller allows, integers, + - * / // % ( ) ceil() min() max().  / is exact division, and a size must
be whole: N/16 is an error for N = 20, where ceil(N/16) is 2 and N//16 is 1.
"""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any

MOST_LEVELS = 40  # of nested operators and calls
Launch = Mapping[str, tuple[ast.expr, ...]]

_OPERATORS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_FUNCTIONS: dict[str, Callable[..., Any]] = {"ceil": math.ceil, "min": min, "max": max}


def parse(line: str, known: Sequence[str], example: str) -> Launch:
    """ "block", "grid" and perhaps "shared" -> expressions.  Raises ValueError for a line of another form."""
    found = re.fullmatch(r"\s*//\s*launch:(.{1,500})", line.rstrip())
    start, *parts = re.split(r"\b(\w+)\s*=(?!=)", found[1]) if found else ["?"]
    if start.strip() or sorted(parts[::2]) not in (["block", "grid"], ["block", "grid", "shared"]):
        form = f"the launch with block, grid and perhaps shared, once each, such as {example}"
        raise ValueError(f"the first line must be {form}; got {line[:100]!r}")
    return {part: _expressions(part, text, known) for part, text in zip(parts[::2], parts[1::2], strict=True)}


def _expressions(part: str, text: str, known: Sequence[str]) -> tuple[ast.expr, ...]:
    text = text.strip().rstrip(",").rstrip()
    allowed = f"{', '.join(known)}, integers, + - * / // % ( ) ceil() min() max()"
    try:
        if "#" in text:  # Python's comment
            raise ValueError
        tree = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ValueError(f"{part} must hold expressions of {allowed}; got {text}") from None
    if _levels(tree) > MOST_LEVELS:
        raise ValueError(f"{part} is nested too deeply, {text[:40]}...; up to {MOST_LEVELS} levels are allowed")
    expressions = tuple(tree.elts) if isinstance(tree, ast.Tuple) else (tree,)
    most = 1 if part == "shared" else 3
    if not 1 <= len(expressions) <= most:
        raise ValueError(f"{part} has {len(expressions)} sizes, {text}; 1 to {most} are allowed")
    for wrong in filter(None, (_not_allowed(expression, known) for expression in expressions)):
        raise ValueError(f"{part} uses {wrong!r}; allowed are {allowed}")
    return expressions


def _levels(tree: ast.AST) -> int:
    count, nodes = 0, [tree]
    while nodes:
        count, nodes = count + 1, [child for node in nodes for child in ast.iter_child_nodes(node)]
    return count


def _not_allowed(node: ast.expr, known: Sequence[str]) -> str:
    """The first part of an expression that is not allowed, or nothing."""
    match node:
        case ast.BinOp() if type(node.op) in _OPERATORS:
            return _not_allowed(node.left, known) or _not_allowed(node.right, known)
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in _FUNCTIONS and (
            len(arguments) == 1 if name == "ceil" else len(arguments) > 1
        ):
            return next(filter(None, (_not_allowed(argument, known) for argument in arguments)), "")
        case ast.Name(id=name) if name in known:
            return ""
        case ast.Constant(value=value) if type(value) is int:
            return ""
    return ast.unparse(node)


def values(launch: Launch, part: str, sizes: Mapping[str, int]) -> list[int]:
    """The sizes of one part.  Raises ValueError where one is not whole or divides by zero."""
    found = []
    for expression in launch[part]:
        try:
            value = _value(expression, sizes)
        except ZeroDivisionError:
            raise ValueError(f"{part}: {ast.unparse(expression)} divides by zero for {shown(sizes)}") from None
        if value != int(value):
            remedy = "ceil(...) rounds up, // rounds down"
            raise ValueError(f"{part}: {ast.unparse(expression)} is {value} for {shown(sizes)}, not whole; {remedy}")
        found.append(int(value))
    return found


def _value(node: ast.expr, sizes: Mapping[str, int]) -> Fraction:
    match node:
        case ast.BinOp():
            return _OPERATORS[type(node.op)](_value(node.left, sizes), _value(node.right, sizes))
        case ast.Call(func=ast.Name(id=name), args=arguments):
            return Fraction(_FUNCTIONS[name](*(_value(argument, sizes) for argument in arguments)))
        case ast.Name(id=name):
            return Fraction(sizes[name])
        case ast.Constant(value=int() as value):
            return Fraction(value)
    raise AssertionError(ast.dump(node))


def shown(sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{name}={size}" for name, size in sizes.items())
