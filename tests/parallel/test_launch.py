"""Detecting the other processes before any MPI library is loaded."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import pytest

from minires import cli, parallel
from minires.backends import BackendUnavailable
from minires.parallel import launch


@pytest.fixture(autouse=True)
def nothing_launched(monkeypatch):
    for variables in launch._VARIABLES:
        for variable in variables:
            monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(launch, "_world", None)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)


def started_by_mpirun(monkeypatch, rank, size, kind="OMPI_COMM_WORLD"):
    monkeypatch.setenv(f"{kind}_RANK", str(rank))
    monkeypatch.setenv(f"{kind}_SIZE", str(size))


def test_srun_is_seen(monkeypatch):
    monkeypatch.setenv("PMIX_RANK", "3")
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
    assert parallel.launched() == (3, 4)


@pytest.mark.parametrize("kind", ["OMPI_COMM_WORLD", "PMI", "MV2_COMM_WORLD"])
def test_mpirun_is_seen(monkeypatch, kind):
    assert parallel.launched() == (0, 1)
    started_by_mpirun(monkeypatch, 2, 5, kind)
    assert parallel.launched() == (2, 5)


def test_alone_mpi_is_not_even_loaded(monkeypatch):
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    started_by_mpirun(monkeypatch, 0, 1)
    assert parallel.world().size == 1
    assert parallel.begun() is None


def test_without_mpi4py(monkeypatch):
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    started_by_mpirun(monkeypatch, 1, 2)
    with pytest.raises(BackendUnavailable, match=r"minires\[mpi\]"):
        parallel.world()


def test_an_mpi4py_that_finds_no_mpi(monkeypatch, capsys):
    """The wheels of mpi4py raise RuntimeError on a machine without MPI."""

    class Loads:
        def __getattr__(self, name):
            raise RuntimeError("cannot load MPI library\nlibmpi.so: cannot open shared object file")

    monkeypatch.setitem(sys.modules, "mpi4py", Loads())
    started_by_mpirun(monkeypatch, 1, 2)
    with pytest.raises(BackendUnavailable, match=r"cannot be loaded \(cannot load MPI library libmpi"):
        parallel.world()


def test_an_mpi4py_of_another_mpi(monkeypatch):
    """Every process would be rank 0 of 1, and all would write the same files."""
    module = ModuleType("mpi4py")
    comm = SimpleNamespace(rank=0, size=1, Split_type=lambda kind: SimpleNamespace(rank=0, size=1))
    world = SimpleNamespace(Dup=lambda: comm)
    module.MPI = SimpleNamespace(COMM_WORLD=world, COMM_TYPE_SHARED=0, Get_library_version=lambda: "Other MPI 9, x\n")
    monkeypatch.setitem(sys.modules, "mpi4py", module)
    started_by_mpirun(monkeypatch, 1, 2)
    with pytest.raises(BackendUnavailable, match=r"mpirun started 2 .* \(Other MPI 9\) sees 1"):
        parallel.world()
    assert parallel.begun() is None


@pytest.mark.parametrize("rank", [0, 1])
def test_an_error_before_mpi_is_said_by_rank_0_and_by_another_that_is_left_over(monkeypatch, capsys, rank):
    waited = []
    monkeypatch.setattr(cli.time, "sleep", waited.append)
    started_by_mpirun(monkeypatch, rank, 2)
    assert cli.main(["models"]) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: mpirun is for" if rank == 0 else "error: rank 1 failed: mpirun is for")
    assert waited == ([] if rank == 0 else [10])


class Begun:
    name = "rank 1 (here, process 7)"

    def __init__(self):
        self.aborted = []

    def abort(self, code):
        self.aborted.append(code)
        raise SystemExit(code)


def test_an_error_of_one_rank_aborts_all(monkeypatch, capsys):
    started_by_mpirun(monkeypatch, 1, 2)
    ranks = Begun()
    monkeypatch.setattr(launch, "_world", ranks)
    with pytest.raises(SystemExit):
        cli.main(["train", "--bogus"])
    assert ranks.aborted == [2]
    assert "error: rank 1 (here, process 7) failed: unknown argument '--bogus'" in capsys.readouterr().err


def test_an_error_that_nobody_catches_aborts_all(monkeypatch, capsys):
    ranks = Begun()
    monkeypatch.setattr(launch, "_world", ranks)
    try:
        raise KeyError("a bug")
    except KeyError as error:
        with pytest.raises(SystemExit):
            launch._end_all(KeyError, error, error.__traceback__)
    assert ranks.aborted == [1]
    message = capsys.readouterr().err
    assert message.startswith("rank 1 (here, process 7) failed:\nTraceback")
    assert "KeyError: 'a bug'" in message
