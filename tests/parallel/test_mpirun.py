"""`mpirun -n K minires train`, as it is started: what it computes, how it ends, how it goes on.

Run them with `pytest -m mpi tests/parallel`; where mpirun or mpi4py is missing they fail.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from minires.training import find_checkpoint, load_checkpoint

pytestmark = pytest.mark.mpi

ENVIRONMENT = {
    **os.environ,
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_rmaps_base_oversubscribe": "1",  # more ranks than processors
    "OMPI_MCA_btl": "self,vader",  # shared memory: a container may have no network at all
    "OMPI_MCA_btl_vader_single_copy_mechanism": "none",  # nor may it read another process's memory
    "OMPI_MCA_mpi_yield_when_idle": "1",  # who waits leaves the processor to who works
    "OPENBLAS_NUM_THREADS": "1",
}
TRAIN = [sys.executable, "-m", "minires", "train", "--threads", "1", "--workers", "0", "--quiet"]
SMALL = ["--width", "4", "--lr", "0.05", "--sync-batch-norm", "--eval-every", "1000"]


def mpirun(size, *words, environment=ENVIRONMENT):
    command = ["mpirun", "--oversubscribe", "-n", str(size), *words] if size > 1 else list(words)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, **pipes, env=environment)


def ended(process, timeout=300):  # a machine may be busy
    """(exit code, stdout, stderr)"""
    try:
        stdout, stderr = process.communicate(timeout=timeout)
    finally:
        process.kill()
    return process.returncode, stdout, stderr


def train(size, *words):
    code, stdout, stderr = ended(mpirun(size, *TRAIN, *map(str, words)))
    assert code == 0, stderr
    return stdout


def end(folder):
    return load_checkpoint(find_checkpoint(folder))


def distance(one, other):
    """The relative distance of all weights and running statistics together."""
    assert one.iteration == other.iteration
    first, second = (np.concatenate([state.model[name].ravel() for name in one.model]) for state in (one, other))
    return float(np.linalg.norm(first - second) / np.linalg.norm(second))


def wait_for(condition, process, seconds=60):
    until = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until, "nothing happened"
        time.sleep(0.02)


def has_checkpoint(folder):
    return lambda: any((folder / "checkpoints").glob("*.json"))


def rank_of(process, rank):
    """The process of a rank, found by the environment that its mpirun gave it."""
    for child in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((child / "stat").read_text().rpartition(")")[2].split()[1])
            environment = (child / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if parent == process.pid and f"OMPI_COMM_WORLD_RANK={rank}".encode() in environment:
            return int(child.name)
    raise AssertionError(f"no rank {rank}")


# -- what it computes


@pytest.mark.parametrize(
    ("network", "size", "settings"),
    [
        ("resnet20", 2, ["--batch-size", "101", "--label-smoothing", "0.1"]),
        ("plain20", 3, ["--batch-size", "101", "--micro-batch", "60"]),
    ],
)
def test_twenty_steps_are_those_of_one_process(tmp_path, network, size, settings):
    words = [network, *SMALL, *settings, "--iterations", 20, "--dtype", "float64"]
    stdout = train(size, *words, "--json", "--out", tmp_path / "several")
    train(1, *words, "--out", tmp_path / "one")
    one, several = end(tmp_path / "one"), end(tmp_path / "several")
    assert distance(several, one) < 1e-12
    assert several.random_state == one.random_state
    assert [(r.iteration, r.training_error, r.test_error) for r in several.rows] == [
        (r.iteration, r.training_error, r.test_error) for r in one.rows
    ]
    result = json.loads(stdout)  # printed once
    assert result["test_error"] == one.rows[-1].test_error
    assert {file.name for file in (tmp_path / "several").iterdir()} == {
        file.name for file in (tmp_path / "one").iterdir()
    }


def test_float32_step_by_step(tmp_path):
    """From the weights of one process after 19 steps the 20th; a whole course in float32 is a matter of its roundings,
    on which a ReLU at 0 turns."""
    words = [*SMALL, "--batch-size", "101", "--schedule", "constant", "--checkpoint-every", "1", "--keep", "2"]
    train(1, *words, "--iterations", 20, "--out", tmp_path / "one")
    before = sorted((tmp_path / "one" / "checkpoints").glob("*.json"))[0]
    train(3, "--resume", before, "--out", tmp_path / "several")
    assert distance(end(tmp_path / "several"), end(tmp_path / "one")) < 1e-5


# -- how it ends


def test_a_killed_rank_ends_the_job_by_name_and_the_run_goes_on_with_other_numbers_of_ranks(tmp_path):
    words = [*SMALL, "--batch-size", "101", "--iterations", 30, "--dtype", "float64", "--checkpoint-every", 3]
    words = [*map(str, words), "--log-every", "10"]
    process = mpirun(2, *TRAIN, *words, "--out", str(tmp_path / "run"))
    wait_for(has_checkpoint(tmp_path / "run"), process)
    began = time.monotonic()
    os.kill(rank_of(process, 1), signal.SIGKILL)
    code, stdout, stderr = ended(process, 30)
    assert time.monotonic() - began < 30
    assert code != 0
    assert "rank 1" in stderr
    assert "signal 9" in stderr
    assert stdout == ""
    left = end(tmp_path / "run").iteration
    assert left < 30

    # K = 2 → 1 → 3
    process = mpirun(1, *TRAIN, "--resume", str(tmp_path / "run"))
    path = tmp_path / "run" / "checkpoints"
    wait_for(lambda: any(int(f.stem.split("-")[1]) > left for f in path.glob("*.json")), process)
    process.send_signal(signal.SIGINT)
    assert ended(process)[0] == 130
    train(3, "--resume", tmp_path / "run")
    train(1, *words, "--out", tmp_path / "whole")
    resumed, whole = end(tmp_path / "run"), end(tmp_path / "whole")
    assert distance(resumed, whole) < 1e-11
    assert [(r.iteration, r.training_error) for r in resumed.rows] == [
        (r.iteration, r.training_error) for r in whole.rows
    ]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGUSR1], ids=["Ctrl-C", "SIGUSR1"])
def test_a_signal_to_mpirun_saves_once_and_ends_all(tmp_path, number):
    """Open MPI makes SIGTERM of Ctrl-C and exits with a code of its own; it passes SIGUSR1 on as it is."""
    # seconds from Ctrl-C to SIGTERM, and from there to SIGKILL
    patient = {**ENVIRONMENT, "OMPI_MCA_odls_base_sigkill_timeout": "4"} if number == signal.SIGINT else ENVIRONMENT
    words = [*TRAIN, *SMALL, "--iterations", "100000", "--out", str(tmp_path / "run"), "--log-every", "2"]
    process = mpirun(2, *words, environment=patient)
    wait_for((tmp_path / "run" / "history.csv").exists, process)
    process.send_signal(number)
    code, stdout, stderr = ended(process, 30)
    if number == signal.SIGUSR1:
        assert code == 130
        assert stderr.count("go on with: minires train --resume") == 1
    else:
        assert code != 0
    assert "Traceback" not in stderr
    assert stdout == ""
    assert end(tmp_path / "run").iteration >= 2  # there was no checkpoint before


FAILING = """
import os, sys
from minires.training import loop
from minires.cli import main

real = loop._Run._step
def step(self, *given):
    if self.ranks.rank == 1 and self.iteration == 3:
        raise {error}
    real(self, *given)
loop._Run._step = step
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    ("error", "message"),
    [
        ("MemoryError('a planted one')", "error: rank 1 ("),
        ("KeyError('a bug')", "KeyError: 'a bug'"),  # with its traceback
    ],
)
def test_an_error_of_one_rank_ends_the_job_by_name(tmp_path, error, message):
    script = tmp_path / "failing.py"
    script.write_text(FAILING.format(error=error))
    words = [sys.executable, str(script), *TRAIN[3:], *SMALL, "--iterations", "1000", "--out", str(tmp_path / "run")]
    began = time.monotonic()
    code, stdout, stderr = ended(mpirun(2, *words), 40)
    assert time.monotonic() - began < 30
    assert code == 1
    assert message in stderr
    assert stderr.count("rank 1 (") >= 1
    assert ") failed:" in stderr
    assert stdout == ""


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["train", "--bogus"], 2, "error: unknown argument '--bogus'"),
        (["train", "--lr", "-1"], 2, "error: --lr must be above 0, got -1"),
        (["train", "--batch-size", "1"], 2, "error: --batch-size must be at least 2, an image a rank, got 1"),
        (["train", "--width", "2", "--lr", "1e30", "--quiet"], 1, "error: iteration"),
        (["models"], 2, "error: mpirun is for `minires train` alone"),
    ],
)
def test_what_all_ranks_find_wrong_is_said_once(tmp_path, monkeypatch, words, code, message):
    monkeypatch.chdir(tmp_path)
    found, stdout, stderr = ended(mpirun(2, sys.executable, "-m", "minires", *words))
    assert found == code, stderr
    assert stderr.count("error: ") == 1
    assert message in stderr
    assert "Traceback" not in stderr
    assert stdout == ""


def test_without_mpi4py_it_is_an_error_and_no_number_of_independent_runs(tmp_path):
    (tmp_path / "mpi4py.py").write_text("raise ModuleNotFoundError('No module named mpi4py', name='mpi4py')")
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    process = mpirun(2, *TRAIN, "--out", str(tmp_path / "run"), environment={**ENVIRONMENT, "PYTHONPATH": path})
    code, _, stderr = ended(process)
    assert code == 3
    assert stderr.count("error: ") == 1
    assert "minires[mpi]" in stderr
    assert not (tmp_path / "run").exists()
