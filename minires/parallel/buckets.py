"""Gradients in buckets: the sums over the ranks are under way while backward still computes the next gradients.

Backward goes from the last layer to the first, and so do the buckets.  As soon as the last gradient of a bucket is
complete, its sum begins; the step waits for all of them (Li et al., PyTorch Distributed, VLDB 2020, section 3.2).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from minires.arrays import Array, array_module
from minires.autograd import Function
from minires.context import Observer
from minires.parallel.communicator import Communicator, Request
from minires.tensor import Tensor

LARGEST = 25 * 2**20  # bytes


class Bucket:
    """Some parameters whose gradients lie one after another in one array."""

    def __init__(self, params: Sequence[Tensor]) -> None:
        self.params = params
        first = params[0].data
        self.flat: Array = array_module(first).empty(sum(p.size for p in params), first.dtype)
        self.views: list[Array] = []
        start = 0
        for p in params:
            self.views.append(self.flat[start : start + p.size].reshape(p.shape))
            start += p.size
        self.missing = {id(p) for p in params}
        self.request: Request | None = None


class Buckets(Observer):
    """Sums the gradients of `params` over all ranks: an observer of the walk that sees each leaf's last gradient.

        with buckets.of(loss):
            loss.backward()
        # now every .grad is the sum

    params         leaf Tensors, in the order in which forward uses them; the network and its tape are every rank's
    largest_bytes  of a bucket, which holds one parameter at least; None: a quarter of all, at most 25 MB, so that
                   there is something to overlap in a small network too

    Afterwards the gradients are views of the buckets' memory, which the next walk gives to new ones.
    """

    def __init__(self, params: Sequence[Tensor], communicator: Communicator, largest_bytes: int | None = None) -> None:
        self.params, self.communicator = list(params), communicator
        total = sum(p.data.nbytes for p in self.params)
        self.largest = min(LARGEST, -(-total // 4)) if largest_bytes is None else largest_bytes
        self.buckets: list[Bucket] = []
        self.kinds: list[Any] = []
        self.launched = 0

    def of(self, output: Tensor) -> Buckets:
        """Before the backward of `output`, whose gradients are to be summed."""
        kinds = [(type(p.data), p.dtype) for p in self.params]
        if self.kinds != kinds:  # the first time, or moved or converted since
            self.kinds = kinds
            self.buckets = [Bucket(params) for params in self._divided()]
            self.place: dict[int, tuple[Bucket, int]] = {
                id(p): (bucket, position) for bucket in self.buckets for position, p in enumerate(bucket.params)
            }
        for bucket in self.buckets:
            bucket.missing = {id(p) for p in bucket.params}
            bucket.request = None
        self.launched = 0
        self.uses = _uses_of_leaves(output)
        self.complete: list[Tensor] = []
        return self

    def before_backward(self, node: Function, grad_output: Array) -> None:
        """By now the walk has added what the node before sent to its leaves."""
        for leaf in self.complete:
            self._ready(leaf)
        self.complete = []

    def after_backward(self, node: Function, grad_output: Array, grads: tuple[Array | None, ...]) -> None:
        for leaf in (parent for parent in node.parents if isinstance(parent, Tensor)):
            if leaf not in self.uses:  # of another walk
                continue
            self.uses[leaf] -= 1
            if self.uses[leaf] == 0:
                self.complete.append(leaf)

    def __exit__(self, *exc_info: object) -> None:
        """Returns when every gradient is the sum over all ranks.  A parameter without a gradient stays without."""
        super().__exit__(*exc_info)
        if exc_info[0] is not None:
            return
        for p in self.params:
            if id(p) in self.place[id(p)][0].missing:
                self._ready(p)
        for bucket in self.buckets:
            assert bucket.request is not None
            bucket.request.wait()

    def _ready(self, leaf: Tensor) -> None:
        """The leaf's gradient is complete: it goes into its bucket, which goes on its way if it was the last."""
        found = self.place.get(id(leaf))
        if found is None:
            return
        bucket, position = found
        if leaf.grad is not None:
            bucket.views[position][...] = leaf.grad
            leaf.grad = bucket.views[position]
        else:
            bucket.views[position][...] = 0
        bucket.missing.discard(id(leaf))
        self._launch()

    def _launch(self) -> None:
        """In the order of the buckets, which is every rank's; those on their way get a turn meanwhile."""
        for bucket in self.buckets[: self.launched]:
            assert bucket.request is not None
            bucket.request.poll()
        while self.launched < len(self.buckets) and not self.buckets[self.launched].missing:
            bucket = self.buckets[self.launched]
            bucket.request = self.communicator.iallreduce(bucket.flat)
            self.launched += 1

    def _divided(self) -> list[list[Tensor]]:
        """The parameters from the last to the first, in groups of one dtype and at most `largest` bytes."""
        groups: list[list[Tensor]] = []
        size: Any = 0
        for p in reversed(self.params):
            if groups and groups[-1][0].dtype == p.dtype and size + p.data.nbytes <= self.largest:
                groups[-1].append(p)
                size += p.data.nbytes
            else:
                groups.append([p])
                size = p.data.nbytes
        return groups


def _uses_of_leaves(output: Tensor) -> dict[Tensor, int]:
    """How often each leaf stands among the inputs of the nodes behind `output`."""
    uses: dict[Tensor, int] = {}
    ahead = [output.node] if output.node else []
    seen = set(ahead)
    while ahead:
        for parent in ahead.pop().parents:
            if isinstance(parent, Tensor):
                uses[parent] = uses.get(parent, 0) + 1
            elif parent is not None and parent not in seen:
                seen.add(parent)
                ahead.append(parent)
    return uses
