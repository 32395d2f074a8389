"""Ranks that mpirun started, by mpi4py."""

from __future__ import annotations

import os
import platform
import sys
from typing import Any, NoReturn, TypeVar

import numpy as np

from minires.arrays import Array
from minires.parallel.communicator import Request

T = TypeVar("T")


class MpiCommunicator:
    """The ranks of MPI.COMM_WORLD; arrays of NumPy are summed by MPI, those of CuPy by NCCL."""

    def __init__(self) -> None:
        from mpi4py import MPI

        self.mpi: Any = MPI
        self.comm: Any = MPI.COMM_WORLD.Dup()  # what another library sends over the world does not meet ours
        self.rank, self.size = self.comm.rank, self.comm.size
        local = self.comm.Split_type(MPI.COMM_TYPE_SHARED)
        self.local_rank, self.local_size = local.rank, local.size
        self.name = f"rank {self.rank} ({platform.node()}, process {os.getpid()})"
        self._nccl: Any = None

    def allreduce(self, array: Array) -> None:
        if isinstance(array, np.ndarray):
            self.comm.Allreduce(self.mpi.IN_PLACE, array)
        else:
            self.nccl.iallreduce(array).wait()

    def iallreduce(self, array: Array) -> Request:
        if isinstance(array, np.ndarray):
            return MpiRequest(self.comm.Iallreduce(self.mpi.IN_PLACE, array))
        request: Request = self.nccl.iallreduce(array)
        return request

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

    @property
    def nccl(self) -> Any:
        """Made when the first array of CuPy comes: every rank's device has been chosen by then."""
        if self._nccl is None:
            from minires.parallel.nccl import Nccl

            self._nccl = Nccl.among(self)
        return self._nccl


class MpiRequest:
    """MPI libraries go on with a sum while they are called, and few of them at any other time."""

    def __init__(self, request: Any) -> None:
        self.request = request

    def poll(self) -> None:
        self.request.Test()

    def wait(self) -> None:
        self.request.Wait()
