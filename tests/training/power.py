"""`python -m tests.training.power`: checks that a run survives a power failure in every state of its files.

Runs are recorded operation by operation (`disk.Record`).  In every state that a power failure may leave:

- a complete checkpoint is found: the last one whose save returned, or the one in the middle of its save
- before the first one: the run restarts from a complete config.json, or the folder counts as empty
- history.csv and curves.png are complete, or missing
- the next save succeeds and leaves only complete checkpoints
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from PIL import Image

from minires.training import Config, RunFolder, find_checkpoint, history, load_checkpoint, resume_config, train
from minires.training import checkpoint as checkpoints
from minires.training.run import starting_point
from training.disk import Operation, Record, build, crashes

SMALL = {"width": 1, "workers": 0, "batch_size": 128, "iterations": 4, "log_every": 2, "eval_every": 2}


def new_run(folder: Path) -> Record:
    """A checkpoint every iteration, the first before the history has a row; the last one stays."""
    return _recorded(folder, lambda: train(Config.make(checkpoint_every=1, **SMALL), folder))


def best_run(folder: Path) -> Record:
    """The newest two stay, and the best one."""
    settings = {**SMALL, "iterations": 5, "eval_every": 1}
    return _recorded(folder, lambda: train(Config.make(checkpoint_every=1, keep=2, keep_best=True, **settings), folder))


def resumed_run(folder: Path) -> Record:
    """From the oldest of three checkpoints: the others belong to a course that is left."""
    config = Config.make(checkpoint_every=1, keep=3, **SMALL)
    train(config, folder)
    oldest = min((folder / "checkpoints").glob("*.json"))
    return _recorded(folder, lambda: train(config, resume=oldest))


def resumed_elsewhere(folder: Path) -> Record:
    """From another run's checkpoint."""
    config = Config.make(checkpoint_every=2, keep=2, keep_best=True, **SMALL)
    train(config, folder.parent / "other")
    oldest = min((folder.parent / "other" / "checkpoints").glob("*.json"))
    return _recorded(folder, lambda: train(config, folder, resume=oldest))


SCENARIOS: tuple[Callable[[Path], Record], ...] = (new_run, best_run, resumed_run, resumed_elsewhere)


def _recorded(folder: Path, run: Callable[[], object]) -> Record:
    with Record(folder) as record:
        run()
    return record


@dataclass(frozen=True)
class Finding:
    """A state that breaks a run; `after` is the last of `number` operations."""

    number: int
    after: str
    what: str


def check(
    record: Record, work: Path, operations: Sequence[Operation] | None = None, first_only: bool = False
) -> tuple[int, list[Finding]]:
    """The number of states, and the states that break a run; `first_only`: stop at the first such state.

    operations   instead of the recorded ones, such as some of them left out
    """
    operations = record.operations if operations is None else operations
    saved = [(number, _iteration(o.path)) for number, o in enumerate(operations, 1) if o.kind == "saved"]
    _, before = next(crashes(record.start, ()))
    first = max(
        (_iteration(path) for path, _ in before if path.endswith(".json") and "iteration" in path), default=None
    )
    count, findings = 0, []
    for number, state in crashes(record.start, operations):
        count += 1
        done = [iteration for at, iteration in saved if at <= number]
        coming = [iteration for at, iteration in saved if at > number]
        allowed = {done[-1] if done else first, *coming[:1]}
        folder = work / "run"
        build(state, folder)
        try:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(os, "fsync", lambda descriptor: None)  # the check itself takes its time otherwise
                _check(RunFolder(folder), allowed)
        except Exception as error:  # any error is a finding
            findings.append(Finding(number, str(operations[number - 1]) if number else "", f"{error!r}"))
        shutil.rmtree(folder)
        if findings and first_only:
            break
    return count, findings


def _check(run: RunFolder, allowed: set[int | None]) -> None:
    if run.history.exists():
        history.read(run.history)
    if run.curves.exists():
        with Image.open(run.curves) as image:
            image.load()
    try:
        start = starting_point(run.path)
    except FileNotFoundError:
        assert None in allowed, "nothing is left of the run"
        assert run._is_empty(), "neither a run nor empty"
        return
    if start is None:
        assert None in allowed, "no checkpoint is left"
        run.read_config()
        return
    found = load_checkpoint(start)
    assert found.iteration in allowed, f"found iteration {found.iteration}, not {allowed}"
    assert resume_config(run.path) == found.config
    # The run continues in spite of other files in the folder.
    run.begin(found.config, list(found.rows), 1)
    row = history.Row(found.iteration + 1, 1.0, 0.1, 1.0, 50.0, None, 1.0, 1.0)
    checkpoints.save(replace(found, iteration=row.iteration, rows=(*found.rows, row)), run.checkpoints)
    assert load_checkpoint(find_checkpoint(run.path)).iteration == row.iteration
    assert len(list(run.checkpoints.iterdir())) == 2, "something was left behind"


def _iteration(path: str) -> int:
    return int(Path(path).name[len("iteration-") :][:8])


def main() -> int:
    print(f"{'run':18} {'operations':>10} {'states':>8} {'findings':>8}")
    total = wrong = 0
    for scenario in SCENARIOS:
        with tempfile.TemporaryDirectory() as work:
            record = scenario(Path(work) / "recorded")
            count, findings = check(record, Path(work))
        print(f"{scenario.__name__:18} {len(record.operations):>10,} {count:>8,} {len(findings):>8,}", flush=True)
        for finding in findings[:10]:
            print(f"  after operation {finding.number}, {finding.after}: {finding.what}")
        total, wrong = total + count, wrong + len(findings)
    print(f"{total:,} states, {wrong:,} findings")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
