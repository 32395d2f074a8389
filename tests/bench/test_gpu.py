"""benchmarks.gpu on the stand-ins of tests/rehearsal.py: every row, and what may go wrong."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import minires as mr
from minires import backends

pytest.importorskip("torch")
if backends.available()["emulated"]:
    pytest.skip("the emulator runs the kernels", allow_module_level=True)

import rehearsal
import strict_cupy

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def gpu(benchmarks):
    """A module of benchmarks.gpu by its name."""
    return lambda name: benchmarks(f"gpu.{name}")


@pytest.fixture
def measured(tmp_path, capsys):
    """Runs the benchmark: its exit code, and its rows on disk."""

    def measured(*words):
        code = rehearsal.main(["--out", str(tmp_path), *map(str, words)])
        capsys.readouterr()
        return code, rows_of(tmp_path)

    return measured


def rows_of(folder):
    (file,) = folder.glob("*.jsonl")
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def tables(rows):
    return [row["table"] for row in rows]


def test_every_row_is_right(measured, gpu, tmp_path, capsys, monkeypatch):
    """And it is on disk before the next row begins; the tables and the chart show it."""
    on_disk, race = [], gpu("clock").Clock.race

    def counted(self, calls, spin=True):
        on_disk.append(len(rows_of(tmp_path)))
        return race(self, calls, spin)

    monkeypatch.setattr(gpu("clock").Clock, "race", counted)
    code, rows = measured("--minutes", 30)
    assert code == 0
    assert on_disk == [1, *range(1, len(on_disk))]  # the first race checks the clock
    assert len(rows) == len(on_disk) + 1
    assert tables(rows[:1] + rows[-1:]) == ["machine", "end"]
    assert not {"error", "left out"} & set(tables(rows))
    assert all(row["right"] for row in rows[1:])
    assert {row["peer"] for row in rows if "peer" in row} == {"cuBLAS", "cuDNN", "PyTorch eager"}
    assert {(row["kernel"][-4:], row["precision"]) for row in rows if row.get("precision") in ("tf32", "bf16")} >= {
        ("tf32", "tf32"), ("bf16", "bf16"),
    }  # fmt: skip
    assert not any(row["gaps"] for row in rows if "gaps" in row and row["table"] != "network")
    first = [table for i, table in enumerate(tables(rows)) if table not in tables(rows)[:i]]
    assert first[:5] == ["machine", "ceiling", "gemm", "network", "forward"]
    (file,) = tmp_path.glob("*.jsonl")
    shown = gpu("tables")
    for name in ("FRONT", "README"):
        document = tmp_path / f"{name}.md"
        marks = "".join(f"<!-- {mark} -->\n<!-- /{mark} -->\n" for mark in ("race", "gpu-convolutions", "gpu-networks"))
        document.write_text(marks + "<!-- gpu -->\n<!-- /gpu -->\n" * (name == "README"))
        monkeypatch.setattr(shown, name, document)
    assert shown.main([str(file), "--write"]) == 0
    assert "cut off" not in capsys.readouterr().out
    front = (tmp_path / "FRONT.md").read_text()
    assert front.count("\n| product ") == 3
    assert front.count("\n| ") == 2 + 5
    assert "convolutions, fp32, mean" in front
    assert "gemm_07_warps" in (tmp_path / "README.md").read_text()
    assert (tmp_path / "gpu.svg").read_text().count("of cuBLAS") == 3


def test_a_kill_keeps_the_rows(tmp_path, capsys, gpu):
    running = subprocess.Popen(
        [sys.executable, "-m", "tests.rehearsal", "--out", tmp_path], cwd=ROOT, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    while running.poll() is None and sum(f.read_bytes().count(b"\n") for f in tmp_path.glob("*.jsonl")) < 4:
        time.sleep(0.02)
    running.send_signal(signal.SIGKILL)
    running.wait()
    (file,) = tmp_path.glob("*.jsonl")
    with file.open("a") as end:
        end.write('{"table": "gemm", "prob')  # a line that the kill cut off
    rows = gpu("tables").read(file)
    assert len(rows) >= 4
    assert "end" not in tables(rows)
    assert gpu("tables").main([str(file)]) == 0
    assert "the run was cut off" in capsys.readouterr().out


def test_a_wrong_row_and_a_failing_one_are_reported_and_the_others_kept(measured, gpu, monkeypatch):
    products, gemm = gpu("products"), gpu("products").gemm

    def planted(device, rung, a, b, out):
        if rung == "gemm_06_async":
            raise RuntimeError("planted")
        gemm(device, rung, a, b, out)
        if rung == "gemm_05_vectors":
            out[3, 2] = out[3, 2] + 0.01

    monkeypatch.setattr(products, "gemm", planted)
    ladder = ("gemm_04_registers", "gemm_05_vectors", "gemm_06_async", "gemm_07_warps")
    monkeypatch.setattr(gpu("__main__"), "GEMMS", ladder)
    code, rows = measured("--rows", 12)
    assert code == 1
    assert [row["kernel"] for row in rows[1:-1] if not row.get("right", True)] == ["gemm_05_vectors"]
    assert [row["error"] for row in rows if row["table"] == "error"] == ["RuntimeError: planted"]
    assert len(rows) == 12 + 2
    assert {"gemm_04_registers", "gemm_07_warps"} <= {row.get("kernel") for row in rows}
    assert gpu("tables").five(rows)[0][1] not in ("gemm_05_vectors", "gemm_06_async")


@pytest.mark.parametrize(
    ("kind", "kernel", "table"), [("gemm", "gemm_05_vectors", "gemm"), ("conv2d", "conv_05_vectors", "forward")]
)
def test_a_kernel_of_your_own(measured, monkeypatch, kind, kernel, table):
    """Here the file's name stands for a rung; tests/backends compile such files."""
    backend = mr.backend

    def named(name, **options):
        return backend(name, **{option: value.stem for option, value in options.items()})

    monkeypatch.setattr(mr, "backend", named)
    code, rows = measured("--kernel", f"{kernel}.cu", "--as", kind, "--rows", 9)
    own = [row for row in rows if row.get("kernel") == f"{kernel}.cu"]
    assert code == 0
    assert [(row["table"], row["right"]) for row in own] == [(table, True)] * 2


def test_no_row_begins_that_does_not_fit(measured, gpu, tmp_path, capsys):
    """And no table is printed of what was not measured."""
    code, rows = measured("--minutes", 0.05, "--rows", 9)
    assert code == 0
    assert tables(rows) == ["machine", *["left out"] * 9, "end"]
    (file,) = tmp_path.glob("*.jsonl")
    assert gpu("tables").main([str(file)]) == 0
    assert capsys.readouterr().out == "left out for lack of time: 9 rows\n"


def test_an_estimate_follows_what_rows_took(gpu, tmp_path, monkeypatch):
    journal = gpu("journal")
    monkeypatch.setattr(journal, "time", SimpleNamespace(monotonic=lambda: 0.0))
    right = {"problem": "p", "kernel": "k", "seconds": 1.0, "gaps": False, "right": True}
    quick = [journal.Item("gemm", str(i), 0.0, lambda: dict(right)) for i in range(3)]
    more = journal.Item("gemm", "more", 9.0, lambda: dict(right))  # a first one would not fit
    with journal.Journal(tmp_path / "a.jsonl") as file:
        assert journal.run([*quick, more], file, 11.0, lambda: None)
    assert tables(rows_of(tmp_path)) == ["gemm"] * 4
    with journal.Journal(tmp_path / "a" / "b.jsonl") as file:
        assert journal.run([more, *quick], file, 11.0, lambda: None)
    assert tables(rows_of(tmp_path / "a")) == ["left out", *["gemm"] * 3]


def test_a_peer_on_another_stream_ends_the_run(measured, gpu, monkeypatch):
    peer, aside = gpu("peers").Torch, strict_cupy.Stream()
    init = peer.__init__

    def elsewhere(self, cupy):
        init(self, cupy)
        rehearsal.torch.cuda.set_stream(aside)

    monkeypatch.setattr(peer, "__init__", elsewhere)
    code, rows = measured()
    assert code == 1
    assert tables(rows) == ["machine", "error"]
    assert "its work may be on another stream" in rows[1]["error"]


@pytest.mark.parametrize("kind", ["matmul", "conv"])
def test_tf32_that_was_left_on_ends_the_run(measured, gpu, monkeypatch, kind):
    def on(self, precision):
        for name, settings in (("matmul", self.torch.backends.cuda.matmul), ("conv", self.torch.backends.cudnn.conv)):
            settings.fp32_precision = "tf32" if name == kind else "ieee"

    monkeypatch.setattr(gpu("peers").Torch, "_set", on)
    code, rows = measured()
    assert code == 1
    assert "or in another precision" in rows[1]["error"]


def test_the_default_stream_is_refused(gpu):
    with rehearsal.installed(), pytest.raises(ValueError, match="a stream that CuPy created"):
        gpu("peers").Torch(sys.modules["cupy"])


def test_the_times_are_the_devices(gpu, monkeypatch):
    """Ten launches: without a spin the device waits for the host after each."""
    monkeypatch.setattr(gpu("clock"), "L2", 1)
    with strict_cupy.installed() as cupy, cupy.cuda.Stream():
        clock, array = gpu("clock").Clock(cupy), cupy.zeros(3)
        ten = lambda: [array.fill(0) for _ in range(10)]  # noqa: E731
        hidden, waiting = (clock.race({"": ten}, spin)[""] for spin in (True, False))
        assert hidden.median == pytest.approx(10e-3 * strict_cupy.KERNEL)
        assert waiting.median > 9e-3 * strict_cupy.LAUNCH
        assert (hidden.gaps, waiting.gaps) == (False, True)
        many = lambda: [array.fill(0) for _ in range(100)]  # noqa: E731  (they take longer than the shortest spin)
        assert clock.race({"": many})[""].median == pytest.approx(100e-3 * strict_cupy.KERNEL)
        reading = lambda: (array.fill(0), array.get())  # noqa: E731
        assert clock.race({"": reading})[""].gaps


def test_the_front_table_marks_gaps(gpu):
    """A row whose time contains gaps keeps its mark; a mean has one if any of its rows has gaps."""
    times = {"seconds": 1e-3, "gaps": False, "peer": "p", "peer_seconds": 2e-3, "peer_gaps": False, "right": True}
    rows = [
        {"table": "gemm", "problem": "1³", "kernel": "k", "precision": "fp32", "operations": 2, **times},
        *(
            {"table": "forward", "problem": p, "kernel": "k", "precision": "fp32", **times, "gaps": p == "a"}
            for p in "ab"
        ),
        {"table": "network", "problem": "training", "kernel": "k", **times, "peer_gaps": True},
    ]
    _, cells = gpu("tables").five_table(rows)
    assert [(row[2], row[4]) for row in cells] == [
        ("1.000 ms", "2.000 ms"), ("1.000 ms †", "2.000 ms"), ("1.000 ms", "2.000 ms †"),
    ]  # fmt: skip


def test_the_flush_only_reads(gpu, monkeypatch):
    """Else L2 would hold modified lines, and the measured call would pay for writing them back."""
    monkeypatch.setattr(gpu("clock"), "L2", 3)
    with strict_cupy.installed() as cupy, cupy.cuda.Stream():
        clock, used = gpu("clock").Clock(cupy, repeats=2), []
        launch, buffer = strict_cupy.launch, clock._flush
        buffer[...] = 7
        monkeypatch.setattr(
            strict_cupy, "launch", lambda run, blocks, *a: (used.extend(blocks), launch(run, blocks, *a))
        )
        calls = []
        clock.race({"": lambda: calls.append(used.count(buffer.data.mem.block))})
        assert calls == list(range(1, len(calls) + 1))
        assert len(calls) >= 4
        assert buffer.get().tolist() == [7] * 3


# -- what is right


@pytest.mark.parametrize("depth", [1, 40, 3000])
def test_bounds_tell_the_precisions_apart(gpu, rng, depth):
    precision = gpu("precision")
    a, b = rng.standard_normal((30, depth), np.float32), rng.standard_normal((depth, 20), np.float32)
    exact, magnitude = a.astype(float) @ b, np.abs(a).astype(float) @ np.abs(b)
    results = {
        "fp32": a @ b,
        "tf32": shortened(a, 11) @ shortened(b, 11),
        "bf16": shortened(a, 8) @ shortened(b, 8),
    }
    for number, (computed, found) in enumerate(results.items()):
        for other, claimed in enumerate(results):
            right = precision.judge(np, found, exact, magnitude, depth, claimed)["right"]
            assert right == (number <= other), (computed, claimed)
    for planted in (np.nan, np.inf, exact[2, 3] + 0.5 * magnitude[2, 3]):
        found = results["fp32"].copy()
        found[2, 3] = planted
        assert not precision.judge(np, found, exact, magnitude, depth, "bf16")["right"]


@pytest.mark.parametrize("depth", [64, 1152, 4608, 25088])
def test_a_peer_in_tf32_is_no_fp32_convolution(gpu, rng, depth):
    """Although Winograd's larger rounding is allowed for."""
    a, b = rng.standard_normal((30, depth), np.float32), rng.standard_normal((depth, 20), np.float32)
    exact, magnitude = a.astype(float) @ b, np.abs(a).astype(float) @ np.abs(b)
    growth = 64.0, 0.0, gpu("convolutions").mean_growth(depth)
    for found, right in ((a @ b, True), (shortened(a, 11) @ shortened(b, 11), False)):
        assert gpu("precision").judge(np, found, exact, magnitude, depth, "fp32", *growth)["right"] == right


def shortened(array, bits):
    """Rounded to so many bits of significand."""
    mantissa, exponent = np.frexp(array)
    return np.ldexp(np.round(mantissa * 2**bits) / 2**bits, exponent).astype(np.float32)


def test_precision_of_a_kernel(gpu):
    of = gpu("precision").precision_of
    kernels = ("gemm_07_warps", "gemm_09_tf32", "conv_07_bf16", "gemm_12_3xtf32")
    assert [of(kernel) for kernel in kernels] == ["fp32", "tf32", "bf16", "3xtf32"]
    assert gpu("precision").peer_precision("3xtf32") == "fp32"


def test_without_a_gpu_it_says_so(capsys, monkeypatch, gpu):
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert gpu("__main__").main([]) == 3
    assert "CuPy is not installed" in capsys.readouterr().err
