"""A kernel in a debugger and under the sanitizers: the session of csrc/README.md, and faults to be reported."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

CSRC = Path(__file__).parents[2] / "csrc"

pytestmark = [
    pytest.mark.slow,  # a compilation each
    pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed"),
]

GEMM_03 = ["-DTILE_OF_BLOCK=32", "-DBLOCK={32,32,1}"]


def build(folder, kernel, *flags, cuda=CSRC / "cuda"):
    """csrc/emulation/step.cpp for one kernel; the scheduler itself is never instrumented for threads."""
    emulation = CSRC / "emulation"
    common = ["g++", "-std=c++17", "-g", "-Wno-unknown-pragmas", f"-I{emulation}", f"-I{cuda}"]
    scheduler = ["-DMINIRES_THREAD_SANITIZER"] if "-fsanitize=thread" in flags else list(flags)
    scheduler = [flag for flag in scheduler if flag.startswith(("-fsanitize=", "-DMINIRES"))]
    objects = []
    for name in ("launch", "fiber"):
        objects.append(folder / f"{name}.o")
        subprocess.run([*common, *scheduler, "-c", emulation / f"{name}.cpp", "-o", objects[-1]], check=True)
    kernel_flags = [f'-DKERNEL_FILE="{kernel}.cu"', f"-DKERNEL_NAME={kernel}"]
    program = folder / "step"
    subprocess.run([*common, *flags, *kernel_flags, emulation / "step.cpp", *objects, "-o", program], check=True)
    return program


def run(program):
    environment = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0"}
    return subprocess.run([program], capture_output=True, text=True, env=environment, timeout=120)


def with_fault(folder, file, old, new):
    """A copy of csrc/cuda in which `old`, which stands once in `file`, has become `new`; and the number of its line."""
    cuda = folder / "cuda"
    shutil.copytree(CSRC / "cuda", cuda)
    source = (cuda / file).read_text(encoding="utf-8")
    assert source.count(old) == 1
    (cuda / file).write_text(source.replace(old, new), encoding="utf-8")
    return cuda, source[: source.index(old)].count("\n") + 1


def test_the_debugger_session_of_the_readme(tmp_path):
    if shutil.which("gdb") is None:
        pytest.skip("gdb is not installed")
    readme = (CSRC / "README.md").read_text(encoding="utf-8")
    (commands,) = re.findall(r"<!-- step -->\n```sh\n(.*?)^```", readme, flags=re.M | re.S)
    (tmp_path / "csrc").symlink_to(CSRC)
    result = subprocess.run(
        ["bash", "-eu", "-c", commands], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    if "Operation not permitted" in result.stderr:
        pytest.skip("this machine does not let a debugger trace")
    session = result.stdout
    assert "Breakpoint 1, gemm_04_registers (" in session
    assert "$1 = {x = 37, y = 0, z = 0}" in session
    row = 37 // 16 * 8  # of C, the first of this thread's
    tile = ", ".join(str((row * 40 + k) % 7 - 3) for k in range(8))  # A[row][0..7], see step.cpp
    assert f"$2 = {{{tile}}}" in session
    assert "sum[i][j] += a[i] * b[j];" in session
    assert "#0  gemm_04_registers (" in session


@pytest.mark.parametrize("flag", ["-fsanitize=address,undefined", "-fsanitize=thread"])
@pytest.mark.parametrize(("kernel", "flags"), [("gemm_03_shared", GEMM_03), ("gemm_06_async", [])])
def test_sound_kernels_are_not_reported(tmp_path, kernel, flags, flag):
    result = run(build(tmp_path, kernel, flag, "-fsanitize-sections=cuda_shared", "-O1", *flags))
    assert (result.returncode, result.stdout, result.stderr) == (0, "right\n", "")


def test_the_switch_of_other_processors(tmp_path):
    """Through ucontext, as on anything but x86-64."""
    result = run(build(tmp_path, "gemm_06_async", "-DMINIRES_UCONTEXT"))
    assert (result.returncode, result.stdout, result.stderr) == (0, "right\n", "")


def test_a_read_beyond_shared_memory(tmp_path):
    cuda, line = with_fault(tmp_path, "gemm_03_shared.cu", "tile_b[k][column];", "tile_b[k + 1][column + 1];")
    flags = ["-fsanitize=address", "-fsanitize-sections=cuda_shared", "-O1", *GEMM_03]
    result = run(build(tmp_path, "gemm_03_shared", *flags, cuda=cuda))
    assert result.returncode != 0
    assert "global-buffer-overflow" in result.stderr
    assert f"gemm_03_shared.cu:{line}" in result.stderr


@pytest.mark.parametrize("comment", ["// the tiles are complete", "// all threads have read them"])
def test_a_deleted_barrier(tmp_path, comment):
    cuda, _ = with_fault(tmp_path, "gemm_03_shared.cu", f"__syncthreads();  {comment}", "")
    result = run(build(tmp_path, "gemm_03_shared", "-fsanitize=thread", "-O1", *GEMM_03, cuda=cuda))
    assert result.returncode != 0
    assert "WARNING: ThreadSanitizer: data race" in result.stderr
    assert re.search(r"gemm_03_shared\.cu:\d+", result.stderr)


def test_a_barrier_that_not_every_thread_reaches(tmp_path):
    old = "__syncthreads();  // the tiles are complete"
    cuda, line = with_fault(tmp_path, "gemm_03_shared.cu", old, f"if (row != 5) {old}")
    result = run(build(tmp_path, "gemm_03_shared", *GEMM_03, cuda=cuda))
    assert result.returncode == 2
    assert "divergent barrier" in result.stderr
    assert f"gemm_03_shared.cu:{line}" in result.stderr


def test_a_missing_wait(tmp_path):
    """Without the wait nothing is ever copied: the products are poison, and the kernel ends with copies under way."""
    cuda, _ = with_fault(tmp_path, "tile.cuh", "cp_async_wait(0);", "")
    result = run(build(tmp_path, "gemm_06_async", cuda=cuda))
    assert result.returncode == 2
    assert re.search(r"the cp\.async at \S+\.cuh:\d+ was never waited for by thread \(\d+, 0, 0\)", result.stderr)
