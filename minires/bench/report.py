"""The results of a run as tables and remarks.

A "side" of the results is a contender; results[...]["sides"] maps its name to its figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from minires.bench.peers import CAPTURED, CHANNELS_LAST, TORCH, TUNED

Table = tuple[Sequence[str], Sequence[Sequence[str]]]  # head, lines

# Heads of the columns of words; all other columns hold numbers.
WORDS = ("network", "task", "convolution", "computed", "workload", "side", "measure", "divided by that of", "")


@dataclass(frozen=True)
class Goal:
    """`side` takes at most `limit` times the time of the fastest of `against`, in the same run."""

    network: str
    task: str
    batch: int
    side: str
    against: tuple[str, ...]
    limit: float


GOALS = (
    Goal("resnet50", "training", 16, "native", (CHANNELS_LAST,), 0.65),
    Goal("resnet50", "training", 16, "native", (TUNED,), 0.95),
    Goal("resnet50", "inference", 8, "native", (CHANNELS_LAST,), 0.72),
    Goal("resnet50", "inference", 8, "native", ("onnxruntime",), 0.9),
    Goal("resnet18", "inference", 8, "native", (CHANNELS_LAST,), 0.6),
    Goal("resnet50", "inference", 1, "native", (CHANNELS_LAST,), 0.85),
    Goal("resnet18", "inference", 1, "native", (CHANNELS_LAST,), 0.85),
    Goal("resnet56", "training", 128, "native", (CHANNELS_LAST,), 0.85),
    Goal("resnet20", "training", 128, "native", (CHANNELS_LAST,), 0.85),
    Goal("resnet50", "training", 16, "reference", (CHANNELS_LAST,), 1.4),
    Goal("resnet56", "training", 128, "reference", (CHANNELS_LAST,), 2.0),
    Goal("resnet20", "training", 1, CAPTURED, (CHANNELS_LAST,), 0.9),
    *(
        Goal(network, "inference", batch, CAPTURED, ("onnxruntime", "openvino"), 1.0)
        for network in ("resnet50", "resnet18", "resnet20", "resnet56")
        for batch in (1, 8, 32)
    ),
)


def goals(found: dict[str, Any]) -> list[dict[str, Any]]:
    """The goals whose contenders were all measured, with ratio and verdict; last the goal of peak memory."""
    rows = {name_of(row): row["sides"] for row in found["networks"]}
    results = []
    for goal in GOALS:
        workload = f"{goal.network} {goal.task} {goal.batch}"
        sides = rows.get(workload, {})
        if sides.keys() >= {goal.side, *goal.against}:
            best = min(goal.against, key=lambda name: sides[name]["seconds"])
            ratio = sides[goal.side]["seconds"] / sides[best]["seconds"]
            results.append(_goal(workload, goal.side, "time", best, ratio, goal.limit))
    ratios = {
        workload: sides["native"]["peak_bytes"] / sides[CHANNELS_LAST]["peak_bytes"]
        for workload, sides in rows.items()
        if {"native", CHANNELS_LAST} <= set(sides)
    }
    if ratios:
        worst = max(ratios, key=lambda workload: ratios[workload])
        results.append(_goal(f"all, worst {worst}", "native", "peak memory", CHANNELS_LAST, ratios[worst], 1.0))
    return results


def _goal(workload: str, side: str, measure: str, against: str, ratio: float, limit: float) -> dict[str, Any]:
    compared = {"workload": workload, "side": side, "measure": measure, "against": against}
    return {**compared, "ratio": ratio, "goal": limit, "met": ratio <= limit}


def name_of(row: dict[str, Any]) -> str:
    return f"{row['network']} {row['task']} {row['batch']}"


def goal_table(found: dict[str, Any]) -> Table:
    head = ["workload", "side", "measure", "divided by that of", "ratio", "goal", ""]
    lines = []
    for goal in found["goals"]:
        words = [goal[key] for key in ("workload", "side", "measure", "against")]
        verdict = "met" if goal["met"] else "missed"
        lines.append([*words, f"{goal['ratio']:.2f}", f"≤ {goal['goal']:.2f}", verdict])
    return head, lines


def network_table(found: dict[str, Any]) -> Table:
    """In brackets: our time divided by the peer's."""
    ours, peak = found["backend"], found["limits"]["peak_gflops"]
    others = _others(found["networks"], ours)
    head = ["network", "task", "batch", ours, "of the peak", *others, "peak memory", "PyTorch's"]
    lines = []
    for row in found["networks"]:
        sides, own = row["sides"], row["sides"][ours]
        line = [row["network"], row["task"], str(row["batch"])]
        line += [seconds(own["seconds"]), percent(own["gflops"] / peak)]
        for name in others:
            taken = sides[name]["seconds"] if name in sides else None
            line.append("" if taken is None else f"{seconds(taken)} ({own['seconds'] / taken:.2f})")
        for names in ((ours, CAPTURED), (TORCH, CHANNELS_LAST)):
            peaks = [f"{sides[name]['peak_bytes'] / 2**20:.0f} MiB" for name in names if name in sides]
            line.append(", ".join(peaks))
        lines.append(line)
    return head, lines


def layer_table(found: dict[str, Any]) -> Table:
    """Rates: GFLOP/s and the share of the peak; in brackets: our time divided by the peer's."""
    ours, peak = found["backend"], found["limits"]["peak_gflops"]
    others = _others(found["layers"], ours)
    head = ["convolution", "computed", ours, "GFLOP/s", "of the peak", *(f"{name}, GFLOP/s" for name in others)]
    lines = []
    for row in found["layers"]:
        own = row["sides"][ours]
        line = [row["convolution"], row["direction"], seconds(own["seconds"])]
        line += [f"{own['gflops']:.0f}", percent(own["gflops"] / peak)]
        for name in others:
            side = row["sides"][name]
            ratio = own["seconds"] / side["seconds"]
            line.append(f"{side['gflops']:.0f}, {percent(side['gflops'] / peak)} ({ratio:.2f})")
        lines.append(line)
    return head, lines


def remarks(found: dict[str, Any]) -> list[str]:
    """What qualifies the tables, a sentence each."""
    limits, rows = found["limits"], found["networks"] + found["layers"]
    gemm, add = (
        ", ".join(f"{name} {value:.0f}" for name, value in limits[key].items()) for key in ("gemm_gflops", "add_gbs")
    )
    lines = [
        f"the processor's peak: {limits['peak_gflops']:.0f} GFLOP/s (product of 2048×2048 matrices in float32: "
        f"{gemm}); memory: {limits['bandwidth_gbs']:.0f} GB/s (adding two arrays of 128 MiB: {add})"
    ]
    if rows:
        lines.append(f"medians of {rounds(found)} rounds; the run took {found['minutes']:.1f} minutes")
        if any(len(row["sides"]) == 1 for row in rows):
            lines.append("results without a peer were not compared")
    if found["networks"]:
        worst = max(side["out_of_turn"] for row in found["networks"] for side in row["sides"].values())
        lines.append(f"processor time that a side took during another side's turn: at most {100 * worst:.1f} %")
    if found["others"] is not None:
        lines.append(f"processor time that other programs took: {100 * found['others']:.0f} %")
    return lines + [f"left out: {peer}: {reason}" for peer, reason in found["left_out"].items()]


def rounds(found: dict[str, Any]) -> str:
    """The number of counted rounds, over all rows: "3 to 9"."""
    counts = {side["rounds"] for row in found["networks"] + found["layers"] for side in row["sides"].values()}
    return " to ".join(map(str, sorted({min(counts), max(counts)})))


def disagreements(found: dict[str, Any]) -> list[str]:
    rows = [(name_of(row), row) for row in found["networks"]]
    rows += [(f"{row['convolution']}, {row['direction']}", row) for row in found["layers"]]
    return [f"{workload}: {name} and {row['judge']}" for workload, row in rows for name in row["disagree"]]


def markdown(table: Table) -> str:
    head, lines = table
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, ["---"] * len(head), *lines])


def seconds(value: float) -> str:
    """Three digits: 1.23 s, 123 ms, 12.3 ms, 1.23 ms."""
    if value >= 1:
        return f"{value:.2f} s"
    digits = 0 if value >= 0.1 else 1 if value >= 0.01 else 2
    return f"{1e3 * value:.{digits}f} ms"


def percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _others(rows: Sequence[dict[str, Any]], ours: str) -> list[str]:
    """The names in any row except ours, those of the fullest row first."""
    most_first = sorted(rows, key=lambda row: -len(row["sides"]))
    return list(dict.fromkeys(name for row in most_first for name in row["sides"] if name != ours))
