"""Training on several processes: each has the whole network and a part of every batch; gradients are summed.

    mpirun -n 4 minires train resnet56

`communicator` is what a rank asks of the others, `mpi` and `nccl` answer it; `shard` says which images are whose;
`buckets` sums gradients while backward goes on; `agreement` has all ranks fail together, and checks that they hold the
same numbers; `launch` finds out which processes belong together.
"""

from typing import TYPE_CHECKING

from minires._lazy import directory, loader

if TYPE_CHECKING:
    from minires.parallel.agreement import RanksDisagree, agreed, as_agreed, by_first, expect_same, together
    from minires.parallel.buckets import Buckets
    from minires.parallel.communicator import Alone, Communicator, Request, as_communicator
    from minires.parallel.launch import begun, launched, library, world
    from minires.parallel.shard import Shard

__all__ = [
    "Alone",
    "Buckets",
    "Communicator",
    "RanksDisagree",
    "Request",
    "Shard",
    "agreed",
    "as_agreed",
    "as_communicator",
    "begun",
    "by_first",
    "expect_same",
    "launched",
    "library",
    "together",
    "world",
]
__dir__ = directory(globals())
__getattr__ = loader(  # the core needs the communicator's interface and shards alone
    globals(),
    {
        **dict.fromkeys(
            ("RanksDisagree", "agreed", "as_agreed", "by_first", "expect_same", "together"),
            "minires.parallel.agreement",
        ),
        **dict.fromkeys(("Buckets",), "minires.parallel.buckets"),
        **dict.fromkeys(("Alone", "Communicator", "Request", "as_communicator"), "minires.parallel.communicator"),
        **dict.fromkeys(("begun", "launched", "library", "world"), "minires.parallel.launch"),
        **dict.fromkeys(("Shard",), "minires.parallel.shard"),
    },
)
