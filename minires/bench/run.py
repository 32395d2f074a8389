"""What a run measures, and the run itself.  The results are numbers and texts that JSON can hold."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from minires import backends
from minires.bench import layers, networks, report, roofline
from minires.bench.machine import Others, describe
from minires.bench.peers import PEERS, missing

TABLE_1 = ("resnet18", "resnet34", "resnet50")
RACED = ("resnet18", "resnet50", "resnet20", "resnet56")
FOR_LAYERS = 0.3  # share of the time, where networks are measured as well

Report = Callable[[int, int, str], None]  # steps done, steps in total, the next step


@dataclass(frozen=True)
class Plan:
    """What a run measures.

    layers     networks whose convolutions are measured one by one; none: no layers
    networks   networks that are measured as a whole
    batch      replaces the usual batches
    threads    threads of every contender
    rounds     at most this many
    minutes    of the whole run; three rounds of everything may take longer
    backend    the backend of minires
    peers      contenders beside it, of `peers.PEERS`
    quick      fewer and smaller workloads
    """

    layers: tuple[str, ...] = TABLE_1
    networks: tuple[str, ...] = RACED
    batch: int | None = None
    threads: int = 1
    rounds: int = 9
    minutes: float = 10
    backend: str = "native"
    peers: tuple[str, ...] = tuple(PEERS)
    quick: bool = False


def run(plan: Plan, progress: Report) -> dict[str, Any]:
    """Measures everything without the peers that are not installed; BackendUnavailable if the plan's backend is not."""
    with backends.backend(plan.backend) as ours:
        kernels = getattr(ours, "kernels", None)
    began, others = time.monotonic(), Others()
    until = began + 60 * plan.minutes
    left_out = missing(plan.peers)
    peers = tuple(peer for peer in plan.peers if peer not in left_out)
    packages = ["numpy", *(package for peer in peers for package in PEERS[peer] if package != "onnx")]
    machine: dict[str, Any] = dict(describe(plan.threads, *packages))
    if kernels is not None:
        machine["native"] = f"{kernels.name}{', winograd' if ours.winograd else ''}"
    shapes = layers.convolutions(plan.layers)
    works = [work for name in plan.networks for work in networks.workloads(name, plan.batch, plan.quick)]
    total = 1 + len(shapes) + len(works)

    progress(0, total, "the processor's limits")
    found: dict[str, Any] = {"machine": machine, "left_out": left_out, "backend": plan.backend}
    found["limits"] = roofline.measure(plan.threads, min(plan.rounds, 5), torch="torch" in peers)

    found["layers"] = []
    if shapes:
        batch = plan.batch or (4 if plan.quick else 16)
        progress(1, total, f"{len(shapes)} convolutions")
        end = time.monotonic() + (until - time.monotonic()) * (FOR_LAYERS if works else 1)
        rows = layers.measure(shapes, batch, plan.threads, plan.rounds, end, plan.backend, peers)
        for done, directions in enumerate(rows, start=2):
            found["layers"] += directions
            progress(done, total, directions[0]["convolution"])
    found["networks"] = []
    for number, work in enumerate(works):
        progress(1 + len(shapes) + number, total, str(work))
        now = time.monotonic()
        end = now + (until - now) / (len(works) - number)
        row = networks.measure(work, plan.threads, plan.rounds, end, plan.backend, peers)
        found["networks"].append(row)
        left_out |= row["left_out"]
    progress(total, total, "done")
    found["goals"] = report.goals(found)
    found["others"] = others.share()
    found["minutes"] = (time.monotonic() - began) / 60
    return found
