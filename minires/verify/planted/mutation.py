"""Plants a bug in a Python function: edits and compiles its source, swaps the function's code, and restores it."""

from __future__ import annotations
import __future__

import inspect
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FunctionType
from typing import Any

import numpy as np

from minires import backends
from minires.verify import cases
from minires.verify.properties import PROPERTIES
from minires.verify.properties_of_layers import PROPERTIES_OF_LAYERS

SEEDS = 40  # number of cases on which each operation is checked


@dataclass(frozen=True)
class Mutation:
    """A bug.

    where       the operation (a key of `cases.CASES`) or layer (a key of `PROPERTIES_OF_LAYERS`) whose checks must
                catch the bug
    function    the function whose source is edited
    old, new    the text that is replaced, which must occur exactly once in the source, and its replacement
    """

    where: str
    function: Callable[..., Any]
    old: str
    new: str

    def __str__(self) -> str:
        return f"{self.where}: {self.function.__qualname__}: {self.old!r} -> {self.new!r}"

    @contextmanager
    def planted(self) -> Iterator[None]:
        """Plants the bug inside the `with` block, wherever the function was imported to.  Not thread-safe."""
        function = self.function
        assert isinstance(function, FunctionType)
        sound = function.__code__
        function.__code__ = self._code(function)
        try:
            yield
        finally:
            function.__code__ = sound

    def _code(self, function: FunctionType) -> Any:
        source = textwrap.dedent(inspect.getsource(function))
        count = source.count(self.old)
        if count != 1:
            raise ValueError(f"{self}: the text occurs {count} times in the function's source, not once")
        edited = source.replace(self.old, self.new)
        if function.__code__.co_freevars:  # super() needs a __class__ around it
            outer = ", ".join(function.__code__.co_freevars)
            edited = f"def outer({outer}):\n{textwrap.indent(edited, ' ')}\n return {function.__name__}"
        code = compile(edited, f"<{self}>", "exec", __future__.annotations.compiler_flag)
        compiled: dict[str, Any] = {}
        exec(code, dict(function.__globals__), compiled)
        made = compiled.get(function.__name__) or compiled["outer"](*function.__code__.co_freevars)
        return getattr(made, "__func__", made).__code__  # a class method's function


def checks(where: str, seeds: int = SEEDS) -> list[Callable[[np.random.Generator], None]]:
    """All checks of an operation or a layer, the fastest first."""
    if where in PROPERTIES_OF_LAYERS:
        return list(PROPERTIES_OF_LAYERS[where])
    pick_and_check = [lambda rng: cases.draw(where, cases.random_pick(rng), rng).check()] * seeds
    return [*PROPERTIES.get(where, ()), *pick_and_check]


def caught_by(where: str, seeds: int = SEEDS) -> str | None:
    """Runs the checks with the reference backend; returns the first error's text, or None if all pass."""
    for seed, check in enumerate(checks(where, seeds)):
        try:
            with np.errstate(all="ignore"), backends.backend("reference"):
                check(np.random.default_rng(seed))
        except Exception as error:  # a bug may well end in an error of NumPy's
            return f"{type(error).__name__}: {error}"
    return None


def catch(mutation: Mutation, seeds: int = SEEDS) -> str | None:
    """Plants the bug and runs its checks; returns the first error's text, or None if the bug survives."""
    with mutation.planted():
        return caught_by(mutation.where, seeds)


def of(where: str, function: Callable[..., Any], edits: list[tuple[str, str]]) -> Iterator[Mutation]:
    return (Mutation(where, function, old, new) for old, new in edits)
