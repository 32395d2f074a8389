"""Plants every listed bug, one at a time, runs the checks, and counts the bugs planted and caught."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from minires.verify.planted.layers import LAYERS
from minires.verify.planted.mutation import catch, caught_by
from minires.verify.planted.operations import OPERATIONS

EXPECTED = "half a minute"  # on two cores
CHECKS = (
    "AssertionError",
    "GradcheckError",
)  # raised by checks; other exceptions count as "error"


@dataclass(frozen=True)
class Row:
    """The bugs planted in one operation or layer.

    kind        "operation" or "layer"
    where       name of the operation or layer
    planted     number of bugs
    by          number of bugs caught by a "check" and by an "error" (another exception)
    survivors   the bugs that no check caught
    """

    kind: str
    where: str
    planted: int
    by: dict[str, int]
    survivors: tuple[str, ...]

    @property
    def caught(self) -> int:
        return sum(self.by.values())


@dataclass(frozen=True)
class Planted:
    """The outcome of `report`.

    unsound   failures of the checks without a planted bug; with such a failure, the counts prove nothing
    """

    rows: tuple[Row, ...]
    unsound: tuple[str, ...] = ()

    @property
    def planted(self) -> int:
        return sum(row.planted for row in self.rows)

    @property
    def caught(self) -> int:
        return sum(row.caught for row in self.rows)

    @property
    def survivors(self) -> tuple[str, ...]:
        return tuple(bug for row in self.rows for bug in row.survivors)

    @property
    def holds(self) -> bool:
        """Whether the checks caught every bug and passed the code without bugs."""
        return not self.survivors and not self.unsound

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        rows = [asdict(row) | {"caught": row.caught} for row in self.rows]
        return {"planted": self.planted, "caught": self.caught, "unsound": self.unsound, "rows": rows}

    def lines(self) -> list[tuple[str, str, str, str]]:
        """A table under the heads "kind", "where", "planted", "caught"."""
        return [
            (row.kind, row.where, str(row.planted), f"{row.caught}{_errors(row.by.get('error'))}") for row in self.rows
        ]

    def __str__(self) -> str:
        return (
            f"{self.planted} planted, {self.caught} caught{_errors(sum(row.by.get('error', 0) for row in self.rows))}"
        )


def _errors(count: int | None) -> str:
    return f" ({count} by an error)" if count else ""


def report(say: Callable[[str], None] = lambda line: None) -> Planted:
    """Plants the bugs of OPERATIONS and LAYERS and runs the checks; calls say(line) once at the start."""
    say(f"planting {len(OPERATIONS) + len(LAYERS)} bugs in operations and layers")
    rows, unsound = [], []
    for kind, mutations in (("operation", OPERATIONS), ("layer", LAYERS)):
        for where in dict.fromkeys(mutation.where for mutation in mutations):
            if complaint := caught_by(where):
                unsound.append(f"{kind} {where}: {complaint}")
            found = {str(mutation): catch(mutation) for mutation in mutations if mutation.where == where}
            by = Counter("check" if found_by.startswith(CHECKS) else "error" for found_by in found.values() if found_by)
            survivors = tuple(bug for bug, found_by in found.items() if found_by is None)
            rows.append(Row(kind, where, len(found), dict(by), survivors))
    return Planted(tuple(rows), tuple(unsound))
