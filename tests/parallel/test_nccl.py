"""The GPU's sums against a CuPy that notes what it is asked for: the order of the two streams, and the arguments.

That NCCL then sums is NCCL's; nothing here runs on a GPU.
"""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from minires.backends import BackendUnavailable
from minires.parallel.nccl import Nccl, use_own_device


class Event:
    def __init__(self, log, disable_timing):
        assert disable_timing
        self.log = log

    def record(self, stream):
        self.stream = stream.name
        self.log.append(("record", stream.name))


class Stream:
    def __init__(self, log, name, ptr):
        self.log, self.name, self.ptr = log, name, ptr

    def wait_event(self, event):
        self.log.append(("wait", self.name, event.stream))


class NcclCommunicator:
    def __init__(self, size, identifier, rank):
        self.arguments, self.log = (size, identifier, rank), None

    def allReduce(self, *arguments):  # NCCL's name
        self.log.append(("allReduce", *arguments))

    def broadcast(self, *arguments):
        self.log.append(("broadcast", *arguments))


@pytest.fixture
def cupy(monkeypatch):
    """What of CuPy 13 is used: cupy.cuda.Stream, Event, get_current_stream, Device, nccl, runtime."""
    log = []
    module = ModuleType("cupy")
    compute = Stream(log, "compute", 11)

    def stream(non_blocking):
        assert non_blocking  # else it would wait for the default stream
        return Stream(log, "nccl", 22)

    nccl = SimpleNamespace(
        available=True, get_unique_id=lambda: b"id", NcclCommunicator=NcclCommunicator,
        NCCL_FLOAT32=7, NCCL_FLOAT64=8, NCCL_SUM=0,
    )  # fmt: skip
    module.cuda = SimpleNamespace(
        Stream=stream, Event=lambda disable_timing: Event(log, disable_timing), get_current_stream=lambda: compute,
        nccl=nccl, runtime=SimpleNamespace(getDeviceCount=lambda: 4),
        Device=lambda number: SimpleNamespace(use=lambda: log.append(("device", number))),
    )  # fmt: skip
    module.log = log
    monkeypatch.setitem(sys.modules, "cupy", module)
    return module


def ranks(rank=0, size=2, **more):
    return SimpleNamespace(rank=rank, size=size, allgather=lambda value: [b"rank 0's", value], **more)


def array(dtype=np.float32):
    return SimpleNamespace(data=SimpleNamespace(ptr=1000), size=6, dtype=np.dtype(dtype))


@pytest.fixture
def nccl(cupy):
    found = Nccl(ranks())
    found.comm.log = cupy.log
    return found


@pytest.mark.parametrize("rank", [0, 1])
def test_all_join_by_rank_0s_identifier(cupy, rank):
    assert Nccl(ranks(rank)).comm.arguments == (2, b"rank 0's", rank)


@pytest.mark.parametrize(("dtype", "kind"), [(np.float32, 7), (np.float64, 8)])
def test_a_sum_waits_for_what_computed_and_is_waited_for_by_what_computes(cupy, nccl, dtype, kind):
    request = nccl.iallreduce(array(dtype))
    assert cupy.log == [
        ("record", "compute"),
        ("wait", "nccl", "compute"),  # the gradients are complete
        ("allReduce", 1000, 1000, 6, kind, 0, 22),
        ("record", "nccl"),
    ]
    request.poll()
    assert len(cupy.log) == 4
    request.wait()
    assert cupy.log[4:] == [("wait", "compute", "nccl")]


def test_a_broadcast(cupy, nccl):
    nccl.broadcast(array())
    assert cupy.log == [
        ("record", "compute"),
        ("wait", "nccl", "compute"),
        ("broadcast", 1000, 1000, 6, 7, 0, 22),
        ("record", "nccl"),
        ("wait", "compute", "nccl"),
    ]


def test_a_device_for_each_rank_of_a_machine(cupy):
    use_own_device(ranks(rank=5, local_rank=1, local_size=4))
    assert cupy.log == [("device", 1)]
    with pytest.raises(BackendUnavailable, match="8 ranks on this machine need a GPU each, there are 4"):
        use_own_device(ranks(local_rank=1, local_size=8))


def test_a_cupy_without_nccl(cupy):
    cupy.cuda.nccl.available = False
    with pytest.raises(BackendUnavailable, match="NCCL"):
        Nccl(ranks())
