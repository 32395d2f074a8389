"""Memory of captured training: the peak beside that of eager training, and the growth over many replays.

    python -m benchmarks.capture [--network NAME] [--batch N] [--steps N] [--replays N] [--threads N] [--write]

Each side is a process of its own.  Both train the fused network on one batch, on the native backend: "eager" calls the
step, "captured" captures the step and replays it.  The peak is the process's peak resident memory, libraries included.
For "captured" it includes the capture; the next column is the peak of the replays alone.  The growth is the resident
memory after the last step minus that after step WARM_UP.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

import minires as mr
import minires.functional as F
from benchmarks.memory import MIB, in_a_process, resident
from benchmarks.tables import show
from minires.bench.machine import describe
from minires.bench.race import peak_bytes, reset_peak
from minires.optim import SGD

RESULTS = Path(__file__).parent / "results" / "capture.json"
HEAD = ["side", "steps", "peak", "divided by eager's", "peak of the steps", "growth"]
WARM_UP = 3


def measure(side: str, network: str, batch: int, steps: int) -> dict[str, int]:
    """Bytes of this process, which must have done nothing else."""
    rng = np.random.default_rng(0)
    images = rng.standard_normal((batch, *mr.models.input_shape(network)), np.float32)
    labels = rng.integers(0, mr.models.options(network)["num_classes"], batch)
    model = mr.models.create(network).fuse(training=True)
    sgd = SGD(model.parameters(), 0.0, 0.9, 1e-4)

    def step(images: Any, labels: Any, lr: float) -> mr.Tensor:
        sgd.zero_grad()
        sgd.lr = lr
        loss = F.cross_entropy(model(mr.tensor(images)), labels)
        loss.backward()
        sgd.step()
        return loss

    with mr.backend("native"):
        call: Any = mr.capture(step, images, labels, 0.0) if side == "captured" else step
        before_steps = peak_bytes()
        reset_peak()
        for _ in range(WARM_UP):
            call(images, labels, 1e-3)
        warm = resident()
        for _ in range(steps - WARM_UP):
            call(images, labels, 1e-3)
    peak = peak_bytes()
    return {"peak": max(before_steps, peak), "peak_of_steps": peak, "growth": resident() - warm}


def rows_of(found: dict[str, dict[str, int]]) -> list[list[str]]:
    rows = []
    for side, measured in found.items():
        ratio = f"{measured['peak'] / found['eager']['peak']:.2f}"
        peaks = [f"{measured[name] / MIB:,.1f} MiB" for name in ("peak", "peak_of_steps")]
        rows.append(
            [side, f"{measured['steps']:,}", peaks[0], ratio, peaks[1], f"{measured['growth'] / MIB:+,.2f} MiB"]
        )
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="resnet50", help="name of the network (default: resnet50)")
    parser.add_argument("--batch", type=int, default=16, help="images (default: 16)")
    parser.add_argument("--steps", type=int, default=20, help="steps of eager training (default: 20)")
    parser.add_argument("--replays", type=int, default=1000, help="replays of the captured step (default: 1000)")
    parser.add_argument("--threads", type=int, default=1, help="threads of each side (default: 1)")
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/capture.json")
    parser.add_argument("--only", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    mr.set_num_threads(args.threads)
    if args.only:
        print(json.dumps(measure(args.only[0], *json.loads(args.only[1]))))
        return 0
    if min(args.steps, args.replays) <= WARM_UP:
        parser.error(f"--steps and --replays must be above {WARM_UP}")
    found = {}
    for side, steps in (("eager", args.steps), ("captured", args.replays)):
        given = (args.network, args.batch, steps)
        found[side] = {"steps": steps, **in_a_process(side, *given, threads=args.threads, module="benchmarks.capture")}
    machine = describe(args.threads, "numpy")
    show(HEAD, rows_of(found), {"network": args.network, "batch": args.batch, **machine})
    if args.write:
        stored = {"machine": machine, "network": args.network, "batch": args.batch, "sides": found}
        RESULTS.write_text(json.dumps(stored, indent=2) + "\n")
        print(f"written: {RESULTS}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
