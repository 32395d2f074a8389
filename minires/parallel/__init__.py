"""Data-parallel training: every process has the whole network and a part of every batch; gradients are summed.

    mpirun -n 4 minires train resnet56

`communicator` is the interface between ranks, which `mpi` and `nccl` implement; `shard` divides a batch; `buckets` sums
gradients during backward; `synchronising` normalises over the images of all ranks; `agreement` raises an error on all
ranks together and compares their numbers; `launch` detects the processes that mpirun started.
"""

from minires._lazy import directory
from minires.parallel.agreement import RanksDisagree, agreed, as_agreed, by_first, expect_same, together
from minires.parallel.buckets import Buckets
from minires.parallel.communicator import Alone, Communicator, Request, as_communicator
from minires.parallel.launch import begun, launched, library, world
from minires.parallel.shard import Shard
from minires.parallel.synchronising import SyncBatchNorm, sync_batch_norm, synchronise, unsynchronised

__all__ = [
    "Alone",
    "Buckets",
    "Communicator",
    "RanksDisagree",
    "Request",
    "Shard",
    "SyncBatchNorm",
    "agreed",
    "as_agreed",
    "as_communicator",
    "begun",
    "by_first",
    "expect_same",
    "launched",
    "library",
    "sync_batch_norm",
    "synchronise",
    "together",
    "unsynchronised",
    "world",
]
__dir__ = directory(globals())
