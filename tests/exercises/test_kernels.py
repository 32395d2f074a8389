"""Exercises in CUDA: the verdict on what `minires kernels check` finds, and whole checks where it is installed."""

from __future__ import annotations

import json
import shutil

import pytest

from minires import backends
from minires.cli import main
from minires.exercises.kernels import KERNELS, LOADS, check_kernel, judged

TILE = KERNELS["gemm_tile"]
NEEDS_COMPILER = pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed")


def fields(*kinds, loads=4096):
    findings = [{"kind": kind, "line": 7, "message": f"a {kind} there"} for kind in kinds]
    passed = set(kinds) <= {"uncoalesced", "bank-conflict"}
    return {"passed": passed, "findings": findings, "profile": {"total": {LOADS: loads}} if passed else None}


@pytest.mark.parametrize(
    ("found", "verdict", "misconception"),
    [
        (fields(), "passed", None),
        (fields("uncoalesced"), "passed", None),
        (fields(loads=65536), "wrong", "tile not used"),
        (fields("race", "uninitialised", "wrong-result"), "wrong", "barrier missing"),
        (fields("race", "out-of-bounds"), "wrong", "index outside of an array"),
        (fields("unwritten"), "wrong", "elements not written"),
        (fields("wrong-result"), "wrong", None),
    ],
)
def test_verdicts(found, verdict, misconception):
    result = judged(TILE, found)
    assert (result.verdict, result.misconception, result.passed) == (verdict, misconception, verdict == "passed")
    for one in found["findings"]:
        assert f"line {one['line']}: {one['message']}" in result.message
    assert ("question" in result.details) == (verdict == "wrong")


def test_start_and_solution(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, exercise in KERNELS.items():
        assert main(["exercise", name, "--start", "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == {"files": [f"{name}.cu"]}
        text = (tmp_path / f"{name}.cu").read_text()
        assert text.startswith("// launch: block=(")
        assert f'extern "C" __global__ void {exercise.kind}({exercise.parameters}) {{' in text
        assert main(["exercise", name, "--solution"]) == 0
        assert capsys.readouterr().out.startswith(exercise.solution)
    assert main(["exercise", "gemm_tile", "--grade-tests", "true"]) == 2


def test_a_missing_compiler_is_reported(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "a.cu").write_text(TILE.solution)
    with pytest.raises(backends.BackendUnavailable, match="apt install g\\+\\+"):
        check_kernel("gemm_tile", tmp_path / "a.cu")


@NEEDS_COMPILER
@pytest.mark.parametrize("name", KERNELS)
def test_solutions_pass(tmp_path, name):
    file = tmp_path / f"{name}.cu"
    file.write_text(KERNELS[name].solution)
    result = check_kernel(name, file, 300)
    assert result.passed, result


@NEEDS_COMPILER
@pytest.mark.parametrize(
    ("name", "old", "new", "misconception"),
    [
        ("gemm_tile", "        __syncthreads();  // the tiles are complete\n", "", "barrier missing"),
        ("gemm_naive", "    if (m >= M || n >= N) return;\n", "", "index outside of an array"),
        ("conv_direct", "pixel / OW * stride - padding", "pixel / OW * stride", None),
    ],
)
def test_mistakes_are_named(tmp_path, name, old, new, misconception):
    file = tmp_path / f"{name}.cu"
    assert old in KERNELS[name].solution
    file.write_text(KERNELS[name].solution.replace(old, new))
    result = check_kernel(name, file, 300)
    assert (result.verdict, result.misconception) == ("wrong", misconception), result
