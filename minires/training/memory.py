"""Whether a training run fits into the memory that there is, asked before it begins."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil

from minires import models
from minires.inspect import PeakMemory, Summary
from minires.nn import Module
from minires.training.config import Config, ConfigError

# With what the allocator cannot use between the predicted arrays: a fifth at most where the native backend holds its
# own, a third where they come and go by malloc, measured by benchmarks/memory.py.
GAPS = {"native": 1.2, "reference": 4 / 3}


def check_weights(config: Config, options: Mapping[str, Any]) -> None:
    """Raises ConfigError, before the network is made, where its weights alone are more than the memory that is free.

    options   as for `models.create`, which raises TypeError and ValueError for others
    """
    try:
        shapes = models.shapes(config.network, **options)
    except MemoryError as error:
        told = f"the weights of {config.network} exceed the memory ({error})"
        raise ConfigError(f"{told}: a smaller network or --width fits") from None
    needed = (8 if config.dtype == "float64" else 4) * sum(math.prod(shape) for shape in shapes.values())
    if needed > (free := available()):
        told = f"the weights of {config.network} take {_mebibytes(needed)}, and {_mebibytes(free)} are free"
        raise ConfigError(f"{told}: a smaller network or --width fits")


def check_memory(config: Config, model: Module, layers: Summary, batch: int, processes: int = 1, here: int = 1) -> None:
    """Raises ConfigError, with a --micro-batch that would fit, where the predicted peak of an update does not.

    layers      `summary` of the model
    batch       images of the largest batch: fewer than the configured ones where the data set is small
    processes   that train together, each with a share of the batch and, of the gradients, a second array to sum them in
    here        how many of them are on this machine, each with as much of its memory

    For the other backends nothing is predicted: on a GPU a run that does not fit ends at its first update.
    """
    if config.backend not in ("native", "reference"):
        return
    images = -(-min(config.micro_batch or batch, batch) // processes)
    itemsize = 8 if config.dtype == "float64" else 4
    limit = available(here)
    # All outputs and four arrays a parameter (itself, gradient, velocity, one more) are more than the peak, and twice
    # that is more by far: a run that is so far from the limit is not kept waiting for a measurement.
    if 2 * itemsize * (images * layers.activation_bytes // 4 + 4 * layers.params) < limit:
        return
    try:
        peak = PeakMemory(model, layers.input_shape)
    except MemoryError:
        told = f"{config.network} on {config.data} needs more than the {_mebibytes(limit)} that are free"
        raise ConfigError(f"{told} for a handful of images: a smaller network, --width or --size fits") from None
    prepared = 4 * 4 * batch // processes * math.prod(layers.input_shape)  # batches of float32: see Loader
    sums = itemsize * layers.params  # of the gradients, which are there while another part goes through the network
    buckets = sums if processes > 1 else 0
    gaps = GAPS[config.backend]
    needed = int(gaps * (peak(images) + (sums if config.micro_batch else 0) + buckets)) + prepared
    if needed <= limit:
        return
    told = f"{config.network} on {config.data} needs about {_mebibytes(needed)} at the peak of an update of {images} "
    told += f"images at a time, and {_mebibytes(limit)} are free"
    told += f" for each of {here} processes" if here > 1 else ""
    if prepared >= limit:
        raise ConfigError(f"{told}: batches of {batch} images take {_mebibytes(prepared)}; a smaller --batch-size fits")
    # A little less, so that the next measurement, of the run that does as it is told here, is within the limit too.
    fits = peak.largest_batch(max(0, int(0.98 * (limit - prepared) / gaps) - sums - buckets))
    if fits == 0:
        raise ConfigError(f"{told}: not even one image fits; a smaller network, --width or --size does")
    over = fits * processes if config.sync_batch_norm else fits
    raise ConfigError(
        f"{told}: --micro-batch {fits * processes} fits (gradients add up to the batch's, batch norm takes its "
        f"statistics over at most {over} images)"
    )


def available(processes: int = 1) -> int:
    """Bytes that each of so many like processes can still take: of the machine, of its control group, of its limit."""
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
    """What containers and batch systems leave: of the process's group and each above it, in either version."""
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
            except OSError:  # inside a container the path is the host's: only the top is there
                continue
            if most.isdigit():
                yield int(most) - taken + int(stat.get(cache, 0))  # a file's pages make room when they must


def _mebibytes(size: int) -> str:
    return f"{size / 2**20:,.0f} MiB"
