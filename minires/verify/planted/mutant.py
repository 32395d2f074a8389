"""A bug in a C++ or CUDA kernel.  All of them are compiled at once, and a number says at run time which one is there.

To compile a kernel anew for each of hundreds of bugs would take hours.  A *mutant schema* (Untch, Offutt and Harrold:
Mutation Analysis Using Mutant Schemata, 1993) holds the original and all its mutants, and a variable selects:

    sum += a * b;      becomes      sum += (minires_planted == 17 ? (a - b) : (a * b));
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

DECLARATION = 'extern "C" int minires_planted;  // the number of the bug that is there, 0: none\n'
DEFINITION = '\nextern "C" {\n__attribute__((visibility("default"))) int minires_planted = 0;\n}\n'


@dataclass(frozen=True)
class Mutant:
    """One bug.

    where       the kernel, or what several kernels share: whose checks must catch it
    file        below csrc
    scope       text by which the function or struct begins, which stands in the file once; it ends with the next line
                that begins with }
    old, new    the text within it that is replaced, which stands there once, and what it becomes.  Where it ends with ;
                both are statements, else expressions of one type.  ‹ › in the old text mark what is replaced, the
                rest of it then only says where: "sum += ‹a› * b"
    checks      what has to complain
    """

    where: str
    file: str
    scope: str
    old: str
    new: str
    checks: tuple[Callable[[], None], ...]

    def __str__(self) -> str:
        return f"{self.where}: {self.file}: {self.old!r} -> {self.new!r}"

    @property
    def module(self) -> str:
        """The compiled module that has the kernel."""
        return "_emulation" if self.file.startswith("cuda/") else "_native"

    def place(self, source: str) -> tuple[int, int]:
        """Where the old text begins and ends; ValueError if it does not stand there exactly once."""
        if source.count(self.scope) != 1:
            raise ValueError(f"{self}: {self.scope!r} stands {source.count(self.scope)} times in the file, not once")
        begin = source.index(self.scope)
        end = source.index("\n}", begin)
        before, mark, rest = self.old.partition("‹")
        replaced, _, after = rest.partition("›") if mark else (before, "", "")
        before = before if mark else ""
        whole = before + replaced + after
        count = source.count(whole, begin, end)
        if count != 1:
            raise ValueError(f"{self}: the text stands {count} times in its scope, not once")
        begin = source.index(whole, begin, end) + len(before)
        return begin, begin + len(replaced)


def plant(csrc: Path, mutants: Sequence[Mutant]) -> None:
    """Edits the files below csrc, in place: mutants[i] is there while minires_planted is i + 1."""
    by_file: dict[str, list[tuple[int, Mutant]]] = defaultdict(list)
    for number, mutant in enumerate(mutants, 1):
        by_file[mutant.file].append((number, mutant))
    for file, numbered in by_file.items():
        path = csrc / file
        path.write_text(schema(path.read_text(encoding="utf-8"), numbered), encoding="utf-8")


def schema(source: str, numbered: Sequence[tuple[int, Mutant]]) -> str:
    """The source with every mutant in it, to be selected by its number."""
    at_place: dict[tuple[int, int], list[tuple[int, Mutant]]] = defaultdict(list)
    for number, mutant in numbered:
        at_place[mutant.place(source)].append((number, mutant))
    places = sorted(at_place, reverse=True)
    for (begin, end), (later, _) in zip(places[1:], places[:-1], strict=True):
        if end > later:
            first, second = at_place[begin, end][0][1], next(at_place[p][0][1] for p in places if p[0] == later)
            raise ValueError(f"{first} and {second} overlap")
    for begin, end in places:
        old = source[begin:end]
        choices = [(number, mutant.new) for number, mutant in at_place[begin, end]]
        chosen = _statement(old, choices) if old.endswith(";") else _expression(old, choices)
        source = source[:begin] + chosen + source[end:]
    return source


def _expression(old: str, choices: Sequence[tuple[int, str]]) -> str:
    return "(" + "".join(f"minires_planted == {n} ? ({new}) : " for n, new in choices) + f"({old}))"


def _statement(old: str, choices: Sequence[tuple[int, str]]) -> str:
    return "{ " + "".join(f"if (minires_planted == {n}) {{ {new} }} else " for n, new in choices) + f"{{ {old} }} }}"


def within(
    where: str, file: str, scope: str, checks: Sequence[Callable[[], None]], edits: Sequence[tuple[str, str]]
) -> Iterator[Mutant]:
    return (Mutant(where, file, scope, old, new, tuple(checks)) for old, new in edits)
