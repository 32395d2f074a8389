"""The quick Figure 1 (plain-20, plain-56, ResNet-20, ResNet-56; 300 iterations each) beside PyTorch eager.

    python -m benchmarks.figure1 [--iterations N] [--rounds K] [--jobs N] [--write]

Both sides train the same four networks from the same weights on the same batches, and evaluate the test images at the
same iterations.  Each network is a process with one thread; as many run at a time on both sides, and the sides take
turns.  The time runs from the start of the four networks to the end of the last, processes and imports included.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.tables import show, write_between_markers
from minires import backends, data, random
from minires.bench.machine import describe
from minires.paper import experiment, figure1
from minires.paper.experiment import Plan
from minires.training import Config
from minires.training.batches import evaluation_loader, images, training_loader
from minires.training.network import make_model
from minires.training.progress import Silent
from minires.training.side_by_side import side_by_side

RESULTS = Path(__file__).parent / "results" / "figure1-speed.json"


def train_minires(plan: Plan, network: str, folder: Path, report: Silent) -> list[float]:
    """The training errors of the curve that `minires paper figure1` trains, and last its final test error."""
    curve = experiment.run(plan, network, 0, folder, None, report)
    return [row.training_error for row in curve.rows] + [curve.rows[-1].test_error or 0.0]


def train_torch(plan: Plan, network: str, report: Silent) -> list[float]:
    """The same in PyTorch: weights, batches, descent, evaluations."""
    import torch  # optional, as is the next module, which imports it

    from minires.verify import torch_networks

    torch.set_num_threads(backends.get_num_threads())
    torch.set_float32_matmul_precision("highest")
    config: Config = plan.config(network, 0)
    training, test = images(config, "train"), images(config, "test")
    mean = data.pixel_mean(training)
    batches = training_loader(config, training, mean)
    random.manual_seed(config.seed)
    weights = make_model(config, len(training.classes), batches.shape)[0].state_dict()
    assert config.width is not None
    model = torch_networks.create(network, num_classes=10, in_channels=1, width=config.width)
    model.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in weights.items()}, strict=False)
    sgd = torch.optim.SGD(model.parameters(), config.lr, config.momentum, weight_decay=config.weight_decay)
    total = config.total_iterations(len(batches))
    schedule = config.make_schedule(total)
    log_every, eval_every, _ = config.intervals(len(batches))
    errors, wrong, seen, test_error = [], 0, 0, 0.0
    stream = batches.iterate(0)
    for iteration in range(1, total + 1):
        x, labels = (torch.from_numpy(np.ascontiguousarray(array)) for array in next(stream))
        model.train()
        logits = model(x)
        sgd.zero_grad()
        torch.nn.functional.cross_entropy(logits, labels).backward()
        sgd.param_groups[0]["lr"] = schedule(iteration - 1)
        sgd.step()
        wrong += int((logits.argmax(1) != labels).sum())
        seen += len(labels)
        if iteration % log_every == 0 or iteration == total:
            errors.append(100 * wrong / seen)
            wrong = seen = 0
        if iteration % eval_every == 0 or iteration == total:
            test_error = _error(model, config, test, mean)
    # minires measures the final training error too, without augmentation.
    _error(model, config, replace(training, images=training.images[:10_000], labels=training.labels[:10_000]), mean)
    return [*errors, test_error]


def _error(model: Any, config: Config, dataset: Any, mean: Any) -> float:
    import torch  # optional

    model.eval()
    wrong = 0
    with torch.no_grad():
        for x, labels in evaluation_loader(config, dataset, mean).epoch():
            logits = model(torch.from_numpy(np.ascontiguousarray(x))).numpy()
            wrong += int((logits.argmax(axis=1) != labels).sum())
    return 100 * wrong / len(dataset.labels)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--iterations", type=int, default=300, help="of each network (default: 300)")
    parser.add_argument("--rounds", type=int, default=1, help="turns of each side (default: 1)")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="networks at a time")
    parser.add_argument("--write", action="store_true", help="write results/ and the table of benchmarks/README.md")
    args = parser.parse_args()
    if min(args.iterations, args.rounds, args.jobs) < 1:
        parser.error("--iterations, --rounds and --jobs must be at least 1")

    plan = replace(figure1.plan(quick=True, residual=True), iterations=args.iterations)
    order = sorted(plan.networks, key=lambda name: -int(name[-2:]))  # the deepest first
    backends.set_num_threads(args.jobs)  # shared by the processes: one thread each
    seconds: dict[str, list[float]] = {"minires": [], "torch": []}
    errors: dict[str, list[list[float]]] = {}
    for _ in range(args.rounds):
        with tempfile.TemporaryDirectory() as folder:
            sides: dict[str, list[Any]] = {
                "minires": [functools.partial(train_minires, plan, name, Path(folder)) for name in order],
                "torch": [functools.partial(train_torch, plan, name) for name in order],
            }
            for side, tasks in sides.items():
                began = time.perf_counter()
                errors[side] = side_by_side(tasks, [Silent() for _ in tasks], args.jobs)
                seconds[side].append(time.perf_counter() - began)

    median = {side: statistics.median(values) for side, values in seconds.items()}
    ratio = median["minires"] / median["torch"]
    head = ["side", "four networks", "ratio", *(f"{name}, test error" for name in order)]
    rows = []
    for side in seconds:
        last = [f"{values[-1]:.1f} %" for values in errors[side]]
        rows.append([side, f"{median[side]:.0f} s", f"{median[side] / median['torch']:.2f}", *last])
    machine = describe(1, "numpy", "torch") | {
        "networks at a time": args.jobs,
        "iterations": args.iterations,
        "rounds": args.rounds,
    }
    show(head, rows, machine)
    # Rounding errors grow with every update, so the ends of the curves differ; the first points must agree.
    first = max(abs(ours[0] - peer[0]) for ours, peer in zip(errors["minires"], errors["torch"], strict=True))
    print(f"four networks: {ratio:.2f}× PyTorch's time; training errors of the first point at most {first:.2f} apart")
    if not first <= 5:
        print("the sides disagree: the times above compare different computations", file=sys.stderr)
        return 1
    if args.write:
        found = {"machine": machine, "seconds": seconds, "ratio": ratio, "errors": errors}
        RESULTS.write_text(json.dumps(found, indent=2) + "\n")
        write_between_markers("figure1", head, rows, machine)
        print(f"written: {RESULTS.relative_to(Path.cwd())}, benchmarks/README.md")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
