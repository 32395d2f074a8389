"""Ranks that are threads of one process, with deterministic sums.

A rank that fails breaks the barrier, so that the other ranks fail too instead of waiting for it.
"""

from __future__ import annotations

import sys
import threading
from concurrent.futures import ThreadPoolExecutor

from minires import backends
from minires.parallel import agreed


class Meeting:
    """An all-gather of `size` threads."""

    def __init__(self, size):
        self.size = size
        self.barrier = threading.Barrier(size, timeout=60)
        self.values = [None] * size

    def exchange(self, rank, value):
        self.values[rank] = value
        self.barrier.wait()
        values = list(self.values)
        self.barrier.wait()  # no thread writes its next value before all have read these
        return values


class ThreadRank:
    """A communicator of `minires.parallel` among threads.  `log` lists its calls in order."""

    def __init__(self, meeting, rank):
        self.meeting, self.rank, self.size = meeting, rank, meeting.size
        self.local_rank, self.local_size = rank, meeting.size
        self.name = f"rank {rank}"
        self.log = []

    def allreduce(self, array):
        self.log.append(("sum", array.nbytes))
        self._sum(array)

    def _sum(self, array):
        parts = self.meeting.exchange(self.rank, array.copy())
        total = parts[0].copy()
        for part in parts[1:]:
            total += part  # in one order: the same bits everywhere
        array[...] = total

    def iallreduce(self, array):
        self.log.append(("begun", array.nbytes))
        return ThreadRequest(self, array)

    def broadcast(self, array):
        array[...] = self.meeting.exchange(self.rank, array.copy())[0]

    def allgather(self, value):
        return self.meeting.exchange(self.rank, value)

    def abort(self, code):
        self.meeting.barrier.abort()
        raise SystemExit(code)


class ThreadRequest:
    """Sums in `wait`, so that a use or a change of the array before is detected."""

    def __init__(self, rank, array):
        self.rank, self.array, self.kept = rank, array, array.copy()

    def poll(self):
        pass

    def wait(self):
        assert (self.array == self.kept).all(), "the array was changed while its sum was under way"
        self.rank.log.append(("waited", self.array.nbytes))
        self.rank._sum(self.array)


def on_ranks(size, work):
    """work(communicator) in `size` threads: their results in the order of the ranks, or the first one's error."""
    meeting = Meeting(size)
    backend = backends.active().name

    def run(rank):
        try:
            with backends.backend(backend):
                return work(ThreadRank(meeting, rank))
        except BaseException as error:
            if agreed(error) is None:  # an agreed error is raised on all ranks
                meeting.barrier.abort()
            raise

    switching = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)  # the threads wait for one another all the time
    try:
        with ThreadPoolExecutor(size) as pool:
            futures = [pool.submit(run, rank) for rank in range(size)]
    finally:
        sys.setswitchinterval(switching)
    errors = [future.exception() for future in futures]
    own = [e for e in errors if e is not None and not isinstance(e, threading.BrokenBarrierError)]
    for error in own or errors:
        if error is not None:
            raise error
    return [future.result() for future in futures]
