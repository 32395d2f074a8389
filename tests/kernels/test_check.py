"""Faults planted in kernel files are found by kind and line; sound kernels give no finding."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from minires.cli import main
from minires.kernels.check import ADVICE, check

HERE = Path(__file__).parent
KINDS = {"tile.cu": "gemm", "vectors.cu": "gemm", "direct.cu": "conv2d"}

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed")

LOAD_A = "a[row][column] = m < M && k0 + column < K ? A[m * K + k0 + column] : 0.0f;"
LOAD_B = "b[row][column] = n < N && k0 + row < K ? B[(k0 + row) * N + n] : 0.0f;"
PRODUCT = "sum += a[row][k] * b[k][column];"
STORE = "if (m < M && n < N) C[m * N + n] = sum;"
# (name, kind, file, old text, new text, text of the line that the finding names, a part of the message)
FAULTS = [
    ("the first barrier", "race", "tile.cu", "__syncthreads();  // the tiles", "// the tiles", PRODUCT,
     "no barrier between"),
    ("the second barrier", "race", "tile.cu", "__syncthreads();  // all", "// all", LOAD_A, "no barrier between"),
    ("a read at an odd size", "out-of-bounds", "tile.cu", " && k0 + row < K", "", None, "B has"),
    ("a misaligned float4", "misaligned", "vectors.cu", "if (n < N) b", "if (n < N / 4 * 4) b", None, "16 bytes"),
    ("an uncoalesced load", "uncoalesced", "tile.cu", "A[m * K + k0 + column]",
     "A[m * K + k0 + column] + 0 * A[column * K + row]", None, "sectors a request"),
    ("a bank conflict", "bank-conflict", "tile.cu", LOAD_A, LOAD_A.replace("[row][column]", "[column][row]"), None,
     "wavefronts a request"),
    ("a wrong edge", "wrong-result", "tile.cu", "k0 + column < K", "k0 + column < K - 1", STORE, "should be"),
    ("an output that is never written", "unwritten", "tile.cu", STORE, STORE.replace("n < N", "n < N - 1"), None,
     "is never written"),
    ("an uninitialised read", "uninitialised", "tile.cu", LOAD_B, "if (k0 + row < K) " + LOAD_B, PRODUCT,
     "not initialised"),
    ("a divergent barrier", "divergent-barrier", "tile.cu", "__syncthreads();  // the",
     "if (n < N) __syncthreads();  // the", None, "has returned"),
    ("a wild pointer", "out-of-bounds", "tile.cu", STORE, STORE.replace("m * N + n", "(1LL << 33) + n"), None,
     "writes C["),
    ("two writers of one element", "race", "tile.cu", STORE, STORE.replace("m * N + n", "m * N"), None, "no barrier"),
    ("a stack that overflows", "out-of-bounds", "tile.cu", "float sum = 0.0f;",
     "volatile float many[200000]; many[0] = 0; float sum = many[0];", None, "crashed"),
]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """A folder of compiled files for this module."""
    from minires.kernels import build

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        build._cache.cache_clear()
        yield
    build._cache.cache_clear()


def planted(folder, file, old, new, marked):
    """A copy of the file with the fault, and the number of its line."""
    text = (HERE / file).read_text(encoding="utf-8")
    assert text.count(old) == 1
    changed = text.replace(old, new)
    if file == "vectors.cu":
        changed = changed.replace("whole = N % 4 == 0", "whole = true")
    if "[column][row]" in new:
        changed = changed.replace("a[row][k]", "a[k][row]")
    path = folder / file
    path.write_text(changed, encoding="utf-8")
    return path, changed[: changed.index(marked or new)].count("\n") + 1


@pytest.mark.parametrize(
    ("kind", "file", "old", "new", "marked", "part"), [f[1:] for f in FAULTS], ids=[f[0] for f in FAULTS]
)
def test_a_planted_fault_is_named_by_its_line(tmp_path, kind, file, old, new, marked, part):
    path, line = planted(tmp_path, file, old, new, marked)
    result = check(path, KINDS[file])
    found = [(finding.kind, finding.line) for finding in result.findings]
    assert (kind, line) in found, result.findings
    message = next(f.message for f in result.findings if (f.kind, f.line) == (kind, line))
    assert part in message
    assert result.passed == (kind in ADVICE)


@pytest.mark.parametrize("file", KINDS)
def test_a_sound_kernel_passes(file, capsys):
    assert main(["kernels", "check", str(HERE / file), "--as", KINDS[file], "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["passed"]
    assert [finding for finding in result["findings"] if finding["kind"] not in ADVICE] == []


def test_a_race_names_both_threads_and_lines(tmp_path):
    path, line = planted(tmp_path, "tile.cu", *FAULTS[0][3:5], PRODUCT)
    finding = check(path, "gemm").findings[0]
    assert finding.message.startswith("thread (")
    assert f"at line {line}: no barrier between (block (" in finding.message
