"""All-reduces on GPUs by NCCL, one device a rank, on a stream beside the compute stream.

    compute   ── backward of layer 5 ──┬── backward of layer 4 ── … ──────┬── step
                                       ╰─ event                     event ╯
    nccl                                 ╰── sum of layer 5's gradients ──╯

Events order the two streams, so the host doesn't wait.
"""

from __future__ import annotations

from typing import Any

from minires.arrays import Array
from minires.backends import BackendUnavailable
from minires.parallel.communicator import Communicator, Request


class Nccl:
    """An NCCL communicator (cupy.cuda.nccl) and its stream."""

    def __init__(self, ranks: Communicator) -> None:
        """Connects every rank's current device; `ranks` distributes rank 0's identifier."""
        import cupy  # optional

        nccl = cupy.cuda.nccl
        if not nccl.available:
            raise BackendUnavailable("training on several GPUs needs NCCL, which this CuPy was built without")
        identifier = ranks.allgather(nccl.get_unique_id() if ranks.rank == 0 else None)[0]
        self.cupy, self.comm = cupy, nccl.NcclCommunicator(ranks.size, identifier, ranks.rank)
        self.stream = cupy.cuda.Stream(non_blocking=True)
        self.types = {"float32": nccl.NCCL_FLOAT32, "float64": nccl.NCCL_FLOAT64}

    def iallreduce(self, array: Array) -> Request:
        nccl = self.cupy.cuda.nccl
        pointer = array.data.ptr  # type: ignore[attr-defined]
        self.stream.wait_event(self._now(self.cupy.cuda.get_current_stream()))  # which computes the array
        self.comm.allReduce(pointer, pointer, array.size, self.types[array.dtype.name], nccl.NCCL_SUM, self.stream.ptr)
        return NcclRequest(self.cupy, self._now(self.stream), array)

    def broadcast(self, array: Array) -> None:
        pointer = array.data.ptr  # type: ignore[attr-defined]
        self.stream.wait_event(self._now(self.cupy.cuda.get_current_stream()))
        self.comm.broadcast(pointer, pointer, array.size, self.types[array.dtype.name], 0, self.stream.ptr)
        NcclRequest(self.cupy, self._now(self.stream), array).wait()

    def _now(self, stream: Any) -> Any:
        event = self.cupy.cuda.Event(disable_timing=True)
        event.record(stream)
        return event


class NcclRequest:
    """Keeps the array alive: otherwise CuPy's pool could reuse its memory on one stream while the other writes it."""

    def __init__(self, cupy: Any, done: Any, array: Array) -> None:
        self.cupy, self.done, self.array = cupy, done, array

    def poll(self) -> None: ...

    def wait(self) -> None:
        self.cupy.cuda.get_current_stream().wait_event(self.done)


def use_own_device(ranks: Communicator) -> None:
    """Selects the k-th GPU of the machine for its rank k.

    Raises BackendUnavailable with fewer GPUs than ranks: NCCL accepts each GPU once.
    """
    import cupy  # optional

    count = cupy.cuda.runtime.getDeviceCount()
    if count < ranks.local_size:
        raise BackendUnavailable(f"{ranks.local_size} ranks on this machine need a GPU each, there are {count}")
    cupy.cuda.Device(ranks.local_rank).use()
