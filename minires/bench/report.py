"""What a run found, as tables and sentences.  In brackets beside another side's time: ours divided by theirs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from minires.bench.sides import CAPTURED, CHANNELS_LAST, TORCH, TUNED

Table = tuple[Sequence[str], Sequence[Sequence[str]]]  # head, lines

# Heads of columns of words; all other columns hold numbers.
WORDS = ("network", "task", "convolution", "computed", "workload", "side", "measure", "divided by that of", "")


@dataclass(frozen=True)
class Goal:
    """At most `limit` times the time of the fastest side of `against`, in the same run."""

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
    """The goals of which all sides were measured, with the ratio and whether it is met; last that of memory."""
    rows = {(row["network"], row["task"], row["batch"]): row["sides"] for row in found["networks"]}
    told = []
    for goal in GOALS:
        sides = rows.get((goal.network, goal.task, goal.batch), {})
        if sides.keys() >= {goal.side, *goal.against}:
            best = min(goal.against, key=lambda name: sides[name]["seconds"])
            ratio = sides[goal.side]["seconds"] / sides[best]["seconds"]
            workload = f"{goal.network} {goal.task} {goal.batch}"
            told.append(_goal(workload, goal.side, "time", best, ratio, goal.limit))
    ratios = {
        str_of(row): row["sides"]["native"]["peak_bytes"] / row["sides"][CHANNELS_LAST]["peak_bytes"]
        for row in found["networks"]
        if {"native", CHANNELS_LAST} <= set(row["sides"])
    }
    if ratios:
        worst = max(ratios, key=lambda workload: ratios[workload])
        told.append(_goal(f"all, worst {worst}", "native", "peak memory", CHANNELS_LAST, ratios[worst], 1.0))
    return told


def _goal(workload: str, side: str, measure: str, against: str, ratio: float, limit: float) -> dict[str, Any]:
    told = {"workload": workload, "side": side, "measure": measure, "against": against}
    return {**told, "ratio": ratio, "goal": limit, "met": ratio <= limit}


def str_of(row: dict[str, Any]) -> str:
    return f"{row['network']} {row['task']} {row['batch']}"


def goal_table(found: dict[str, Any]) -> Table:
    head = ["workload", "side", "measure", "divided by that of", "ratio", "goal", ""]
    return head, [
        [
            goal["workload"],
            goal["side"],
            goal["measure"],
            goal["against"],
            f"{goal['ratio']:.2f}",
            f"≤ {goal['goal']:.2f}",
            "met" if goal["met"] else "missed",
        ]
        for goal in found["goals"]
    ]


def network_table(found: dict[str, Any]) -> Table:
    ours, names = found["backend"], _sides(found["networks"])
    peak = found["limits"]["peak_gflops"]
    others = [name for name in names if name != ours]
    head = ["network", "task", "batch", ours, "of the peak", *others, "peak memory", "PyTorch's"]
    lines = []
    for row in found["networks"]:
        sides = row["sides"]
        lines.append(
            [
                row["network"],
                row["task"],
                str(row["batch"]),
                seconds(sides[ours]["seconds"]),
                percent(sides[ours]["gflops"] / peak),
                *(_beside(sides.get(name), sides[ours]) for name in others),
                ", ".join(mebibytes(sides[name]) for name in (ours, CAPTURED) if name in sides),
                ", ".join(mebibytes(sides[name]) for name in (TORCH, CHANNELS_LAST) if name in sides),
            ]
        )
    return head, lines


def layer_table(found: dict[str, Any]) -> Table:
    """Rates: GFLOP/s and the share of the peak; in brackets: our time divided by theirs."""
    ours, names = found["backend"], _sides(found["layers"])
    peak = found["limits"]["peak_gflops"]
    others = [name for name in names if name != ours]
    head = ["convolution", "computed", ours, "GFLOP/s", "of the peak", *(f"{name}, GFLOP/s" for name in others)]
    lines = []
    for row in found["layers"]:
        own = row["sides"][ours]
        lines.append(
            [
                row["convolution"],
                row["direction"],
                seconds(own["seconds"]),
                f"{own['gflops']:.0f}",
                percent(own["gflops"] / peak),
            ]
        )
        for name in others:
            side = row["sides"][name]
            ratio = own["seconds"] / side["seconds"]
            lines[-1].append(f"{side['gflops']:.0f}, {percent(side['gflops'] / peak)} ({ratio:.2f})")
    return head, lines


def limits_line(found: dict[str, Any]) -> str:
    limits = found["limits"]

    def each(values: dict[str, float]) -> str:
        return ", ".join(f"{name} {value:.0f}" for name, value in values.items())

    return (
        f"the processor's peak: {limits['peak_gflops']:.0f} GFLOP/s (product of 2048×2048 matrices in float32: "
        f"{each(limits['gemm_gflops'])}); memory: {limits['bandwidth_gbs']:.0f} GB/s (adding two arrays of 128 MiB: "
        f"{each(limits['add_gbs'])})"
    )


def remarks(found: dict[str, Any]) -> list[str]:
    """What else a reader of the tables should know, a sentence each."""
    told = [limits_line(found)]
    rows = found["networks"] + found["layers"]
    if rows:
        told.append(f"medians of {rounds(found)} rounds; all of it took {found['minutes']:.1f} minutes")
        alone = any(len(row["sides"]) == 1 for row in rows)
        told += ["where nobody else took part, no results could be compared"] if alone else []
    if found["networks"]:
        worst = max(side["out_of_turn"] for row in found["networks"] for side in row["sides"].values())
        told.append(f"processor time that a side took during another's turn: at most {100 * worst:.1f} %")
    if found["others"] is not None:
        told.append(f"processor time that other programs took: {100 * found['others']:.0f} %")
    return told + [f"left out: {peer}: {reason}" for peer, reason in found["left_out"].items()]


def rounds(found: dict[str, Any]) -> str:
    """How many counted, over all rows: "3 to 9"."""
    counts = {side["rounds"] for row in found["networks"] + found["layers"] for side in row["sides"].values()}
    return " to ".join(map(str, sorted({min(counts), max(counts)})))


def disagreements(found: dict[str, Any]) -> list[str]:
    told = [f"{str_of(row)}: {name} and {row['judge']}" for row in found["networks"] for name in row["disagree"]]
    return told + [
        f"{row['convolution']}, {row['direction']}: {name} and {row['judge']}"
        for row in found["layers"]
        for name in row["disagree"]
    ]


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


def mebibytes(side: dict[str, Any]) -> str:
    return f"{side['peak_bytes'] / 2**20:.0f} MiB"


def _sides(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Every side of any row, in the order in which they took part."""
    most_first = sorted(rows, key=lambda row: -len(row["sides"]))
    return list(dict.fromkeys(name for row in most_first for name in row["sides"]))


def _beside(side: dict[str, Any] | None, own: dict[str, Any]) -> str:
    return "" if side is None else f"{seconds(side['seconds'])} ({own['seconds'] / side['seconds']:.2f})"
