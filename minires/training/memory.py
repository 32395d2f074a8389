"""Checks before a training run that it fits into the free memory."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil

from minires import models
from minires.inspect import PeakMemory, Summary
from minires.nn import Module
from minires.parallel import Communicator
from minires.training.config import Config, ConfigError

# Factors for allocator fragmentation, measured by benchmarks/memory.py: at most a fifth with the native backend's own
# allocator, a third with malloc.
GAPS = {"native": 1.2, "reference": 4 / 3}


def check_weights(config: Config, options: Mapping[str, Any]) -> None:
    """Raises ConfigError, before the network is made, when its weights alone exceed the free memory.

    options   as for `models.create`, which raises TypeError and ValueError for invalid ones
    """
    remedy = "a smaller network or --width fits"
    try:
        shapes = models.shapes(config.network, **options)
    except MemoryError as error:
        raise ConfigError(f"the weights of {config.network} exceed the memory ({error}): {remedy}") from None
    needed = _itemsize(config) * sum(math.prod(shape) for shape in shapes.values())
    if needed > (free := available()):
        sizes = f"take {_mebibytes(needed)}, and {_mebibytes(free)} are free"
        raise ConfigError(f"the weights of {config.network} {sizes}: {remedy}")


def check_memory(config: Config, model: Module, layers: Summary, batch: int, ranks: Communicator) -> None:
    """Raises ConfigError, with a --micro-batch that fits, when the predicted peak of an update exceeds the free memory.

    layers   `summary` of the model
    batch    images of the largest batch, fewer than `batch_size` for a small data set
    ranks    each has a share of the batch and a second array of gradients; the ranks of one machine share its memory

    Only the native and the reference backend have a prediction: on a GPU the first update fails instead.
    """
    if config.backend not in ("native", "reference"):
        return
    images = -(-min(config.micro_batch or batch, batch) // ranks.size)
    itemsize = _itemsize(config)
    limit = available(ranks.local_size)
    # Twice all outputs and four arrays a parameter (itself, gradient, velocity, one more) is far above the peak: below
    # that the slow measurement is needless.
    if 2 * itemsize * (images * layers.activation_bytes // 4 + 4 * layers.params) < limit:
        return
    subject = f"{config.network} on {config.data} needs"
    try:
        peak = PeakMemory(model, layers.input_shape)
    except MemoryError:
        free = f"more than the {_mebibytes(limit)} that are free for a handful of images"
        raise ConfigError(f"{subject} {free}: a smaller network, --width or --size fits") from None
    prepared = 4 * 4 * batch // ranks.size * math.prod(layers.input_shape)  # batches of float32: see Loader
    sums = itemsize * layers.params  # of the gradients, kept while the next micro-batch is computed
    buckets = sums if ranks.size > 1 else 0
    gaps = GAPS[config.backend]
    needed = int(gaps * (peak(images) + (sums if config.micro_batch else 0) + buckets)) + prepared
    if needed <= limit:
        return
    share = f" for each of {ranks.local_size} processes" if ranks.local_size > 1 else ""
    misfit = f"{subject} about {_mebibytes(needed)} at the peak of an update of {images} images at a time, and "
    misfit += f"{_mebibytes(limit)} are free" + share
    if prepared >= limit:
        batches = f"batches of {batch} images take {_mebibytes(prepared)}"
        raise ConfigError(f"{misfit}: {batches}; a smaller --batch-size fits")
    # 2 % less, so that a run with the suggested --micro-batch also passes this check.
    fits = peak.largest_batch(max(0, int(0.98 * (limit - prepared) / gaps) - sums - buckets))
    if fits == 0:
        raise ConfigError(f"{misfit}: not even one image fits; a smaller network, --width or --size does")
    normalised = fits * ranks.size if config.sync_batch_norm else fits
    raise ConfigError(
        f"{misfit}: --micro-batch {fits * ranks.size} fits (gradients add up to the batch's, batch norm takes its "
        f"statistics over at most {normalised} images)"
    )


def _itemsize(config: Config) -> int:
    return 8 if config.dtype == "float64" else 4


def available(processes: int = 1) -> int:
    """Free bytes for each of `processes` equal processes: of the machine, of the control group, of their own limit."""
    shared = min([psutil.virtual_memory().available, *_control_groups()])
    return max(0, min([shared // processes, *_limits()]))


def _limits() -> Iterator[int]:
    try:
        import resource
    except ImportError:  # Windows has none
        return
    taken = psutil.Process().memory_info()
    for limit, so_far in ((resource.RLIMIT_AS, taken.vms), (resource.RLIMIT_DATA, getattr(taken, "data", 0))):
        soft, _ = resource.getrlimit(limit)
        if soft != resource.RLIM_INFINITY:
            yield soft - so_far


def _control_groups(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> Iterator[int]:
    """Free bytes under each memory limit of a container or batch system: of the process's control group (v1 or v2) and
    of each group above it."""
    if not own.exists():
        return
    for line in own.read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            top, limit, usage, cache = root, "memory.max", "memory.current", "inactive_file"
        elif controllers == "memory":
            top = root / "memory"
            limit, usage, cache = "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
        else:
            continue
        group = top / path.lstrip("/")
        for folder in (group, *group.parents):
            if not folder.is_relative_to(top):
                break
            try:
                most = (folder / limit).read_text().strip()
                taken = int((folder / usage).read_text())
                stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            except OSError:  # inside a container the path is the host's; only the top exists
                continue
            if most.isdigit():
                yield int(most) - taken + int(stat.get(cache, 0))  # file pages can be evicted


def _mebibytes(size: int) -> str:
    return f"{size / 2**20:,.0f} MiB"
