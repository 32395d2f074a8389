"""Rules that rename, readable in both directions.

    Rule("encoder.stages.{s}.layers.{b}.shortcut.convolution.*", "layer{s+1}.{b}.downsample.0.*")

`{s}` stands for a number, `{s+1}` for the number after it, `*` for what a layer holds: its weight, bias or statistics.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

HELD = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
_FIELD = re.compile(r"\{([a-z])(\+1)?\}|\*")


@dataclass(frozen=True)
class Rule:
    """One pattern of another program's names, and the same in torchvision's."""

    theirs: str
    ours: str


@dataclass(frozen=True)
class Convention:
    """How a program names the parts of these networks.

    rules       the first one that fits a name counts
    flattened   weights, in torchvision's names, that stand there as those of convolutions: (O, C, H, W) for (O, C·H·W)
    """

    name: str
    rules: tuple[Rule, ...]
    flattened: frozenset[str] = frozenset()

    def ours(self, name: str) -> str | None:
        """torchvision's name of what this convention calls `name`; None where no rule fits."""
        renamed = (rename(name, rule.theirs, rule.ours) for rule in self.rules)
        return next((new for new in renamed if new is not None), None)

    def theirs(self, name: str) -> str | None:
        """What this convention calls that which torchvision calls `name`; None where no rule fits."""
        renamed = (rename(name, rule.ours, rule.theirs) for rule in self.rules)
        return next((new for new in renamed if new is not None), None)


def same(*patterns: str) -> tuple[Rule, ...]:
    """Rules for what has torchvision's name."""
    return tuple(Rule(pattern, pattern) for pattern in patterns)


def rename(name: str, old: str, new: str) -> str | None:
    """`name` under the pattern `new`; None where it does not have the pattern `old`."""
    match = _regex(old).fullmatch(name)
    if match is None:
        return None
    values = match.groupdict()
    shifts = {field[1]: 1 for field in _FIELD.finditer(old) if field[2]}

    def fill(field: re.Match[str]) -> str:
        if field[0] == "*":
            return values["held"]
        return str(int(values[field[1]]) - shifts.get(field[1], 0) + bool(field[2]))

    return _FIELD.sub(fill, new)


@cache
def _regex(pattern: str) -> re.Pattern[str]:
    regex, end = "", 0
    for field in _FIELD.finditer(pattern):
        # Up to four digits, without zeros in front: no block has more, and names stay unique.
        part = f"(?P<held>{'|'.join(HELD)})" if field[0] == "*" else f"(?P<{field[1]}>0|[1-9][0-9]{{0,3}})"
        regex += re.escape(pattern[end : field.start()]) + part
        end = field.end()
    return re.compile(regex + re.escape(pattern[end:]))
