"""`python -m tests.training.kills --kills 50`: kills a run repeatedly and compares its end with an undisturbed run.

A short training run is killed by SIGKILL at random moments and started again until it ends: with --resume if its folder
contains a configuration, otherwise with the same arguments.  Every other kill comes from outside, between the start of
Python and the end of the run; the other kills come from within, before a random file operation or in the middle of a
write (`disk.Disk`), mostly of a checkpoint.  A run that ends before its kill does not count.

Compared bit for bit with the undisturbed run: weights, running statistics, velocities, random state, schedule,
every column of the history but the measured times, the curves, and the names of all files.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from minires.cli import main
from minires.training import RunFolder, history, load_checkpoint
from training.disk import Disk, Operation
from training.rows import timeless

ROOT = Path(__file__).parents[2]


def words(iterations: int) -> list[str]:
    """A run that spends much of its time writing checkpoints."""
    return [
        *("train", "resnet20", "--width", "4", "--batch-size", "16", "--iterations", str(iterations), "--workers", "0"),
        *("--log-every", "5", "--eval-every", "20", "--checkpoint-every", "2", "--keep", "2", "--keep-best", "--quiet"),
    ]


@dataclass(frozen=True)
class Kill:
    """A kill from within or outside, whether during a checkpoint's save, and the differences at the end of the run."""

    run: int
    within: bool
    saving: bool
    differences: tuple[str, ...]


def kills(number: int, work: Path, seed: int = 0, iterations: int = 60, each: int = 5) -> Iterator[Kill]:
    """`number` kills, at most `each` of them in one run; yields the kills of a run at its end."""
    draw, count = random.Random(seed), 0
    began = time.monotonic()
    operations = len(_run(work / "whole", words(iterations), "list").splitlines())
    duration = time.monotonic() - began
    for run in itertools.count():
        folder, places = work / f"run-{run}", list[tuple[bool, bool]]()
        while True:
            begun = (folder / "config.json").exists()
            command = ["train", "--resume", str(folder), "--quiet"] if begun else words(iterations)
            if len(places) == min(each, number - count):
                _run(folder, command, "minires")
                break
            within = (count + len(places)) % 2 == 0
            try:
                if within:
                    _run(folder, command, "kill", draw.randrange(operations))
                else:
                    _run(folder, command, "minires", seconds=draw.uniform(0, duration))
                break
            except _Killed as kill:
                places.append((within, kill.amid.startswith("checkpoints") if within else _traces(folder)))
        count += len(places)
        different = tuple(differences(work / "whole", folder)) if places else ()
        yield from (Kill(run, within, saving, different) for within, saving in places)
        if count == number:
            return


class _Killed(Exception):
    def __init__(self, amid: str) -> None:
        self.amid = amid


def _run(folder: Path, command: list[str], how: str, operation: int = 0, seconds: float | None = None) -> str:
    """Runs it to its end and returns its stdout; raises _Killed if it was killed.

    how   "minires", "list": prints the operations, or "kill": kills itself before the operation of that number
    """
    if command[1] != "--resume":
        command = [*command, "--out", str(folder)]
    module = ["minires"] if how == "minires" else ["tests.training.kills", "--child", how, str(operation), str(folder)]
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    process = subprocess.Popen(
        [sys.executable, "-m", *module, *command],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=environment,
    )  # fmt: skip
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
    if process.returncode == -signal.SIGKILL:
        raise _Killed(out)
    if process.returncode != 0:
        raise RuntimeError(f"the run ended with {process.returncode} instead of going on: {err}")
    return out


def _child(how: str, number: int, folder: Path, command: list[str]) -> int:
    """The run in this process under a `Disk`."""
    counted = itertools.count()

    def before(operation: Operation) -> None:
        if how == "list":
            print(operation, flush=True)
        elif next(counted) == number:
            print(operation.path, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)

    with Disk(folder, before):
        return main(command)


def _traces(folder: Path) -> bool:
    """Whether the folder holds more than complete pairs, as during a checkpoint's save."""
    files = list((folder / "checkpoints").glob("*"))
    return any(file.suffix == ".tmp" for file in files) or len({file.name[:18] for file in files}) * 2 != len(files)


def differences(one: Path, other: Path) -> Iterator[str]:
    """The names of all parts of two run folders that differ in any bit."""
    files = [sorted(file.relative_to(folder) for file in folder.rglob("*")) for folder in (one, other)]
    if files[0] != files[1]:
        yield "names of files"
    for file in sorted(RunFolder(one).checkpoints.glob("*.json")):
        name = file.stem
        first, second = load_checkpoint(file), load_checkpoint(RunFolder(other).checkpoints / file.name)
        for kind in ("model", "velocity"):
            arrays = [
                {key: (a.dtype, a.shape, a.tobytes()) for key, a in getattr(c, kind).items()} for c in (first, second)
            ]
            if arrays[0] != arrays[1]:
                yield f"{kind} {name}"
        for kind in ("iteration", "config", "classes", "random_state", "schedule", "interval"):
            if getattr(first, kind) != getattr(second, kind):
                yield f"{kind} {name}"
        if repr(timeless(first.rows)) != repr(timeless(second.rows)):
            yield f"history {name}"
    rows = [repr(timeless(history.read(RunFolder(folder).history))) for folder in (one, other)]
    if rows[0] != rows[1]:
        yield "history.csv"
    if RunFolder(one).curves.read_bytes() != RunFolder(other).curves.read_bytes():
        yield "curves.png"
    if RunFolder(one).config.read_bytes() != RunFolder(other).config.read_bytes():
        yield "config.json"


def table(found: Sequence[Kill]) -> str:
    """The table of `python -m tests.training.kills`."""
    lines = [f"{'killed':14} {'kills':>6} {'amid a checkpoint':>18} {'identical':>10}"]
    for label, within in (("from outside", False), ("from within", True)):
        some = [kill for kill in found if kill.within == within]
        lines.append(
            f"{label:14} {len(some):>6} {sum(kill.saving for kill in some):>18} "
            f"{sum(not kill.differences for kill in some):>10}"
        )
    same = sum(not kill.differences for kill in found)
    lines.append(f"{same} of {len(found)} identical; {sum(k.saving for k in found)} amid the writing of a checkpoint")
    return "\n".join(lines)


def run(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.training.kills", description="kill training runs")
    parser.add_argument("--kills", type=int, default=50, metavar="N", help="how many (default: 50)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of their moments (default: 0)")
    parser.add_argument("--iterations", type=int, default=60, metavar="N", help="of the run (default: 60)")
    arguments = parser.parse_args(argv)
    found = []
    with tempfile.TemporaryDirectory() as work:
        for kill in kills(arguments.kills, Path(work), arguments.seed, arguments.iterations):
            found.append(kill)
            if kill.differences:
                print(f"run {kill.run} ended with another {', '.join(kill.differences)}", flush=True)
    print(table(found))
    return 0 if not any(kill.differences for kill in found) else 1


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        raise SystemExit(_child(sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]), sys.argv[5:]))
    raise SystemExit(run())
