"""The tables, goals and remarks of a run."""

from __future__ import annotations

import pytest

from minires.bench import networks, report
from minires.bench.networks import Workload, workloads
from minires.bench.peers import CAPTURED, CHANNELS_LAST, COMPILED, TORCH, TUNED


def side(seconds, peak=2**30, gradient=0.0, rounds=3):
    differences = {"loss": 0.0, "gradient": gradient}
    found = {"seconds": seconds, "gflops": 50 / seconds, "rounds": rounds, "peak_bytes": peak, "out_of_turn": 0.001}
    return found | {"difference": differences}


OTHER = {"network": "resnet18", "task": "inference", "batch": 1, "judge": TORCH, "disagree": []}


@pytest.fixture
def found():
    training = {
        "native": side(1.0),
        "reference": side(3.0),
        TORCH: side(2.5, 2**31),
        CHANNELS_LAST: side(2.0, 2**31),
        TUNED: side(1.25, 2**31, rounds=5),
    }
    layer = {"native": side(0.01), TORCH: side(0.04)}
    return {
        "backend": "native",
        "machine": {"threads": 2},
        "left_out": {"onnxruntime": "onnxruntime is not installed (extra bench)"},
        "limits": {
            "peak_gflops": 100.0,
            "bandwidth_gbs": 30.0,
            "gemm_gflops": {"numpy": 90.0, "native": 100.0},
            "add_gbs": {"numpy": 30.0, "native": 29.0},
        },
        "networks": [
            {"network": "resnet50", "task": "training", "batch": 16, "judge": TORCH, "sides": training, "disagree": []}
        ],
        "layers": [
            {"convolution": "c", "direction": "forward", "judge": TORCH, "sides": layer, "disagree": ["native"]}
        ],
        "minutes": 1.0,
        "others": 0.25,
    }


def test_goals_compare_times_of_the_same_run(found):
    goals = {(g["side"], g["measure"], g["against"]): (g["ratio"], g["goal"], g["met"]) for g in report.goals(found)}
    assert goals == {
        ("native", "time", CHANNELS_LAST): (0.5, 0.65, True),
        ("native", "time", TUNED): (0.8, 0.95, True),
        ("reference", "time", CHANNELS_LAST): (1.5, 1.4, False),
        ("native", "peak memory", CHANNELS_LAST): (0.5, 1.0, True),
    }
    assert report.goals(found)[-1]["workload"] == "all, worst resnet50 training 16"
    head, lines = report.goal_table(found | {"goals": report.goals(found)})
    assert len(head) == len(lines[0])
    assert lines[2] == ["resnet50 training 16", "reference", "time", CHANNELS_LAST, "1.50", "≤ 1.40", "missed"]


def test_a_goal_without_its_peer_is_left_out(found):
    del found["networks"][0]["sides"][CHANNELS_LAST]
    assert [goal["against"] for goal in report.goals(found)] == [TUNED]


@pytest.mark.parametrize(("onnxruntime", "openvino", "against"), [(2.0, 1.6, "openvino"), (1.6, 2.0, "onnxruntime")])
def test_a_goal_may_compare_with_the_faster_of_two_peers(found, onnxruntime, openvino, against):
    sides = {CAPTURED: side(1.2), "onnxruntime": side(onnxruntime), "openvino": side(openvino)}
    found["networks"] = [{"network": "resnet20", "task": "inference", "batch": 8, "judge": CAPTURED, "sides": sides}]
    (goal,) = report.goals(found)
    compared = {"workload": "resnet20 inference 8", "side": CAPTURED, "measure": "time", "against": against}
    assert goal == compared | {"ratio": pytest.approx(0.75), "goal": 1.0, "met": True}
    del sides["openvino"]
    assert report.goals(found) == []  # the faster of one is not a comparison with both


def test_goals_of_captures():
    goals = {(g.network, g.task, g.batch): (g.limit, g.against) for g in report.GOALS if g.side == CAPTURED}
    assert goals.pop(("resnet20", "training", 1)) == (0.9, (CHANNELS_LAST,))
    assert sorted(goals) == [
        (network, "inference", batch)
        for network in ("resnet18", "resnet20", "resnet50", "resnet56")
        for batch in (1, 8, 32)
    ]
    assert set(goals.values()) == {(1.0, ("onnxruntime", "openvino"))}


def test_networks_in_a_table(found):
    head, (line,) = report.network_table(found)
    assert dict(zip(head, line, strict=True)) == {
        "network": "resnet50",
        "task": "training",
        "batch": "16",
        "native": "1.00 s",
        "of the peak": "50 %",
        "reference": "3.00 s (0.33)",
        TORCH: "2.50 s (0.40)",
        CHANNELS_LAST: "2.00 s (0.50)",
        TUNED: "1.25 s (0.80)",
        "peak memory": "1024 MiB",
        "PyTorch's": "2048 MiB, 2048 MiB",
    }


def test_layers_in_a_table(found):
    head, (line,) = report.layer_table(found)
    assert len(head) == len(line)
    assert line == ["c", "forward", "10.0 ms", "5000", "5000 %", "1250, 1250 % (0.25)"]


def test_remarks(found):
    remarks = "\n".join(report.remarks(found))
    measured = ("100 GFLOP/s", "30 GB/s", "medians of 3 to 5 rounds", "1.0 minutes", "at most 0.1 %")
    for words in (*measured, "other programs took: 25 %", "left out: onnxruntime: onnxruntime is not installed"):
        assert words in remarks
    assert "were not compared" not in remarks
    assert report.disagreements(found) == [f"c, forward: native and {TORCH}"]


def test_a_peer_that_misses_a_workload_leaves_its_cell_empty(found):
    found["networks"].append(OTHER | {"sides": found["networks"][0]["sides"] | {"onnxruntime": side(0.5)}})
    head, lines = report.network_table(found)
    at = head.index("onnxruntime")
    assert [line[at] for line in lines] == ["", "500 ms (2.00)"]
    assert {len(line) for line in lines} == {len(head)}


def test_a_side_that_the_fullest_row_lacks_has_its_column(found):
    peers = {"onnxruntime": side(0.5), "openvino": side(0.4)}
    found["networks"].insert(0, OTHER | {"sides": found["networks"][0]["sides"] | peers})
    found["networks"][1]["sides"] = found["networks"][1]["sides"] | {COMPILED: side(0.8)}
    head, lines = report.network_table(found)
    assert [line[head.index(COMPILED)] for line in lines] == ["", "800 ms (1.25)"]


def test_the_table_has_the_peak_memory_of_the_capture_too(found):
    found["networks"][0]["sides"][CAPTURED] = side(0.9, peak=2**29)
    head, (line,) = report.network_table(found)
    assert line[head.index("peak memory")] == "1024 MiB, 512 MiB"


@pytest.mark.parametrize(
    ("value", "text"), [(12.345, "12.35 s"), (0.1234, "123 ms"), (0.01234, "12.3 ms"), (0.001234, "1.23 ms")]
)
def test_seconds_in_three_digits(value, text):
    assert report.seconds(value) == text


def test_markdown():
    assert report.markdown((["a", "b"], [["1", "2"]])) == "| a | b |\n| --- | --- |\n| 1 | 2 |"


@pytest.mark.parametrize(
    ("gradient", "of_torch", "wrong"),
    [(0.01, 0.0, False), (0.05, 0.0, True), (0.05, 0.04, False), (0.3, 0.4, True), (float("inf"), 0.4, True)],
)
def test_a_gradient_may_differ_as_far_as_rounding_explains(gradient, of_torch, wrong):
    rows = {"native": side(1, gradient=gradient), CHANNELS_LAST: side(1, gradient=of_torch)}
    assert ("native" in networks.disagreeing(rows)) is wrong


def test_workloads():
    usual = ("inference 1", "inference 8", "inference 32", "training 1", "training 16")
    assert [str(work) for work in workloads("resnet50")] == [f"resnet50 {words}" for words in usual]
    assert [str(work) for work in workloads("resnet20", quick=True)] == ["resnet20 inference 8", "resnet20 training 16"]
    assert workloads("resnet20")[-1] == Workload("resnet20", "training", 128)
    assert [str(work) for work in workloads("resnet20", 2)] == ["resnet20 inference 2", "resnet20 training 2"]
    assert Workload("resnet20", "inference", 3).operations() == 2 * 3 * 40_551_040
    assert Workload("resnet20", "training", 1).operations() > 5 * 40_551_040
