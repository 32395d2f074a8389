"""A kernel in a debugger and under the sanitizers: the session of csrc/README.md, and faults to be reported."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from minires import cli
from minires.backends.kernels import own_build
from minires.kernels import step

CSRC = Path(__file__).parents[2] / "csrc"

pytestmark = [
    pytest.mark.slow,  # a compilation each
    pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed"),
]


def run(monkeypatch, kernel, *flags, cuda=CSRC / "cuda"):
    """The program of `minires kernels step`, with more flags; the scheduler is never instrumented for threads."""
    for module in (step, own_build):
        monkeypatch.setattr(module, "sources", lambda: cuda)
    scheduler = ["-DMINIRES_THREAD_SANITIZER"] if "-fsanitize=thread" in flags else list(flags)
    scheduler = [flag for flag in scheduler if flag.startswith(("-fsanitize=", "-DMINIRES"))]
    chosen = step.step(kernel, None, {})
    program = chosen.program([*step.FLAGS, *flags], [*step.FLAGS, *scheduler])
    environment = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0"}
    command = chosen.command(program)
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)


def with_fault(folder, file, old, new):
    """A copy of csrc/cuda in which `old`, which stands once in `file`, has become `new`; and the number of its line."""
    cuda = folder / "cuda"
    shutil.copytree(CSRC / "cuda", cuda)
    source = (cuda / file).read_text(encoding="utf-8")
    assert source.count(old) == 1
    (cuda / file).write_text(source.replace(old, new), encoding="utf-8")
    return cuda, source[: source.index(old)].count("\n") + 1


def debugged(*words):
    """What `minires kernels step` prints, without a prompt."""
    if shutil.which("gdb") is None:
        pytest.skip("gdb is not installed")
    command = [sys.executable, "-m", "minires", "kernels", "step", *words]
    result = subprocess.run(command, cwd=CSRC.parent, capture_output=True, text=True, timeout=120, check=False)
    if "Operation not permitted" in result.stderr:
        pytest.skip("this machine does not let a debugger trace")
    return result


def test_the_debugger_session_of_the_readme():
    readme = (CSRC / "README.md").read_text(encoding="utf-8")
    (command,) = re.findall(r"<!-- step -->\n```sh\nminires kernels step (.*)\n```", readme)
    session = debugged(*shlex.split(command)).stdout
    assert "Breakpoint 1, gemm_04_registers (" in session
    assert "$1 = {x = 37, y = 0, z = 0}" in session
    row = 37 // 16 * 8  # of C, the first of this thread's
    tile = ", ".join(f"{value:g}" for value in step._pattern(0, 150, 40)[row, :8])  # A[row][0..7], see step.cpp
    assert f"$2 = {{{tile}}}" in session
    assert "sum[i][j] += a[i] * b[j];" in session
    assert "#0  gemm_04_registers (" in session


@pytest.mark.parametrize("words", [("gemm_08_split_k",), ("conv_04_implicit",), ("conv_02_im2col",)])
def test_a_rung_stops_where_it_begins(words):
    session = debugged(*words, "--batch").stdout
    assert f"Breakpoint 1, {words[0]} (" in session
    assert "$1 = {x = 0, y = 0, z = 0}" in session


def test_an_own_kernel_stops_at_a_line_of_its_file():
    readme = (CSRC / "README.md").read_text(encoding="utf-8")
    (command,) = re.findall(r"<!-- own-step -->\n```sh\nminires kernels step (.*)\n```", readme)
    session = debugged(*shlex.split(command)).stdout
    assert re.search(r"Breakpoint 1, mine \(.*M=33, N=20, K=5\) at .*own_kernel\.cu:11", session)
    assert "$1 = {0, -3, 2, 3, -3, 0 <repeats 11 times>}" in session  # row 1 of A, see step.cpp
    assert "$2 = 0\n" in session


@pytest.mark.parametrize("shape", [(40, 70), (5, 20), (33, 5), (64, 128)])
def test_no_two_rows_or_columns_of_the_operands_are_equal(shape):
    """Else a kernel that reads a wrong row could be right."""
    for k in (0, 1):
        operand = step._pattern(k, *shape)
        assert all(np.unique(operand, axis=axis).shape == shape for axis in (0, 1))
        assert set(operand.ravel()) == set(range(-3, 4))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["gemm_04_register"], "kernel must be one of 'gemm_01_naive', .* Did you mean 'gemm_04_registers'"),
        (["mine.cu"], "--as must be one of 'gemm', 'conv2d'; got None"),
        (["mine.cu", "--as", "gemm"], "mine.cu: the kernel cannot be read"),
        (["gemm_04_registers", "--size", "Q=3"], "--size must be one of 'M', 'N', 'K'; got 'Q'"),
        (["gemm_04_registers", "--size", "M=0"], "M must be at least 1, got 0"),
        (["gemm_04_registers", "--size", "M"], "--size must be sizes such as M=150"),
        (["gemm_04_registers", "--thread", "x"], "--thread must be one to three indices"),
        (["gemm_04_registers", "--break", "9999"], "--break must be a line from 1 to "),
        (["gemm_04_registers", "--break", "for ("], "--break must be .* got 'for \\(', which \\d+ lines contain"),
        (["gemm_04_registers", "--thread", "300"], "--thread must lie in the block, which is 256; got 300"),
        (["gemm_03_shared", "--thread", "2,99"], "--thread must lie in the block, which is 32,32; got 2,99"),
        (["conv_08_winograd"], "conv_08_winograd needs a 3×3 kernel with stride 1"),
    ],
)
def test_wrong_usage_of_step(capsys, words, message):
    assert cli.main(["kernels", "step", *words]) == 2
    assert re.match(f"error: {message}", capsys.readouterr().err)


def test_without_gdb(monkeypatch, capsys):
    monkeypatch.setattr(step.shutil, "which", lambda name: None if name == "gdb" else name)
    assert cli.main(["kernels", "step", "gemm_01_naive"]) == 3
    assert "gdb is not installed" in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["-fsanitize=address,undefined", "-fsanitize=thread"])
@pytest.mark.parametrize("kernel", ["gemm_03_shared", "gemm_06_async"])
def test_sound_kernels_are_not_reported(monkeypatch, kernel, flag):
    result = run(monkeypatch, kernel, flag, "-fsanitize-sections=cuda_shared", "-O1")
    assert (result.returncode, result.stdout, result.stderr) == (0, "right\n", "")


def test_the_switch_of_other_processors(monkeypatch):
    """Through ucontext, as on anything but x86-64."""
    result = run(monkeypatch, "gemm_06_async", "-DMINIRES_UCONTEXT")
    assert (result.returncode, result.stdout, result.stderr) == (0, "right\n", "")


def test_a_read_beyond_shared_memory(monkeypatch, tmp_path):
    cuda, line = with_fault(tmp_path, "gemm_03_shared.cu", "tile_b[k][column];", "tile_b[k + 1][column + 1];")
    flags = ["-fsanitize=address", "-fsanitize-sections=cuda_shared", "-O1"]
    result = run(monkeypatch, "gemm_03_shared", *flags, cuda=cuda)
    assert result.returncode != 0
    assert "global-buffer-overflow" in result.stderr
    assert f"gemm_03_shared.cu:{line}" in result.stderr


@pytest.mark.parametrize("comment", ["// the tiles are complete", "// all threads have read them"])
def test_a_deleted_barrier(monkeypatch, tmp_path, comment):
    cuda, _ = with_fault(tmp_path, "gemm_03_shared.cu", f"__syncthreads();  {comment}", "")
    result = run(monkeypatch, "gemm_03_shared", "-fsanitize=thread", "-O1", cuda=cuda)
    assert result.returncode != 0
    assert "WARNING: ThreadSanitizer: data race" in result.stderr
    assert re.search(r"gemm_03_shared\.cu:\d+", result.stderr)


def test_a_barrier_that_not_every_thread_reaches(monkeypatch, tmp_path):
    old = "__syncthreads();  // the tiles are complete"
    cuda, line = with_fault(tmp_path, "gemm_03_shared.cu", old, f"if (row != 5) {old}")
    result = run(monkeypatch, "gemm_03_shared", cuda=cuda)
    assert result.returncode == 2
    assert "divergent barrier" in result.stderr
    assert f"gemm_03_shared.cu:{line}" in result.stderr


def test_a_missing_wait(monkeypatch, tmp_path):
    """Without the wait nothing is ever copied: the products are poison, and the kernel ends with copies under way."""
    cuda, _ = with_fault(tmp_path, "tile.cuh", "cp_async_wait(0);", "")
    result = run(monkeypatch, "gemm_06_async", cuda=cuda)
    assert result.returncode == 2
    assert re.search(r"the cp\.async at \S+\.cuh:\d+ was never waited for by thread \(\d+, 0, 0\)", result.stderr)
