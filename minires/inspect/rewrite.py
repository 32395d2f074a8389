"""Adds a statement to a method of one node, so that a debugger stops in the operation's own frame.

A debugger stops in the frame that calls `breakpoint()`, and a post-mortem shows the frame that raised.  That frame must
be the operation's forward or backward, whose file contains no such line.  So the method is compiled again from its
source with the statement added, under its own file name and line numbers.
"""

from __future__ import annotations

import ast
import functools
import inspect
import textwrap
from collections.abc import Callable
from types import CodeType, FunctionType, MethodType
from typing import Any

from minires.autograd import Function

ENTRY = "breakpoint()"
RETURN = """
{result} = 0
if {self}._looked_at({result}): breakpoint()
return {result}
"""
RAISE = """
{result} = 0
_error = {self}._looked_at({result})
if _error is not None: raise _error
return {result}
"""


class SourceMissing(RuntimeError):
    """The source of a method is not available, such as that of a class typed at the prompt."""


def install(node: Function, method: str, statement: str, looked_at: Callable[[Any], Any] | None = None) -> None:
    """Gives `node` its own forward or backward; `uninstall` removes it.

    statement   ENTRY: `breakpoint()` before the first line
                RETURN: `breakpoint()` before the result is returned, if `looked_at(result)` is true
                RAISE: before the result is returned, raises the exception that `looked_at(result)` returns, unless None

    One local is added: the result, `y` in forward and `grads` in backward (`_result` if the method uses that name for
    something else).

    Raises SourceMissing, and RuntimeError if another observer already watches the node.
    """
    if method in node.__dict__:
        raise RuntimeError(f"{node!r} is being watched by another breakpoint or by detect_anomaly already")
    function: Any = getattr(type(node), method)
    code = _compiled(function.__code__, function.__code__.co_filename, statement)
    new = FunctionType(code, function.__globals__, function.__name__, function.__defaults__, function.__closure__)
    new.__kwdefaults__ = function.__kwdefaults__
    node.__dict__ |= {method: MethodType(new, node), "_looked_at": looked_at}


def uninstall(node: Function, method: str) -> None:
    node.__dict__.pop(method, None)
    node.__dict__.pop("_looked_at", None)


@functools.cache
def _compiled(code: CodeType, file: str, statement: str) -> CodeType:
    """`file` is part of the cache key: code objects of two files may be equal."""
    try:
        lines, first = inspect.getsourcelines(code)
        tree = ast.parse(textwrap.dedent("".join(lines)))
    except (OSError, TypeError, SyntaxError):
        tree, first = ast.Module([], []), 0
    definition = tree.body[0] if tree.body else None
    if not isinstance(definition, ast.FunctionDef):  # no source, or a lambda
        raise SourceMissing(f"the source of {code.co_qualname} is not available: write it as a method, in a file")
    if statement == ENTRY:
        # On the line of `def`, so the debugger stops at the body's first line, before it runs.
        definition.body[:0] = _at(definition.lineno, statement)
    else:
        _Returns(statement, code).visit(definition)
    if code.co_freevars:  # names such as `__class__` for `super()` must stay free
        names = ", ".join(code.co_freevars)
        factory = ast.parse(f"def factory({names}):\n    pass").body[0]
        assert isinstance(factory, ast.FunctionDef)
        factory.body = [definition]
        tree.body = [factory]
    ast.fix_missing_locations(tree)
    ast.increment_lineno(tree, first - 1)
    found = _find(compile(tree, code.co_filename, "exec"), code.co_name)
    assert found.co_freevars == code.co_freevars
    return found


def _find(code: CodeType, name: str) -> CodeType:
    inner = [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    for constant in inner:
        if constant.co_name == name:
            return constant
    return _find(inner[0], name)


def _at(line: int, source: str) -> list[ast.stmt]:
    """The statements of a source, all on the given line."""
    function: Any = ast.parse(f"def f():\n{textwrap.indent(source.strip(), ' ')}").body[0]
    for statement in function.body:
        for part in ast.walk(statement):
            if isinstance(part, (ast.expr, ast.stmt)):
                part.lineno = part.end_lineno = line
    return list(function.body)


class _Returns(ast.NodeTransformer):
    """Replaces every return by the statement, except in nested functions."""

    def __init__(self, statement: str, code: CodeType) -> None:
        self.statement, self.code, self.depth = statement, code, 0
        self.result = "grads" if code.co_name == "backward" else "y"

    def visit_FunctionDef(self, node: ast.FunctionDef) -> Any:
        if self.depth:
            return node
        self.depth += 1
        return self.generic_visit(node)

    def visit_Lambda(self, node: ast.Lambda) -> Any:
        return node

    def visit_Return(self, node: ast.Return) -> Any:
        code, result = self.code, self.result
        returned = isinstance(node.value, ast.Name) and node.value.id == result and result in code.co_varnames
        if not returned and result in (*code.co_varnames, *code.co_cellvars, *code.co_freevars, *code.co_names):
            result = "_result"
        statements: Any = _at(node.lineno, self.statement.format(self=code.co_varnames[0], result=result))
        statements[0].value = node.value or ast.Constant(None)
        return statements
