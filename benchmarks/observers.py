"""The cost of being observable, without an observer: training steps with the engine and with a bare engine.

    python -m benchmarks.observers [--threads N] [--rounds K] [--write]

The bare engine's nodes only run and check forward and backward.  They call no observers, store no place of the call,
freeze no arrays and add no notes to errors.  Both engines train the same network in one process and take turns step by
step.  The figure is the median over the rounds of the ratio within a round, because the speed of a shared machine
drifts.  A third side is the whole engine, which also makes the arrays of a live tape read-only.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import minires as mr
import minires.functional as F
from benchmarks.tables import show, write_between_markers
from minires import autograd
from minires._returned import checked_gradients, checked_output
from minires.bench.machine import describe
from minires.context import context

RESULTS = Path(__file__).parent / "results" / "observers.json"
TARGET = 1.01
WORKLOADS = (("resnet20", 128, 32), ("resnet56", 128, 14), ("resnet50", 2, 224))


def bare_call(node: Any, *inputs: Any) -> mr.Tensor:
    """`Function.__call__` without the code for observers."""
    node.serial, node.module = next(autograd._serials), context.module
    node.needs_input_grad = tuple(t is not None and t.requires_grad for t in inputs)
    node.parents = tuple((t.node or t) if t is not None and t.requires_grad else None for t in inputs)
    arrays = tuple(None if t is None else t.data for t in inputs)
    node.backend = mr.backends.for_arrays(arrays, node.name)
    node.input_shapes = tuple(None if a is None else a.shape for a in arrays)
    node.input_dtypes = tuple(None if a is None else a.dtype for a in arrays)
    recorded, output = any(node.needs_input_grad), checked_output(node, node.forward(*arrays), arrays)
    return mr.Tensor(output, requires_grad=recorded, node=node if recorded else None)


def bare_backward(node: Any, grad_output: Any) -> tuple[Any, ...]:
    """`Function.run_backward` without the code for observers."""
    return checked_gradients(node, node.backward(grad_output))


WHOLE = {"__call__": mr.Function.__call__, "run_backward": mr.Function.run_backward}
BARE = {"__call__": bare_call, "run_backward": bare_backward}


def engine(methods: dict[str, Any]) -> None:
    for name, method in methods.items():
        setattr(mr.Function, name, method)


def stepper(network: str, batch: int, size: int) -> Callable[[], None]:
    mr.manual_seed(0)
    model = mr.models.create(network).fuse(training=True)
    sgd = mr.optim.SGD(model.parameters(), 0.0, 0.9, 1e-4)
    rng = np.random.default_rng(0)
    x = mr.tensor(rng.standard_normal((batch, 3, size, size), np.float32))
    labels = rng.integers(0, 10, batch)

    def step() -> None:
        sgd.zero_grad()
        F.cross_entropy(model(x), labels).backward()
        sgd.step()

    return step


def race(network: str, batch: int, size: int, rounds: int) -> tuple[dict[str, float], dict[str, float]]:
    """(median seconds of a step, median ratio to the bare engine) of each side."""
    step = stepper(network, batch, size)
    freeze = autograd.freeze
    sides: dict[str, tuple[dict[str, Any], Any]] = {
        "bare": (BARE, lambda saved: ()),
        "observable": (WHOLE, lambda saved: ()),
        "as it is": (WHOLE, freeze),
    }
    times: dict[str, list[float]] = {side: [] for side in sides}
    orders = itertools.cycle(itertools.permutations(sides))  # the first place alternates
    for number in range(rounds + 2):
        for side in next(orders):
            methods, autograd.freeze = sides[side]
            engine(methods)
            start = time.perf_counter()
            step()
            if number >= 2:
                times[side].append(time.perf_counter() - start)
    engine(WHOLE)
    autograd.freeze = freeze
    seconds = {side: statistics.median(values) for side, values in times.items()}
    paired = {side: [a / b for a, b in zip(times[side], times["bare"], strict=True)] for side in sides}
    return seconds, {side: statistics.median(values) for side, values in paired.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="default: all")
    parser.add_argument("--rounds", type=int, default=30, help="counted rounds (default: 30)")
    parser.add_argument("--write", action="store_true", help="write results/ and the table of benchmarks/README.md")
    args = parser.parse_args()
    if args.rounds < 1 or args.threads < 1:
        parser.error("--rounds and --threads must be at least 1")
    mr.set_num_threads(args.threads)
    head = ["network", "batch", "bare", "observable", "ratio", "and guarded", "ratio"]
    rows, kept = [], []
    for network, batch, size in WORKLOADS:
        median, ratios = race(network, batch, size, args.rounds)
        kept.append({"network": network, "batch": batch, "size": size, "seconds": median, "ratios": ratios})
        shown = {side: f"{1e3 * seconds:.1f} ms" for side, seconds in median.items()}
        rows.append([f"{network} at {size}×{size}", str(batch), shown["bare"], shown["observable"]])
        rows[-1] += [f"{ratios['observable']:.3f}", shown["as it is"], f"{ratios['as it is']:.3f}"]
    machine = describe(args.threads, "numpy") | {"backend": mr.backends.active().name, "rounds": args.rounds}
    show(head, rows, machine)
    for found in kept:
        ratio = found["ratios"]["observable"]
        met = "met" if ratio <= TARGET else "missed"
        print(f"{found['network']}: {ratio:.3f}× the bare engine, target ≤ {TARGET}: {met}")
    if args.write:
        RESULTS.write_text(json.dumps({"machine": machine, "races": kept}, indent=2) + "\n")
        write_between_markers("observers", head, rows, machine)
        print(f"written: {RESULTS.relative_to(Path.cwd())}, benchmarks/README.md")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
