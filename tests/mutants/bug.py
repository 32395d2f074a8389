"""One planted bug, as data."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Bug:
    """One bug.

    file       path below the repository
    old, new   the text that is replaced, which stands in the file exactly once, and its replacement
    why        the defect in words
    tests      arguments of pytest: the narrowest tests that must catch it
    """

    file: str
    old: str
    new: str
    why: str
    tests: str

    def __str__(self) -> str:
        return f"{self.file}: {self.why}: {self.old!r} -> {self.new!r}"


def within(file: str, tests: str, edits: Iterable[tuple[str, str, str]]) -> tuple[Bug, ...]:
    """The bugs of one file, each (old, new, why), with the same tests."""
    return tuple(Bug(file, old, new, why, tests) for old, new, why in edits)
