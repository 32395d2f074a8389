"""Detects the processes that mpirun started together, from the environment and from MPI."""

from __future__ import annotations

import os
import sys
import traceback
from types import TracebackType

from minires.backends import BackendUnavailable
from minires.parallel.communicator import Alone, Communicator
from minires.parallel.mpi import MpiCommunicator

# (rank, size) as set by the process managers of Open MPI, MPICH and Intel MPI, MVAPICH, Slurm.
_VARIABLES = (
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("PMI_RANK", "PMI_SIZE"),
    ("MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE"),
    ("PMIX_RANK", "SLURM_STEP_NUM_TASKS"),  # srun --mpi=pmix
)

_world: Communicator | None = None


def launched() -> tuple[int, int]:
    """(rank, size) from the environment that mpirun sets, without an MPI library; (0, 1) without mpirun."""
    for rank, size in _VARIABLES:
        if os.environ.get(rank, "").isdigit() and os.environ.get(size, "").isdigit():
            return int(os.environ[rank]), int(os.environ[size])
    return 0, 1


def world() -> Communicator:
    """All processes that mpirun started together; `Alone` without mpirun.

    After the first call an uncaught error ends all ranks; otherwise the other ranks would wait forever.  Raises
    BackendUnavailable under mpirun without mpi4py, or with an mpi4py that was built for another MPI.
    """
    global _world
    if _world is not None:
        return _world
    rank, size = launched()
    if size == 1:
        return Alone()
    try:
        found = MpiCommunicator()
    except (ImportError, RuntimeError) as error:  # RuntimeError: mpi4py finds no MPI library
        missing = isinstance(error, ImportError) and error.name == "mpi4py"
        why = "is not installed" if missing else f"cannot be loaded ({' '.join(str(error).split())})"
        raise BackendUnavailable(
            f"mpirun started {size} processes that train together by mpi4py, which {why}: pip install 'minires[mpi]'"
        ) from None
    if (found.rank, found.size) != (rank, size):
        raise BackendUnavailable(
            f"mpirun started {size} processes, but the MPI of mpi4py ({library()}) sees {found.size}: mpi4py was "
            "built for another MPI; pip install --force-reinstall --no-binary mpi4py 'minires[mpi]'"
        )
    sys.excepthook = _end_all
    _world = found
    return found


def begun() -> Communicator | None:
    """The communicator if `world` has connected several ranks, which may wait for this one; otherwise None."""
    return _world


def library() -> str:
    """Name and version of the MPI library that mpi4py uses, in one line."""
    from mpi4py import MPI  # optional

    text: str = MPI.Get_library_version()
    return text.split(",")[0].split("\n")[0].strip(" \x00")


def _end_all(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    assert _world is not None
    text = "".join(traceback.format_exception(kind, error, trace))
    print(f"{_world.name} failed:\n{text}", file=sys.stderr, flush=True)
    _world.abort(1)
