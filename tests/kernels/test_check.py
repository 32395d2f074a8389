"""Faults planted in kernel files are found by kind and line; sound kernels give no finding."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from minires.backends.kernels.own import read
from minires.cli import main
from minires.kernels import build
from minires.kernels.cases import bound_of
from minires.kernels.check import ADVICE, check

HERE = Path(__file__).parent
KINDS = {"tile.cu": "gemm", "vectors.cu": "gemm", "warp.cu": "gemm", "pipeline.cu": "gemm", "direct.cu": "conv2d"}

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed")

LOAD_A = "a[row][column] = m < M && k0 + column < K ? A[m * K + k0 + column] : 0.0f;"
LOAD_B = "b[row][column] = n < N && k0 + row < K ? B[(k0 + row) * N + n] : 0.0f;"
PRODUCT = "sum += a[row][k] * b[k][column];"
STORE = "if (m < M && n < N) C[m * N + n] = sum;"
ALONG_ROWS = (
    "a[column][row] = blockIdx.y * TILE + column < M && k0 + row < K ? "
    "A[(blockIdx.y * TILE + column) * K + k0 + row] : 0.0f;"
)
TRANSPOSED = LOAD_A.replace("a[row][column]", "a[column][row]")
# name -> (kind, file, {old text: new text}, text of the line that the finding names, part of the message)
FAULTS = {
    "the first barrier": (
        "race", "tile.cu", {"__syncthreads();  // the tiles": "// the tiles"}, PRODUCT,
        "thread (0,0) writes a[0] at line 13 before thread (1,0) reads it at line 16: no barrier between (block (0,0)",
    ),
    "the second barrier": (
        "race", "tile.cu", {"__syncthreads();  // all": "// all"}, LOAD_A,
        "reads a[1] at line 16 before thread (1,0) writes it at line 13 in the next round of the loop: no",
    ),
    "a read at an odd size": (
        "out-of-bounds", "tile.cu", {" && k0 + row < K": ""}, "b[row][column] =", "out of bounds, B has 1105 elements",
    ),
    "a misaligned float4": (
        "misaligned", "vectors.cu", {"N % 4 == 0": "true", "if (n < N) b": "if (n < N / 4 * 4) b"},
        "if (n < N / 4", "with 16 bytes",
    ),
    "an uncoalesced load": (
        "uncoalesced", "tile.cu", {LOAD_A: ALONG_ROWS}, ALONG_ROWS, "16 sectors a request, 4 would",
    ),
    "a bank conflict": (
        "bank-conflict", "tile.cu", {LOAD_A: TRANSPOSED, "a[row][k]": "a[k][row]"}, TRANSPOSED, "wavefronts a request",
    ),
    "a wrong edge": ("wrong-result", "tile.cu", {"k0 + column < K": "k0 + column < K - 1"}, STORE, "should be"),
    "an output that is never written": (
        "unwritten", "tile.cu", {STORE: STORE.replace("n < N", "n < N - 1")}, "if (m < M && n < N - 1)",
        "C[0][64] is never written, 33 of 2145 elements",
    ),
    "an uninitialised read": (
        "uninitialised", "tile.cu", {LOAD_B: f"if (k0 + row < K) {LOAD_B}"}, PRODUCT, "not initialised",
    ),
    "a divergent barrier": (
        "divergent-barrier", "tile.cu", {"__syncthreads();  // the": "if (n < N) __syncthreads();  // the"},
        "if (n < N) __sync", "waits at tile.cu:15",
    ),
    "a wild pointer": (
        "out-of-bounds", "tile.cu", {"C[m * N + n] = sum": "C[(1LL << 40) + n] = sum"}, "if (m < M && n < N) C",
        "no array",
    ),
    "a null pointer": ("out-of-bounds", "tile.cu", {"C[m * N + n] = sum": "*(float*)0 = sum"}, "*(float*)0", "0"),
    "two writers of one element": (
        "race", "tile.cu", {"C[m * N + n] = sum": "C[m * N] = sum"}, "C[m * N] = sum", "writes it at line 19",
    ),
    "a missing __syncwarp": ("race", "warp.cu", {"__syncwarp();": ""}, "sum = partial[mine]", "no barrier between"),
    "an asynchronous copy without a wait": (
        "race", "pipeline.cu", {"cp_async_wait(1);": ""}, "sum += A[", "no cp_async_wait and barrier between",
    ),
    "an asynchronous copy without a barrier": (
        "race", "pipeline.cu", {"__syncthreads();  // the row": "// the row"}, "sum += A[", "copies (cp.async) to row[",
    ),
    "a buffer that is overwritten too early": (
        "race", "pipeline.cu", {"__syncthreads();  // all": "// all"}, "const auto load", "no barrier between",
    ),
    "too little dynamic shared memory": (
        "out-of-bounds", "vectors.cu", {"16*16*4": "16*15*4"}, "a[threadIdx.y * 16 + k] = m",
        "dynamic shared memory[240] at line 10: out of bounds",
    ),
    "an array that overruns into the next": (
        "out-of-bounds", "tile.cu", {"a[row][k] * b[k][column]": "a[row + TILE][k] * b[k][column]"},
        "sum += a[row + TILE]", "reads a[256] at line 16: out of bounds, a has 1024 bytes",
    ),
    "a write far behind the last array": (
        "out-of-bounds", "tile.cu", {LOAD_B: f"{LOAD_B} b[row + 100][column] = 0;"}, LOAD_B, "writes b[1600]",
    ),
    "a write in front of an array": (
        "out-of-bounds", "tile.cu", {LOAD_A: f"{LOAD_A} a[row - TILE][column] = 0;"}, LOAD_A, "writes a[-256]",
    ),
    "an atomic on uninitialised memory": (
        "uninitialised", "warp.cu", {"count = largest = 0": "largest = 0"}, "atomicAdd(&count", "count[0]",
    ),
    "an input that a later block changes": (
        "race", "tile.cu", {STORE: f"{STORE} if (m == M - 1 && n == N - 1 && M > 32) ((float*)A)[0] = 0;"},
        "if (m < M && n < N) C", "of another block",
    ),
    "a changed input": (
        "wrong-result", "tile.cu", {STORE: f"{STORE} if (M == 1 && n == 0) ((float*)A)[0] = 99;"}, 'extern "C"',
        "A[0][0] is changed",
    ),
    "a stack that overflows": (
        "out-of-bounds", "tile.cu",
        {"float sum = 0.0f;": "volatile float many[200000]; many[0] = 0; float sum = many[0];"},
        'extern "C"', "crashed",
    ),
}  # fmt: skip


def planted(folder, file, changes, marked):
    """A copy of the file with the fault, and the number of its line."""
    text = (HERE / file).read_text(encoding="utf-8")
    for old, new in changes.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    path = folder / file
    path.write_text(text, encoding="utf-8")
    return path, text[: text.index(marked)].count("\n") + 1


def test_half_a_warp_meets(tmp_path):
    """__syncwarp waits for the lanes of its mask alone, and for no lane that has returned."""
    odd, even = "a[row][column] = 0; __syncwarp(0xffff0000);", "a[row][column] = 1; __syncwarp(0x0000ffff);"
    head = f"if (row % 2) {{ {odd} }} else {{ {even} }}"
    changes = {
        "float sum = 0.0f;": f"{head} float sum = 0.0f;",
        STORE: f"{STORE} if (row % 2) return; __syncwarp();",
    }
    path, _ = planted(tmp_path, "tile.cu", changes, STORE)
    assert check(path, "gemm").passed


def test_a_shuffle_orders_no_memory(tmp_path):
    change = {"__syncwarp();": "__shfl_sync(all, lane, 0);"}
    path, line = planted(tmp_path, "warp.cu", change, "sum = partial[mine]")
    assert ("race", line) in {(finding.kind, finding.line) for finding in check(path, "gemm").findings}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_named_by_its_line(tmp_path, fault):
    kind, file, changes, marked, part = FAULTS[fault]
    path, line = planted(tmp_path, file, changes, marked)
    result = check(path, KINDS[file])
    found = [finding.message for finding in result.findings if (finding.kind, finding.line) == (kind, line)]
    assert found, result.findings
    assert part in found[0]
    assert result.passed == (kind in ADVICE)


def test_a_kernel_without_shared_memory_is_named_by_its_line(tmp_path):
    path, line = planted(tmp_path, "direct.cu", {"c < C; c++": "c <= C; c++"}, "sum += x[")
    found = [f for f in check(path, "conv2d").findings if f.kind == "out-of-bounds"]
    assert {(f.line, f.file) for f in found} == {(line, str(path))}
    assert f" at line {line}: out of bounds" in found[0].message


@pytest.mark.parametrize(
    ("added", "operand"),
    [
        ("// not tf32", 0), ("/* nor\nbf16 */", 0), ("mma_m16n8k8_tf32(c, a, b);", 2.0**-10),
        ("mma_m16n8k16_bf16(c, a, b);", 2.0**-7), ("__nv_bfloat16 x;", 2.0**-7),
    ],
)  # fmt: skip
def test_the_bound_follows_the_code_and_not_a_comment(added, operand):
    kernel = read(HERE / "tile.cu", "gemm")
    ones = [np.ones((1, 1), np.float32)] * 2
    bound = bound_of(replace(kernel, text=kernel.text + added), ones, {"M": 1, "N": 1, "K": 1})
    assert bound == 3 * 2.0**-23 + operand


@pytest.mark.parametrize("file", KINDS)
def test_a_sound_kernel_passes(file, capsys):
    """With three orders of the threads: each case has its seed."""
    assert main(["kernels", "check", str(HERE / file), "--as", KINDS[file], "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["passed"]
    assert [finding for finding in result["findings"] if finding["kind"] not in ADVICE] == []


@pytest.mark.slow
def test_a_kernel_that_does_not_end(tmp_path):
    path, _ = planted(tmp_path, "tile.cu", {"k0 += TILE": "k0 += 0 * TILE"}, "for (int k0")
    (finding,) = check(path, "gemm").findings
    assert finding.kind == "wrong-result"
    assert "does not end" in finding.message
    assert 13 <= finding.line <= 16


@pytest.mark.parametrize(
    ("old", "new", "part"),
    [
        ("cuda_runtime.h", "cuda_fp16.h", "no half precision"),
        (
            "a[TILE][TILE], b",
            "a[200][TILE * 16], b",
            "tile has 205824 bytes of static shared memory; a GPU allows 49152",
        ),
        ("float sum = 0.0f;", "float sum = 0.0f", "tile.cu:12"),
    ],
)
def test_a_kernel_that_does_not_compile_is_wrong_usage(tmp_path, capsys, old, new, part):
    path, _ = planted(tmp_path, "tile.cu", {old: new}, new)
    assert main(["kernels", "check", str(path), "--as", "gemm"]) == 2
    assert part in capsys.readouterr().err


def test_a_missing_compiler_is_a_missing_backend(monkeypatch, capsys):
    monkeypatch.setattr(build.shutil, "which", lambda tool: None)
    build.compiler.cache_clear()
    assert main(["kernels", "check", str(HERE / "tile.cu"), "--as", "gemm"]) == 3
    assert "apt install g++" in capsys.readouterr().err
