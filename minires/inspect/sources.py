"""Source code as it is shown beside a run: exact lines of an operation, and of the reference code that computes it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import minires
from minires.autograd import Function
from minires.backends import composed, reference

HOME = Path(minires.__file__).parent.parent
CALL = re.compile(r'(?:self\.backend\.|\bbackend\.|optional\((?:self\.)?backend, ")(\w+)')


@dataclass(frozen=True)
class Source:
    """Lines of a file.

    file    relative to the folder that holds minires; a file elsewhere by its name alone
    first   number of the first line, from 1
    """

    file: str
    first: int
    lines: tuple[str, ...]

    @classmethod
    def of(cls, thing: Any) -> Source:
        """The source of a class or function.  OSError or TypeError where it is missing, as at a prompt."""
        lines, first = inspect.getsourcelines(thing)
        file = Path(inspect.getfile(thing))
        name = file.relative_to(HOME).as_posix() if file.is_relative_to(HOME) else file.name
        return cls(name, first, tuple(line.rstrip("\n") for line in lines))


def method(operation: type[Function], phase: str) -> Any:
    """The "forward" or "backward" of an operation's class, also an inherited one."""
    return getattr(operation, phase)


def reference_functions(operation: type[Function], phase: str) -> list[Callable[..., Any]]:
    """The functions of the reference backend that the phase of an operation calls, in the order of the calls.

    A function of the contract's optional part is in `minires.backends.composed`.  Empty if the operation itself holds
    the array code, or if its source is missing.
    """
    try:
        source = inspect.getsource(method(operation, phase))
    except (OSError, TypeError):
        return []
    found = []
    for name in dict.fromkeys(CALL.findall(source)):
        function = getattr(reference, name, None) or getattr(composed, name, None)
        if function is not None:
            found.append(function)
    return found


def formulas(operation: type[Function]) -> tuple[list[str], list[str]]:
    """(forward, backward): the formulas of an operation's docstring, one a string; those of backward begin with ∂."""
    lines = [line.strip() for line in inspect.cleandoc(operation.__doc__ or "").split("\n")]
    parts = [part.strip(" .") for line in lines for part in re.split(r";  |;\s(?=∂)|,\s+(?=∂\w+ =)", line)]
    return [parts[0]], [part for part in parts if part.startswith("∂")]
