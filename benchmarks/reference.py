"""The reference backend beside PyTorch eager: forward and whole training step, time ratio and peak memory.

    python -m benchmarks.reference [--threads N] [--repeats K] [--write]

Every side runs in a process of its own (so that neither inherits the other's memory or thread pools) with the same
weights, images, labels and number of threads; the sides take turns, round after round, and the medians are compared.
After the timing, the loss and the gradient of the first convolution that the timed steps left behind are compared too.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from minires.bench.machine import describe
from benchmarks.tables import write_between_markers

RESULTS = Path(__file__).parent / "results" / "reference.json"


@dataclass(frozen=True)
class Workload:
    """A network on a batch of random images."""

    network: str
    batch: int
    size: int
    classes: int
    target: float  # at most this many times PyTorch's time for a training step

    def images(self) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(1)
        x = rng.standard_normal((self.batch, 3, self.size, self.size), np.float32)
        return x, rng.integers(0, self.classes, self.batch)


WORKLOADS = (
    Workload("resnet20", batch=128, size=32, classes=10, target=2.5),
    Workload("resnet50", batch=8, size=224, classes=1000, target=1.5),
)
SIDES = ("minires", "torch", "torch channels_last")


class Minires:
    def __init__(self, work: Workload, threads: int) -> None:
        import minires as mr

        mr.set_num_threads(threads)
        mr.manual_seed(0)
        self.model = mr.models.create(work.network, num_classes=work.classes)
        x, self.labels = work.images()
        self.x = mr.tensor(x)
        self.sgd = mr.optim.SGD(self.model.parameters(), lr=0.0, momentum=0.9, weight_decay=1e-4)
        self.first = next(iter(self.model.parameters()))

    def forward(self) -> None:
        self.model(self.x)

    def step(self) -> float:
        import minires.functional as F

        self.sgd.zero_grad()
        loss = F.cross_entropy(self.model(self.x), self.labels)
        loss.backward()
        self.sgd.step()
        return loss.item()

    def gradient(self) -> np.ndarray:
        return np.ascontiguousarray(self.first.grad)


class Torch:
    def __init__(self, work: Workload, threads: int, channels_last: bool) -> None:
        import torch

        import minires as mr
        from minires.verify import torch_networks

        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision("highest")
        mr.manual_seed(0)
        weights = mr.models.create(work.network, num_classes=work.classes).state_dict()
        self.model = torch_networks.create(work.network, num_classes=work.classes)
        self.model.load_state_dict({k: torch.from_numpy(v.copy()) for k, v in weights.items()}, strict=False)
        self.model.train()
        x, labels = work.images()
        self.x, self.labels = torch.from_numpy(x), torch.from_numpy(labels)
        if channels_last:
            self.model = self.model.to(memory_format=torch.channels_last)
            self.x = self.x.contiguous(memory_format=torch.channels_last)
        self.loss = torch.nn.CrossEntropyLoss()
        self.sgd = torch.optim.SGD(self.model.parameters(), lr=0.0, momentum=0.9, weight_decay=1e-4)

    def forward(self) -> None:
        self.model(self.x)

    def step(self) -> float:
        self.sgd.zero_grad()
        loss = self.loss(self.model(self.x), self.labels)
        loss.backward()
        self.sgd.step()
        return float(loss.item())

    def gradient(self) -> np.ndarray:
        grad: np.ndarray = next(self.model.parameters()).grad.contiguous().numpy()
        return grad


def serve(pipe: Connection, side: str, work: Workload, threads: int) -> None:
    """A side's process: does what it is asked to, one request at a time, and answers with the seconds it took."""
    peer: Any = Minires(work, threads) if side == "minires" else Torch(work, threads, "channels_last" in side)
    pipe.send("ready")
    loss = None  # of the last step
    while (request := pipe.recv()) != "stop":
        if request == "result":
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # KiB on Linux
            pipe.send((loss, peer.gradient(), peak))
            continue
        start = time.perf_counter()
        loss = getattr(peer, request)()
        pipe.send(time.perf_counter() - start)


def race(work: Workload, threads: int, repeats: int) -> dict[str, Any]:
    """Times all sides in turn; returns medians, ratios to PyTorch (contiguous), peaks and the greatest disagreement."""
    context = multiprocessing.get_context("spawn")
    pipes, processes = {}, []
    for side in SIDES:
        pipes[side], other = context.Pipe()
        processes.append(context.Process(target=serve, args=(other, side, work, threads), daemon=True))
        processes[-1].start()
        pipes[side].recv()
    times: dict[tuple[str, str], list[float]] = {}
    for round_number in range(repeats + 1):  # the first round warms up
        for request in ("forward", "step"):
            for side in SIDES:
                pipes[side].send(request)
                seconds = pipes[side].recv()
                if round_number:
                    times.setdefault((side, request), []).append(seconds)
    results = {}
    for side, process in zip(SIDES, processes, strict=True):
        pipes[side].send("result")
        results[side] = pipes[side].recv()
        pipes[side].send("stop")
        process.join()
    median = {key: statistics.median(values) for key, values in times.items()}
    loss, grad, _ = results["torch"]
    rows = {}
    for side in SIDES:
        side_loss, side_grad, peak = results[side]
        rows[side] = {
            "forward_s": median[side, "forward"],
            "step_s": median[side, "step"],
            "forward_ratio": median[side, "forward"] / median["torch", "forward"],
            "step_ratio": median[side, "step"] / median["torch", "step"],
            "peak_bytes": peak,
            "loss_difference": abs(side_loss - loss) / abs(loss),
            "gradient_difference": float(np.linalg.norm(side_grad - grad) / np.linalg.norm(grad)),
        }
    return {"workload": asdict(work), "repeats": repeats, "sides": rows}


def table(races: list[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    head = ["network", "batch", "side", "forward", "ratio", "training step", "ratio", "peak memory", "gradient off by"]
    rows = []
    for result in races:
        work = result["workload"]
        for side, row in result["sides"].items():
            rows.append(
                [
                    f"{work['network']} at {work['size']}×{work['size']}",
                    str(work["batch"]),
                    side,
                    f"{row['forward_s']:.3f} s",
                    f"{row['forward_ratio']:.2f}",
                    f"{row['step_s']:.3f} s",
                    f"{row['step_ratio']:.2f}",
                    f"{row['peak_bytes'] / 2**20:.0f} MiB",
                    f"{row['gradient_difference']:.0e}",
                ]
            )
    return head, rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/ and the table in README.md")
    args = parser.parse_args()
    if args.repeats < 1 or args.threads < 1:
        parser.error("--repeats and --threads must be at least 1")

    races = [race(work, args.threads, args.repeats) for work in WORKLOADS]
    machine = describe(args.threads, "numpy", "torch")
    head, rows = table(races)
    shown = Table(*head, title=", ".join(f"{k} {v}" for k, v in machine.items()))
    for row in rows:
        shown.add_row(*row)
    Console(width=160).print(shown)

    failed = False
    for result in races:
        work, ours = result["workload"], result["sides"]["minires"]
        met = ours["step_ratio"] <= work["target"]
        print(
            f"{work['network']}: training step {ours['step_ratio']:.2f}× PyTorch's, target ≤ {work['target']}×"
            f" {'met' if met else 'missed'}"
        )
        # float32 rounding grows on its way back through up to 53 layers of batch statistics, in PyTorch as well: two
        # layouts of memory say by how much.  A wrong gradient would differ by the order of 1.
        rounding = max(1e-2, 2 * result["sides"]["torch channels_last"]["gradient_difference"])
        if not (ours["loss_difference"] < 1e-3 and ours["gradient_difference"] < min(rounding, 0.2)):
            print(
                f"{work['network']}: the sides disagree: the times above compare different computations",
                file=sys.stderr,
            )
            failed = True
    if args.write and not failed:
        RESULTS.write_text(json.dumps({"machine": machine, "races": races}, indent=2) + "\n")
        write_between_markers("reference", head, rows, machine)
        print(f"written: {RESULTS.relative_to(Path.cwd())}, README.md")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
