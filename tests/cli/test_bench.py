"""`minires bench`: wrong usage, output, files, and messages about missing peers."""

from __future__ import annotations

import argparse
import importlib.util
import json
from functools import partial

import pytest
from usage import error_line

from minires import backends
from minires.bench import networks, peers, race, roofline, run
from minires.bench.peers import CHANNELS_LAST
from minires.bench.race import Contender
from minires.cli import bench, main

TINY = ["networks", "--network", "resnet20", "--batch-size", "2", "--rounds", "1"]
OURS = ["--backend", "reference" if backends.available()["native"] else "native"]


@pytest.fixture
def call(capsys):
    def call(*words):
        code = main(["bench", *map(str, words)])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return call


@pytest.fixture(autouse=True)
def fast(monkeypatch):
    """Short turns, and limits that are not measured."""
    monkeypatch.setattr(race, "TURN", 0.01)
    monkeypatch.setattr(race, "WARM_UP", 1)
    limits = {"peak_gflops": 100.0, "bandwidth_gbs": 10.0, "gemm_gflops": {"numpy": 100.0}, "add_gbs": {"numpy": 10.0}}
    monkeypatch.setattr(roofline, "measure", lambda *_, **__: limits)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["layer"], ["WHAT must be one of 'layers', 'networks', 'all'; got 'layer'", "Did you mean 'layers'?"]),
        (["networks", "resnet20"], ["'resnet20'"]),
        (["--network", "resnet21"], ["'resnet21'", "Did you mean"]),
        (["--network", "resnet20,"], ["''"]),
        (["--peers", "pytorch"], ["--peers", "'pytorch'", "Did you mean 'torch'?"]),
        (["--peers", "torch,none"], ["--peers", "'none'"]),
        (["--batch-size", "0"], ["--batch-size must be at least 1"]),
        (["--rounds", "0"], ["--rounds must be at least 1"]),
        (["--rounds", "many"], ["--rounds", "'many'"]),
        (["--threads", "0"], ["--threads must be at least 1"]),
        (["--minutes", "0"], ["--minutes must be above 0"]),
        (["--minutes", "nan"], ["--minutes must be above 0"]),
        (["--backend", "cuda"], ["--backend must be native or reference", "'cuda'"]),
        (["--quik"], ["--quik", "Did you mean '--quick'?"]),
        (["--out", "/dev/null/x"], ["--out", "/dev/null/x"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_wrong_usage_is_one_line_and_exit_2(call, words, expected):
    code, out, err = call(*words)
    assert (code, out) == (2, "")
    line = error_line(err)
    for word in expected:
        assert word in line


@pytest.mark.parametrize(
    ("words", "compiled"), [([], True), (["--quick"], False), (["--quick", "--peers", "torch.compile"], True)]
)
def test_a_quick_run_compiles_only_if_asked(words, compiled):
    parser = argparse.ArgumentParser()
    bench.add_flags(parser)
    assert ("torch.compile" in bench.plan_of(parser.parse_args(words)).peers) is compiled


def test_missing_native_backend_is_exit_3(call, monkeypatch):
    def unavailable(name, **options):
        raise backends.BackendUnavailable("backend 'native' is not part of this installation")

    monkeypatch.setattr(backends, "backend", unavailable)
    code, out, err = call(*TINY, "--peers", "none")
    assert (code, out) == (3, "")
    assert "native" in err


def test_without_peers(call, tmp_path):
    code, out, err = call(*TINY, *OURS, "--peers", "none", "--threads", 1, "--out", tmp_path / "out")
    assert code == 0
    for words in ("resnet20", "inference", "training", "threads 1", ", plain", "medians of 1 "):
        assert words in out
    assert "resnet20 training 2" in err
    assert out.splitlines()[-2:] == [str(tmp_path / "out" / name) for name in ("bench.json", "bench.md")]
    page = (tmp_path / "out" / "bench.md").read_text()
    assert page.count("\n| resnet20 | ") == 2
    assert "goals" not in page


def test_json_is_the_only_output_on_stdout(call):
    code, out, _ = call(*TINY, *OURS, "--peers", "reference", "--json")
    content = json.loads(out)
    assert code == 0
    assert content["machine"]["threads"] == backends.get_num_threads()
    assert content["layers"] == content["goals"] == []
    assert content["others"] is None or 0 <= content["others"] <= 1
    inference, training = content["networks"]
    assert (inference["task"], training["task"]) == ("inference", "training")
    assert "reference" in inference["sides"]
    assert any(name.endswith(", plain") for name in inference["sides"])
    for row in content["networks"]:
        assert row["disagree"] == []
        for side in row["sides"].values():
            assert side["rounds"] == 1
            assert side["gflops"] == pytest.approx(row["operations"] / side["seconds"] / 1e9)
            assert side["peak_bytes"] > 2**20


def test_layers(call):
    code, out, _ = call("layers", *TINY[1:], *OURS, "--peers", "none", "--json")
    content = json.loads(out)
    assert code == 0
    assert content["networks"] == []
    assert len(content["layers"]) == 3 * 6
    assert {row["direction"] for row in content["layers"]} == {"forward", "data gradient", "weight gradient"}
    assert {row["batch"] for row in content["layers"]} == {2}


def test_pytorch_as_peer(call):
    pytest.importorskip("torch")
    code, out, _ = call(*TINY, *OURS, "--peers", "torch", "--json")
    stderr_before = json.loads(out)
    assert code == 0
    assert "torch" in stderr_before["machine"]
    for row in stderr_before["networks"]:
        assert row["judge"] == "torch"
        assert CHANNELS_LAST in row["sides"]
        assert all(value < 0.05 for value in row["sides"][OURS[1]]["difference"].values())


def test_missing_peers_are_reported_and_left_out(call, monkeypatch, capsys):
    real = importlib.util.find_spec
    gone = ("torch", "onnx", "onnxruntime", "openvino")
    monkeypatch.setattr(peers.importlib.util, "find_spec", lambda name: None if name in gone else real(name))
    real_run = run.run

    def measured(chosen, say):
        printed.append(capsys.readouterr().err)  # before anything is measured
        return real_run(chosen, say)

    printed = []
    monkeypatch.setattr(bench, "measure", measured)
    code, out, _ = call(*TINY, *OURS, "--peers", "torch,torch.compile,onnxruntime,openvino")
    assert code == 0
    install = "(extra bench); to add it: pip install 'minires[bench]'"
    assert printed[0].splitlines() == [
        f"without torch: torch is not installed {install}",
        f"without torch.compile: torch is not installed {install}",
        f"without onnxruntime: onnx and onnxruntime are not installed {install}",
        f"without openvino: onnx and openvino are not installed {install}",
        "this takes up to 10 minutes (--minutes), or longer: every measurement takes at least one round",
    ]
    assert "left out: torch: torch is not installed (extra bench)" in out
    assert "left out: onnxruntime: onnx and onnxruntime are not installed (extra bench)" in out


def test_a_contender_that_cannot_run_is_reported(call, monkeypatch):
    whole = networks.contenders
    absent = Contender("torch compiled", partial(_absent, "no C++ compiler"))
    monkeypatch.setattr(networks, "contenders", lambda *given: [*whole(*given), absent])
    code, out, err = call(*TINY, *OURS, "--peers", "none")
    assert code == 0
    assert "left out: torch compiled: no C++ compiler" in out
    assert "Traceback" not in out + err


def _absent(reason):
    raise race.CannotTakePart(reason)


def test_results_that_disagree_are_exit_1(call, monkeypatch):
    def found(chosen, say):
        row = {"network": "resnet20", "task": "training", "batch": 2, "judge": "torch", "disagree": ["native"]}
        limits = roofline.measure()
        return {"networks": [row], "layers": [], "machine": {}, "limits": limits, "left_out": {}}

    monkeypatch.setattr(bench, "measure", found)
    code, _, err = call(*TINY, "--json")
    assert code == 1
    assert "resnet20 training 2: native and torch disagree" in err
