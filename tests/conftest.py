"""What every test may use."""

from __future__ import annotations

import importlib
import os
import signal
import zlib
from pathlib import Path

import numpy as np
import pytest

import minires as mr
from minires import cli

if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0")):  # processes that share the processors
    mr.set_num_threads(max(1, (os.cpu_count() or 1) // workers))


# A shell that starts pytest in the background has it ignore SIGINT, which the programs that tests start would inherit.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """A generator seeded by the test's own name: the same numbers in every run, others in every test."""
    return np.random.default_rng(zlib.crc32(request.node.nodeid.encode()))


@pytest.fixture
def benchmarks(monkeypatch):
    """Imports a module of benchmarks/, which is no part of the package, by its name."""
    monkeypatch.syspath_prepend(Path(__file__).parent.parent)
    return lambda name: importlib.import_module(f"benchmarks.{name}")


@pytest.fixture
def call(capsys):
    """Runs a command: its exit code, what it wrote to standard output, and to standard error."""

    def call(*words):
        code = cli.main([str(word) for word in words])
        output = capsys.readouterr()
        return code, output.out, output.err

    return call
