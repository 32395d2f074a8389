"""Gradient buckets: all-reduces overlap with the rest of backward.

The buckets follow the order of backward, from the last layer to the first.  The all-reduce of a bucket starts with its
last gradient; the optimiser step waits for all buckets (Li et al., PyTorch Distributed, VLDB 2020, section 3.2).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from minires.arrays import Array, array_module
from minires.autograd import Function
from minires.context import Observer
from minires.parallel.communicator import Communicator, Request
from minires.tensor import Tensor

LARGEST = 25 * 2**20  # bytes


class Bucket:
    """Some parameters with a contiguous array of their gradients."""

    def __init__(self, params: Sequence[Tensor]) -> None:
        self.params = params
        first = params[0].data
        self.flat: Array = array_module(first).empty(sum(p.size for p in params), first.dtype)
        ends = accumulate(p.size for p in params)
        self.views = {p: self.flat[end - p.size : end].reshape(p.shape) for p, end in zip(params, ends, strict=True)}
        self.missing: set[Tensor] = set()
        self.request: Request | None = None


class Buckets(Observer):
    """Sums the gradients of `params` over all ranks: an observer of backward that detects each leaf's last gradient.

        with buckets.of(loss):
            loss.backward()
        # now every .grad is the sum

    params         leaf Tensors in the order of forward; every rank has the same network and tape
    largest_bytes  of a bucket with several parameters; None: a quarter of all gradients, at most 25 MB, for overlap in
                   small networks too

    The gradients become views of the buckets' memory, which the next backward overwrites.
    """

    def __init__(self, params: Sequence[Tensor], communicator: Communicator, largest_bytes: int | None = None) -> None:
        self.params, self.communicator = list(params), communicator
        total = sum(p.data.nbytes for p in self.params)
        self.largest = min(LARGEST, -(-total // 4)) if largest_bytes is None else largest_bytes
        self.buckets: list[Bucket] = []
        self.kinds: list[Any] = []
        self.launched = 0

    def of(self, output: Tensor) -> Buckets:
        """Prepares for the backward of `output`."""
        kinds = [(type(p.data), p.dtype) for p in self.params]
        if self.kinds != kinds:  # in the first call, and after a change of device or dtype
            self.kinds = kinds
            self.buckets = [Bucket(params) for params in self._divided()]
            self.place = {p: bucket for bucket in self.buckets for p in bucket.params}
        for bucket in self.buckets:
            bucket.missing, bucket.request = set(bucket.params), None
        self.launched = 0
        self.uses = _uses_of_leaves(output)
        self.complete: list[Tensor] = []
        return self

    def before_backward(self, node: Function, grad_output: Array) -> None:
        """By now backward has accumulated the gradients of the previous node's leaves."""
        for leaf in self.complete:
            self._ready(leaf)
        self.complete = []

    def after_backward(self, node: Function, grad_output: Array, grads: tuple[Array | None, ...]) -> None:
        for leaf in (parent for parent in node.parents if isinstance(parent, Tensor)):
            if leaf not in self.uses:  # of another tape
                continue
            self.uses[leaf] -= 1
            if self.uses[leaf] == 0:
                self.complete.append(leaf)

    def __exit__(self, *exc_info: object) -> None:
        """Waits until every gradient is the sum over all ranks; a missing gradient stays None."""
        super().__exit__(*exc_info)
        if exc_info[0] is not None:
            return
        for p in self.params:
            if p in self.place[p].missing:
                self._ready(p)
        for bucket in self.buckets:
            assert bucket.request is not None
            bucket.request.wait()

    def _ready(self, leaf: Tensor) -> None:
        """Copies a complete gradient into its bucket, polls and starts all-reduces of complete buckets.

        The order of the buckets is equal on all ranks, and so is the order of the all-reduces.
        """
        bucket = self.place.get(leaf)
        if bucket is None:
            return
        view = bucket.views[leaf]
        view[...] = 0 if leaf.grad is None else leaf.grad
        leaf.grad = None if leaf.grad is None else view
        bucket.missing.discard(leaf)
        for bucket in self.buckets[: self.launched]:
            assert bucket.request is not None
            bucket.request.poll()
        while self.launched < len(self.buckets) and not self.buckets[self.launched].missing:
            bucket = self.buckets[self.launched]
            bucket.request = self.communicator.iallreduce(bucket.flat)
            self.launched += 1

    def _divided(self) -> list[list[Tensor]]:
        """The parameters from last to first, in groups of one dtype and at most `largest` bytes."""
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
    """How often each leaf is an input of a node in the tape of `output`."""
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
