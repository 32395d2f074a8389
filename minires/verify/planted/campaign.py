"""Every known bug is planted, one at a time, and the checks must catch each: how many were planted, how many caught."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import minires
from minires._checks import choice
from minires.backends.unavailable import BackendUnavailable
from minires.verify.planted import build
from minires.verify.planted.layers import LAYERS
from minires.verify.planted.mutant import Mutant
from minires.verify.planted.mutation import catch, caught_by
from minires.verify.planted.operations import OPERATIONS

WHAT = ("operations", "kernels", "all")
# On two cores.
EXPECTED = {"operations": "half a minute", "kernels": "some five minutes", "all": "some five minutes"}
Say = Callable[[str], None]


@dataclass(frozen=True)
class Row:
    """The bugs of one place.

    kind        "operation", "layer", "cuda" (csrc/cuda by the emulator) or "cpu" (csrc/cpu)
    where       the operation, the layer, the kernel, or the header that several kernels share
    by          how many were caught by what: "check", "error" (an exception), "crash", "hang"
    survivors   the bugs that no check complained about
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
    """What `report` found.

    unsound   complaints about the code as it is: then nothing is proven about the bugs
    notes     what was not planted, and why
    """

    rows: tuple[Row, ...]
    unsound: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def planted(self) -> int:
        return sum(row.planted for row in self.rows)

    @property
    def caught(self) -> int:
        return sum(row.caught for row in self.rows)

    @property
    def survivors(self) -> tuple[str, ...]:
        return tuple(told for row in self.rows for told in row.survivors)

    @property
    def holds(self) -> bool:
        """Whether every bug was caught, and nothing else complained about."""
        return not self.survivors and not self.unsound

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "planted": self.planted, "caught": self.caught, "unsound": self.unsound, "notes": self.notes,
            "rows": [
                {"kind": row.kind, "where": row.where, "planted": row.planted, "caught": row.caught, "by": row.by,
                 "survivors": row.survivors}
                for row in self.rows
            ],
        }  # fmt: skip

    def lines(self) -> list[tuple[str, str, str, str]]:
        """A table under the heads "kind", "where", "planted", "caught"; the number is followed by how, where it was not
        a check that complained."""
        return [(row.kind, row.where, str(row.planted), f"{row.caught}{_how(row.by)}") for row in self.rows]

    def __str__(self) -> str:
        by = sum((Counter(row.by) for row in self.rows), Counter[str]())
        return f"{self.planted} planted, {self.caught} caught{_how(by)}"


TOLD = {"error": "an error", "crash": "a crash", "hang": "running on and on"}


def _how(by: Mapping[str, int]) -> str:
    otherwise = ", ".join(f"{by[way]} by {told}" for way, told in TOLD.items() if by.get(way))
    return f" ({otherwise})" if otherwise else ""


def report(what: str = "all", jobs: int | None = None, say: Say = lambda line: None) -> Planted:
    """Plants the bugs and lets the checks look for them.

    what   "operations" (and layers; a few seconds), "kernels" (csrc/cuda and csrc/cpu; compiled first, with all their
           bugs at once: minutes), or "all"
    jobs   how many processes compile and check; None: one for each processor
    say    is told what is being done, a line at a time

    Raises BackendUnavailable where the kernels alone are wanted and cannot be compiled; of "all" it is a note.
    """
    choice(what, "what", WHAT)
    missing = "" if what == "operations" else build.missing()
    if what == "kernels" and missing:
        raise BackendUnavailable(f"nothing can be planted in the kernels: {missing}")
    found = Planted(())
    if what != "kernels":
        found = in_operations(say)
    if what != "operations" and not missing:
        kernels = in_kernels(jobs, say)
        found = Planted(found.rows + kernels.rows, found.unsound + kernels.unsound)
    notes = (f"nothing was planted in the kernels: {missing}",) if missing else ()
    return Planted(found.rows, found.unsound, notes)


def in_operations(say: Say) -> Planted:
    """Plants OPERATIONS and LAYERS."""
    say(f"planting {len(OPERATIONS) + len(LAYERS)} bugs in operations and layers")
    outcomes: dict[tuple[str, str], list[tuple[str, str]]] = {}
    unsound = []
    for kind, mutations in (("operation", OPERATIONS), ("layer", LAYERS)):
        for where in dict.fromkeys(mutation.where for mutation in mutations):
            complaint = caught_by(where)
            if complaint:
                unsound.append(f"{kind} {where}: {complaint}")
        for mutation in mutations:
            found = catch(mutation)
            by = "" if found is None else "check" if found.startswith(CHECKS) else "error"
            outcomes.setdefault((kind, mutation.where), []).append((by, str(mutation)))
    return Planted(_rows(outcomes), tuple(unsound))


CHECKS = ("AssertionError", "GradcheckError")  # what checks raise; all else is an error that a bug led to


def _rows(outcomes: dict[tuple[str, str], list[tuple[str, str]]]) -> tuple[Row, ...]:
    return tuple(
        Row(
            kind, where, len(results), dict(Counter(by for by, _ in results if by)),
            tuple(told for by, told in results if not by),
        )
        for (kind, where), results in outcomes.items()
    )  # fmt: skip


def in_kernels(jobs: int | None, say: Say, listed: str = "minires.verify.planted.kernels:KERNELS") -> Planted:
    """Plants the listed Mutants, MODULE:NAME, in csrc/cuda and csrc/cpu."""
    module, _, name = listed.partition(":")
    mutants: tuple[Mutant, ...] = getattr(importlib.import_module(module), name)
    jobs = jobs or os.cpu_count() or 1
    with tempfile.TemporaryDirectory(prefix="minires-planted-") as folder:
        say(f"compiling the kernels with {len(mutants)} bugs in them, {jobs} files at a time")
        try:
            build.build(Path(folder), mutants, jobs)
        except build.NotPlanted as error:
            return Planted((), (f"the kernels: {error}",))
        say("planting them one by one")
        found, unsound = _tried(Path(folder), listed, jobs, say)
    outcomes: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for number, mutant in enumerate(mutants, 1):
        if number in found:
            kind = mutant.file.partition("/")[0]
            outcomes.setdefault((kind, mutant.where), []).append((found[number], str(mutant)))
    return Planted(_rows(outcomes), tuple(unsound))


def _tried(folder: Path, listed: str, jobs: int, say: Say) -> tuple[dict[int, str], list[str]]:
    """By what each bug was caught ("" if it was not), by number; and what went wrong."""
    package = str(Path(minires.__file__).parents[1])
    own = {
        "MINIRES_NATIVE": str(folder), "MINIRES_EMULATION": str(folder), "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, (package, os.getenv("PYTHONPATH")))),
    }  # fmt: skip
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MINIRES_")} | own
    found: dict[int, str] = {}
    unsound: list[str] = []
    lock = threading.Lock()

    def work(share: int) -> None:
        command = [sys.executable, "-m", "minires.verify.planted.trial", listed, str(share), str(jobs)]
        with subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as process:
            for answer in map(json.loads, process.stdout or ()):
                with lock:
                    if answer["number"] == 0:
                        unsound.append(f"the kernels as they are: {answer['told']}")
                        continue
                    found[answer["number"]] = answer["by"]
                    if len(found) % 100 == 0:
                        say(f"{len(found)} tried")
        if process.returncode:
            unsound.append(f"a process that plants bugs ended with exit code {process.returncode}")

    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(work, range(jobs)))
    return found, unsound
