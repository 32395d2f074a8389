"""Which processes belong together: what mpirun put into the environment, and what MPI says itself."""

from __future__ import annotations

import os
import sys
import traceback
from types import TracebackType

from minires.backends import BackendUnavailable
from minires.parallel.communicator import Alone, Communicator

# (rank, size) by the process managers of Open MPI, MPICH and Intel MPI, MVAPICH.
_VARIABLES = (
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("PMI_RANK", "PMI_SIZE"),
    ("MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE"),
    ("PMIX_RANK", "SLURM_STEP_NUM_TASKS"),  # srun --mpi=pmix
)

_world: Communicator | None = None


def launched() -> tuple[int, int]:
    """(rank, size) as mpirun told this process, without any MPI library; (0, 1) where it was started by itself."""
    for rank, size in _VARIABLES:
        if os.environ.get(rank, "").isdigit() and os.environ.get(size, "").isdigit():
            return int(os.environ[rank]), int(os.environ[size])
    return 0, 1


def world() -> Communicator:
    """All processes that mpirun started together; `Alone` where this one was started by itself.

    From the first call on, an error that nobody catches ends all ranks and not only its own, which the others would
    wait for without end.  Raises BackendUnavailable where mpirun is seen and mpi4py is not, or belongs to another MPI.
    """
    global _world
    if _world is not None:
        return _world
    rank, size = launched()
    if size == 1:
        return Alone()
    try:
        from minires.parallel.mpi import MpiCommunicator

        found = MpiCommunicator()
    except (ImportError, RuntimeError) as error:  # RuntimeError where mpi4py finds no MPI library
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
    """The ranks that may be waiting for this one by now; None where there are none."""
    return _world


def library() -> str:
    """Name and version of the MPI library that mpi4py found, in a line."""
    from mpi4py import MPI

    text: str = MPI.Get_library_version()
    return text.split(",")[0].split("\n")[0].strip(" \x00")


def _end_all(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    assert _world is not None
    text = "".join(traceback.format_exception(kind, error, trace))
    print(f"{_world.name} failed:\n{text}", file=sys.stderr, flush=True)
    _world.abort(1)
