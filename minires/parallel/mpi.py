"""The communicator of mpi4py for processes that mpirun started."""

from __future__ import annotations

import os
import platform
import sys
from functools import cached_property
from typing import Any, NoReturn, TypeVar

import numpy as np

from minires.arrays import Array
from minires.parallel.communicator import Request
from minires.parallel.nccl import Nccl

T = TypeVar("T")


class MpiCommunicator:
    """The ranks of MPI.COMM_WORLD; MPI sums NumPy arrays, NCCL sums CuPy arrays."""

    def __init__(self) -> None:
        from mpi4py import MPI  # optional

        self.mpi: Any = MPI
        self.comm: Any = MPI.COMM_WORLD.Dup()  # keeps other libraries' messages apart
        self.rank, self.size = self.comm.rank, self.comm.size
        local = self.comm.Split_type(MPI.COMM_TYPE_SHARED)
        self.local_rank, self.local_size = local.rank, local.size
        self.name = f"rank {self.rank} ({platform.node()}, process {os.getpid()})"

    def allreduce(self, array: Array) -> None:
        if isinstance(array, np.ndarray):
            self.comm.Allreduce(self.mpi.IN_PLACE, array)
        else:
            self.nccl.iallreduce(array).wait()

    def iallreduce(self, array: Array) -> Request:
        if isinstance(array, np.ndarray):
            return MpiRequest(self.comm.Iallreduce(self.mpi.IN_PLACE, array))
        return self.nccl.iallreduce(array)

    def broadcast(self, array: Array) -> None:
        if isinstance(array, np.ndarray):
            self.comm.Bcast(array)
        else:
            self.nccl.broadcast(array)

    def allgather(self, value: T) -> list[T]:
        values: list[T] = self.comm.allgather(value)
        return values

    def abort(self, code: int) -> NoReturn:
        sys.stdout.flush()
        sys.stderr.flush()
        self.comm.Abort(code)
        raise SystemExit(code)

    @cached_property
    def nccl(self) -> Nccl:
        """Created for the first CuPy array, when every rank has selected its device."""
        return Nccl(self)


class MpiRequest:
    """A request of MPI; most MPI libraries make progress during calls only, hence `poll`."""

    def __init__(self, request: Any) -> None:
        self.request = request

    def poll(self) -> None:
        self.request.Test()

    def wait(self) -> None:
        self.request.Wait()
