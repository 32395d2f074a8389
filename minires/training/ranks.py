"""What a run asks of several ranks before it begins, and before they measure or save."""

from __future__ import annotations

import os

from minires import backends
from minires.data import Loader
from minires.inspect import Summary
from minires.nn import Module
from minires.parallel import Communicator
from minires.training.config import Config, ConfigError
from minires.training.network import values_of_an_image
from minires.training.parts import parts


def take_place(config: Config, ranks: Communicator) -> None:
    """The threads and the GPU that this rank computes with: its share of the machine, unless the run says otherwise."""
    if config.threads is not None:
        backends.set_num_threads(config.threads)
    elif ranks.size > 1:
        share = (os.cpu_count() or 1) // ranks.local_size
        backends.set_num_threads(max(1, min(share, backends.get_num_threads())))  # mpirun may have bound it to fewer
    if ranks.size > 1 and backends.on_gpu(config.backend):
        from minires.parallel.nccl import use_own_device

        use_own_device(ranks)


def expect_work_for_all(config: Config, layers: Summary, loader: Loader, tested: int, ranks: Communicator) -> None:
    """Raises ConfigError where some batch has no image for a rank, or too few for its batch norm.

    layers   `summary` of the network
    loader   of the training images
    tested   how many test images there are
    """
    if ranks.size == 1:
        return
    if config.batch_size < ranks.size:
        raise ConfigError(f"batch_size must be at least {ranks.size}, an image a rank, got {config.batch_size}")
    batches = {loader.images_of(0), loader.images_of(len(loader) - 1)}
    smallest, whole = min((part.size, N) for N in batches for part in parts(N, config.micro_batch))
    part = f"{smallest} images" + ("" if smallest == whole else f" (a part of a batch of {whole})")
    if smallest < ranks.size:
        raise ConfigError(f"batch_size must leave no batch with fewer images than the {ranks.size} ranks, got {part}")
    if tested < ranks.size:
        raise ConfigError(f"the test set must hold an image for each of the {ranks.size} ranks, got {tested}")
    if not config.sync_batch_norm and smallest // ranks.size * values_of_an_image(layers) < 2:
        raise ConfigError(
            f"sync_batch_norm must be on for {ranks.size} ranks with a batch of {part}: a rank's own batch norm would "
            "have one value a channel"
        )


def take_statistics_of_first(model: Module, ranks: Communicator) -> None:
    """The running statistics of every rank become rank 0's: what is measured and saved is one network."""
    for _, buffer in model.named_buffers():
        ranks.broadcast(buffer)
