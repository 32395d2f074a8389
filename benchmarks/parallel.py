"""Training on two processes beside training on one, one thread a process; and a calculation for many GPUs.

    python -m benchmarks.parallel [--rounds K] [--networks NAME,NAME] [--write]
    python -m benchmarks.parallel --expect

The sides take turns, each in processes of its own that mpirun starts.  A side's figure is the median over the rounds of
the median step of a round; its efficiency is the median of the ratios within a round.  Efficiency compares images per
second and process with those of one process alone that has as many images (weak scaling).  Two processes that exchange
nothing ("apart") lose time because they share memory and caches.

--expect prints a calculation, not a measurement: see `expect`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import minires as mr
from benchmarks.tables import show, write_between_markers
from minires.bench.machine import Others, describe
from minires.bench.report import markdown
from minires.parallel import Alone, Buckets, launched, library, synchronise, world
from minires.training.update import Update

RESULTS = Path(__file__).parent / "results" / "parallel.json"
NETWORKS = {"resnet20": (64, 32), "resnet56": (32, 32)}  # images a process, side of an image
SIDES = ("alone", "apart", "overlapped", "afterwards", "synchronised")
PROCESSES = 2


class Afterwards(Buckets):
    """The ablation: sums all gradients after backward has ended."""

    def ready(self, leaf: mr.Tensor) -> None: ...

    def finish(self) -> None:
        for p in reversed(self.params):
            super().ready(p)
        super().finish()


def measure(network: str, side: str, steps: int) -> float:
    """Seconds of this process's median step; all processes of a side call it together."""
    mr.set_num_threads(1)
    ranks = Alone() if side in ("alone", "apart") else world()
    images, size = NETWORKS[network]
    mr.manual_seed(0)
    model = mr.models.create(network)
    if side == "synchronised":
        synchronise(model, ranks)
    update = Update(model, mr.optim.SGD(model.parameters(), 1e-3, 0.9, 1e-4), ranks=ranks)
    if side == "afterwards":
        update.buckets = Afterwards(list(model.parameters()), ranks)
    rng = np.random.default_rng(ranks.rank)
    x, labels = rng.standard_normal((images, 3, size, size), np.float32), rng.integers(0, 10, images)
    seconds = []
    for _ in range(steps + 2):
        start = time.perf_counter()
        update(x, labels, 1e-3, images * ranks.size)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[2:])


def run(network: str, side: str, steps: int) -> float:
    """Seconds of the median step, of the slower process."""
    count = 1 if side == "alone" else PROCESSES
    environment = {**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    with tempfile.TemporaryDirectory() as folder:  # lines of several processes would mix in one pipe
        words = [sys.executable, "-m", "benchmarks.parallel", "--measure", network, side, str(steps), folder]
        command = ["mpirun", "-n", str(count), "--bind-to", "core", "--oversubscribe", *words]
        subprocess.run(command, check=True, env=environment)
        seconds = [float(file.read_text()) for file in Path(folder).iterdir()]
    assert len(seconds) == count
    return max(seconds)


def race(network: str, rounds: int, steps: int) -> dict[str, dict[str, float]]:
    """Median seconds and efficiency of every side."""
    times: dict[str, list[float]] = {side: [] for side in SIDES}
    orders = itertools.cycle([SIDES, SIDES[::-1]])  # the first place alternates
    for _ in range(rounds):
        for side in next(orders):
            times[side].append(run(network, side, steps))
    return {
        side: {
            "seconds": statistics.median(values),
            "efficiency": statistics.median(a / b for a, b in zip(times["alone"], values, strict=True)),
        }
        for side, values in times.items()
    }


# -- a calculation

PARAMETERS = 25_557_032  # of ResNet-50
BUCKETS = 4  # of at most 25 MB
BATCH = 32  # images a GPU
# GPUs, their link, bytes a second that a GPU sends and receives, seconds until a message arrives.  A ring through
# several machines leaves each through one network adapter, so its speed is that of the slowest link.
LINKS = (
    (8, "NVLink in one machine, 200 GB/s", 200e9, 3e-6),
    (64, "InfiniBand between 8 machines, 25 GB/s", 25e9, 5e-6),
    (1024, "InfiniBand between 128 machines, 25 GB/s", 25e9, 5e-6),
    (64, "Ethernet between 8 machines, 1.25 GB/s", 1.25e9, 30e-6),
)
SPEEDS = (400, 1500)  # images per second of one GPU
HEAD = ("GPUs", "joined by", "images/s alone", "step", "all sums", "not hidden", "efficiency", "images/s")


def expect() -> list[list[str]]:
    """Calculates data-parallel training of ResNet-50 on ImageNet, with weak scaling.

    K GPUs sum S = 4 · parameters bytes by rings: each bucket of S/B bytes takes

        2 (K − 1)/K · S/B / bandwidth  +  2 (K − 1) · latency

    because every GPU sends its share around twice, in 2 (K − 1) messages (Patarasuk and Yuan, 2009).  Backward is 2/3
    of a step.  The B sums run one after another: the first begins when 1/B of backward is done, the last when backward
    has ended.  The time after the end of backward lengthens the step.  If 2 (K − 1) latencies are most of a sum,
    libraries use trees instead, with some 2 log₂ K latencies; these figures are for rings.
    """
    rows = []
    for speed, (K, joined, bandwidth, latency) in itertools.product(SPEEDS, LINKS):
        step = BATCH / speed
        backward = 2 / 3 * step
        one = 2 * (K - 1) / K * 4 * PARAMETERS / BUCKETS / bandwidth + 2 * (K - 1) * latency
        end = 0.0
        for bucket in range(1, BUCKETS + 1):
            end = max(end, backward * bucket / BUCKETS) + one
        exposed = end - backward
        efficiency = step / (step + exposed)
        times = (f"{1e3 * seconds:.1f} ms" for seconds in (step, BUCKETS * one, exposed))
        rows.append([f"{K:,}", joined, f"{speed:,}", *times, f"{100 * efficiency:.0f} %"])
        rows[-1].append(f"{K * speed * efficiency:,.0f}")
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--expect", action="store_true", help="print the calculation and measure nothing")
    parser.add_argument("--networks", default=",".join(NETWORKS), help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each side (default: 7)")
    parser.add_argument("--steps", type=int, default=10, help="of each side in a round (default: 10)")
    parser.add_argument("--write", action="store_true", help="write results/ and the table of benchmarks/README.md")
    parser.add_argument("--measure", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        network, side, steps, folder = args.measure
        (Path(folder) / str(launched()[0])).write_text(str(measure(network, side, int(steps))))
        return 0
    if args.expect:
        print(markdown((HEAD, expect())))
        return 0
    networks = args.networks.split(",")
    if args.rounds < 1 or args.steps < 1 or not set(networks) <= set(NETWORKS):
        parser.error(f"--rounds and --steps must be at least 1, --networks of {', '.join(NETWORKS)}")
    head = ["network", "images a process", *SIDES]
    rows: list[list[str]] = []
    kept: list[dict[str, Any]] = []
    others = Others()
    for network in networks:
        found = race(network, args.rounds, args.steps)
        images, size = NETWORKS[network]
        kept.append({"network": network, "images": images, "size": size, "sides": found})
        cells = [f"{1e3 * side['seconds']:.1f} ms ({100 * side['efficiency']:.0f} %)" for side in found.values()]
        rows.append([f"{network} at {size}×{size}", str(images), *cells])
    share = others.share()
    machine = describe(1, "numpy", "mpi4py") | {"mpi": library(), "rounds": args.rounds}
    machine |= {} if share is None else {"others": f"{100 * share:.0f} % of the processors"}
    show(head, rows, machine)
    if args.write:
        RESULTS.write_text(json.dumps({"machine": machine, "races": kept}, indent=2) + "\n")
        write_between_markers("parallel", head, rows, machine)
        print(f"written: {RESULTS.relative_to(Path.cwd())}, benchmarks/README.md")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
