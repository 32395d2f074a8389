"""Memory of training: the predicted peak beside the measured peak, and the growth over a run.

    python -m benchmarks.memory [--threads N] [--write]
    python -m benchmarks.memory --growth [--repeats K] [--threads N] [--write]

Each row is a process of its own.  The measured peak is the rise of its resident memory after the libraries are loaded
and a tiny network is trained.  The predictions are the arrays of `peak_memory`, and the number that a run is checked
against: the arrays with an allowance for allocator fragmentation.

Growth: `minires train` with its defaults (resnet20 on digits).  Its resident memory is read after 300 updates (25
epochs with their checkpoints), and again a hundred epochs (1,200 updates) later.  Both readings are at the same place
of an epoch, because an epoch's end returns some memory to the system.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import psutil

import minires as mr
from benchmarks import figures
from benchmarks.tables import show, write_between_markers
from minires.bench.machine import describe
from minires.bench.race import peak_bytes
from minires.optim import SGD
from minires.training import Config, memory, train
from minires.training.progress import Silent
from minires.training.update import Update

RESULTS = Path(__file__).parent / "results" / "memory.json"
MIB = 2**20
# backend, network, side of the images, batch, micro-batch
CASES = [
    (backend, *case)
    for backend in ("native", "reference")
    for case in (
        ("resnet20", 32, 128, None),
        ("resnet20", 32, 128, 32),
        ("resnet110", 32, 64, None),
        ("resnet18", 224, 16, None),
        ("resnet50", 224, 16, None),
        ("resnet50", 224, 16, 4),
        ("vgg16", 64, 32, None),
    )
]
WARM_UP, STEPS = 300, 1200  # updates; an epoch has 12


def resident() -> int:
    return int(psutil.Process().memory_info().rss)


def measure(backend: str, network: str, size: int, batch: int, micro_batch: int | None) -> dict[str, int]:
    """Bytes of this process, which must have done nothing else."""
    rng = np.random.default_rng(0)

    def updates(model: mr.nn.Module, images: int, side: int, micro_batch: int | None) -> None:
        update = Update(model, SGD(model.parameters(), 0.1, 0.9, 1e-4), micro_batch=micro_batch)
        x = rng.standard_normal((images, 3, side, side), np.float32)
        for _ in range(3):
            update(x, rng.integers(0, 10, images), 0.0)

    with mr.backend(backend):
        updates(mr.models.create("resnet20", width=2), 2, 8, None)
        before = resident()
        model = mr.models.create(network)
        updates(model, batch, size, micro_batch)
        measured = peak_bytes() - before
        arrays = mr.inspect.peak_memory(model, (3, size, size), micro_batch or batch)
        if micro_batch:  # also the images of the whole batch and the sums of gradients
            arrays += 4 * (3 * size * size * batch + sum(p.size for p in model.parameters()))
    return {"arrays": arrays, "predicted": int(arrays * memory.GAPS[backend]), "measured": measured}


class Reader(Silent):
    """Reads the resident memory twice during a run."""

    def __init__(self) -> None:
        self.read: list[int] = []

    def iteration(self, done: int, loss: float, training_error: float, images_per_second: float) -> None:
        if done in (WARM_UP, WARM_UP + STEPS):
            self.read.append(resident())


def grow(backend: str) -> dict[str, int]:
    """Resident bytes of this process before and after a hundred epochs."""
    reader = Reader()
    with tempfile.TemporaryDirectory() as folder:
        config = Config.make(epochs=None, iterations=WARM_UP + STEPS + 1, backend=backend)
        train(config, Path(folder) / "run", report=reader)
    before, after = reader.read
    return {"before": before, "after": after}


def in_a_process(what: str, *arguments: Any, threads: int, module: str = "benchmarks.memory") -> dict[str, int]:
    words = [sys.executable, "-m", module, "--only", what, json.dumps(arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": str(threads)}
    words += ["--threads", str(threads)]
    done = subprocess.run(words, stdout=subprocess.PIPE, check=True, env=environment, cwd=RESULTS.parents[2])
    found: dict[str, int] = json.loads(done.stdout)
    return found


def peaks(threads: int) -> tuple[list[str], list[list[str]]]:
    head = ["network", "images", "backend", "batch", "at a time", "arrays predicted", "with gaps", "measured", "ratio"]
    rows = []
    for case in CASES:
        backend, network, size, batch, micro_batch = case
        found = in_a_process("measure", *case, threads=threads)
        numbers = [f"{found[name] / MIB:,.0f} MiB" for name in ("arrays", "predicted", "measured")]
        ratio = f"{found['predicted'] / found['measured']:.2f}"
        rows.append([network, f"3×{size}×{size}", backend, str(batch), str(micro_batch or batch), *numbers, ratio])
        print(" ".join(rows[-1]), file=sys.stderr)
    return head, rows


def growth(threads: int, repeats: int) -> tuple[list[str], list[list[str]]]:
    head = ["backend", "repeat", f"after {WARM_UP:,} updates", f"after {WARM_UP + STEPS:,}", "growth"]
    rows = []
    for backend in ("native", "reference"):
        for repeat in range(1, repeats + 1):
            found = in_a_process("grow", backend, threads=threads)
            before, after = found["before"], found["after"]
            sizes = [f"{before / MIB:,.2f} MiB", f"{after / MIB:,.2f} MiB"]
            rows.append([backend, str(repeat), *sizes, f"{100 * (after - before) / before:+.2f} %"])
            print(" ".join(rows[-1]), file=sys.stderr)
    return head, rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--growth", action="store_true", help="the growth over a run in place of the peaks")
    parser.add_argument("--repeats", type=int, default=3, help="runs with --growth (default: 3)")
    parser.add_argument("--threads", type=int, default=1, help="threads of each process (default: 1)")
    parser.add_argument("--write", action="store_true", help="write results/ and the tables of benchmarks/README.md")
    parser.add_argument("--only", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    mr.set_num_threads(arguments.threads)
    if arguments.only:
        what, words = arguments.only
        print(json.dumps({"measure": measure, "grow": grow}[what](*json.loads(words))))
        return 0
    if arguments.growth:
        head, rows = growth(arguments.threads, arguments.repeats)
    else:
        head, rows = peaks(arguments.threads)
    machine = describe(arguments.threads, "numpy")
    show(head, rows, machine)
    if arguments.write:
        name = "growth" if arguments.growth else "peaks"
        results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        results[name] = {"machine": machine, "head": head, "rows": rows}
        RESULTS.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
        write_between_markers(f"memory-{name}", head, rows, machine)
        figures.write(["memory"], figures.RESULTS)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
