"""`python -m benchmarks.runtime`: its edits of csrc/cpu, and the errors of its command line."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def benchmark(benchmarks):
    return benchmarks("runtime")


def test_every_edit_finds_its_place(benchmark):
    assert {build: {file.name for file in benchmark.edited(build)} for build in benchmark.EDITS} == {
        "malloc": {"memory.cpp"},
        "openmp": {"cpu.cmake", "threads.cpp"},
    }


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--rounds", "0"], "--rounds and --threads must be at least 1"),
        (["--allocators", "nowhere.so"], "--allocators: no such file: nowhere.so"),
    ],
)
def test_wrong_usage(benchmark, monkeypatch, capsys, words, error):
    monkeypatch.setattr(sys, "argv", ["runtime", *words])
    with pytest.raises(SystemExit, match="2"):
        benchmark.main()
    assert error in capsys.readouterr().err
