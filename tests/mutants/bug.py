"""One planted bug, as data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Bug:
    """One bug.

    file       path below the repository
    old, new   the text that is replaced, and its replacement.  ‹ › in the old text of a kernel mark the part that is
               replaced, and the rest only shows the place: "sum += ‹a› * b".  Where that part ends with ; both are
               statements, else expressions of one type
    why        the defect in words; for a kernel its name, or the header that several kernels share
    tests      arguments of pytest, or functions that raise AssertionError: the narrowest tests that must catch it
    scope      text by which a kernel's function or struct begins, which stands in the file once.  The scope ends with
               the next line that begins with }.  "": the whole file
    """

    file: str
    old: str
    new: str
    why: str
    tests: str | tuple[Callable[[], None], ...]
    scope: str = ""

    def __str__(self) -> str:
        return f"{self.file}: {self.why}: {self.old!r} -> {self.new!r}"

    def place(self, source: str) -> tuple[int, int]:
        """Where the replaced text begins and ends; ValueError unless the old text stands in its scope exactly once."""
        begin, end = 0, len(source)
        if self.scope:
            if source.count(self.scope) != 1:
                raise ValueError(
                    f"{self}: {self.scope!r} stands {source.count(self.scope)} times in the file, not once"
                )
            begin = source.index(self.scope)
            end = source.index("\n}", begin)
        before, mark, rest = self.old.partition("‹")
        before, marked = (before, rest) if mark else ("", self.old)
        replaced, _, after = marked.partition("›")
        whole = before + replaced + after
        if (count := source.count(whole, begin, end)) != 1:
            raise ValueError(f"{self}: the text stands {count} times in its scope, not once")
        begin = source.index(whole, begin, end) + len(before)
        return begin, begin + len(replaced)


def within(file: str, tests: str, edits: Iterable[tuple[str, str, str]]) -> tuple[Bug, ...]:
    """The bugs of one Python file, each (old, new, why), with the same tests."""
    return tuple(Bug(file, old, new, why, tests) for old, new, why in edits)


def inside(
    where: str, file: str, scope: str, tests: Sequence[Callable[[], None]], edits: Iterable[tuple[str, str]]
) -> Iterator[Bug]:
    """The bugs of one scope of a file below csrc, each (old, new), with the same tests."""
    return (Bug(f"csrc/{file}", old, new, where, tuple(tests), scope) for old, new in edits)
