"""Batch norm over several ranks, switched on and off."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from minires.nn.layers import BatchNorm2d
from minires.nn.module import Module
from minires.parallel.communicator import Communicator


def synchronise(model: Module, ranks: Communicator | None) -> None:
    """From now on the batch norms take their statistics over all ranks' batches; None: over their own."""
    for module in model.modules():
        if isinstance(module, BatchNorm2d):
            module.communicator = ranks


@contextmanager
def unsynchronised(model: Module) -> Iterator[None]:
    """Within it the batch norms ask no other rank."""
    norms = [(m, m.communicator) for m in model.modules() if isinstance(m, BatchNorm2d)]
    synchronise(model, None)
    try:
        yield
    finally:
        for norm, ranks in norms:
            norm.communicator = ranks
