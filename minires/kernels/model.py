"""The GEMM ladder's counts, and the time of a product on a GPU by a model: modelled, not measured.

The counts of two small products (profile.py) give the counts of a large one, because they grow with M·N·K and with M·N.
The time is that of the busiest unit, with the idle multiprocessors of the last wave of blocks.  The model assumes
- the boost clock, no hits in L1 (each sector that a warp requests comes from L2), A, B and C once from or to DRAM;
- that the blocks of a multiprocessor hide every latency;
- that every instruction of the main loop runs (machine_code.py), also the branches for other layouts.
So it ranks the rungs and names what bounds them; its milliseconds are not those of a device.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from minires.backends.kernels import gemm
from minires.backends.kernels.catalogue import GEMMS
from minires.backends.unavailable import BackendUnavailable
from minires.kernels import machine_code
from minires.kernels.launches import launches_of
from minires.kernels.profile import Profile, profile_rung

M, N, DEPTHS = 128, 256, (32, 64)  # of the profiled products: multiples of every tile
SIZE = 4096  # M, N and K of the modelled product


@dataclass(frozen=True)
class Device:
    """What a GPU does in a clock.  Constants of the model, to be calibrated on a device.

    architecture       compute capability, 90 for sm_90
    ffma               float multiply-adds of a multiprocessor
    mma                mma.sync of a multiprocessor: 16×8×8 in tf32, or 16×8×16 in bf16
    l2                 bytes from L2 to all multiprocessors
    dram               bytes a second
    """

    architecture: int
    multiprocessors: int
    clock: float
    ffma: int
    mma: float
    l2: int
    dram: float


# Multiprocessors, boost clock, tensor cores' peak and DRAM: NVIDIA's A100, H100 and Ada whitepapers, H200 data sheet.
# ffma: CUDA C++ Programming Guide, throughput of arithmetic instructions.
# mma of Hopper: some 62 % of the peak, as microbenchmarks found; only wgmma reaches it (Luo et al., arXiv:2402.13499).
# l2: A100 whitepaper; NVIDIA publishes none for Hopper (taken as A100's) and Ada (an estimate).
DEVICES = {
    "h200": Device(90, 132, 1.98e9, 128, 0.62, 5120, 4.8e12),
    "h100": Device(90, 132, 1.98e9, 128, 0.62, 5120, 3.35e12),
    "a100": Device(80, 108, 1.41e9, 64, 0.5, 5120, 2.04e12),
    "rtx4090": Device(89, 128, 2.52e9, 128, 0.125, 2048, 1.01e12),
}
ISSUED = 4  # instructions of warps that a multiprocessor issues in a clock (whitepapers: four schedulers)
SECTORS = 4  # sectors that L1 serves in a clock: 128 bytes, as much as a wavefront of shared memory


@dataclass(frozen=True)
class Row:
    """A rung in the table; the last five are None without the extra `contract`.

    load_sectors, store_sectors  of an average request of global memory, cp.async among the loads
    wavefronts                   of loads from shared memory, for each k and warp
    share                        of multiply-adds or mma among the instructions of the main loop
    milliseconds, bound          modelled for a product of 4096×4096 matrices, and the busiest unit
    """

    rung: str
    load_sectors: float
    store_sectors: float
    wavefronts: float
    registers: int | None = None
    blocks: int | None = None
    share: float | None = None
    milliseconds: float | None = None
    bound: str | None = None


def table(device: str = "h200") -> list[Row]:
    """The rows of the GEMM ladder."""
    try:
        machine_code.compiler()
        return [row(rung, DEVICES[device]) for rung in GEMMS]
    except BackendUnavailable:
        return [row(rung, None) for rung in GEMMS]


def row(rung: str, device: Device | None) -> Row:
    """The counts of a rung and, for a device, its modelled time.  Raises BackendUnavailable like machine_code.py."""
    profiles = [profile_rung(rung, {"M": M, "N": N, "K": K}) for K in DEPTHS]
    deep = profiles[1]
    loads, stores = ("global load", "cp.async load"), ("global store",)
    k_and_warps = DEPTHS[1] * _blocks(rung, M, N) * gemm.threads_of(rung) / 32
    counts = Row(
        rung,
        _sum(deep, "sectors", *loads) / _sum(deep, "requests", *loads),
        _sum(deep, "sectors", *stores) / _sum(deep, "requests", *stores),
        _sum(deep, "wavefronts", "shared load", "ldmatrix") / k_and_warps,
    )
    if device is None:
        return counts
    code = machine_code.report(rung, device.architecture)
    clocks = _clocks(profiles, code.share, device)
    bound = max(clocks, key=lambda unit: clocks[unit])
    waves = _blocks(rung, SIZE, SIZE) / (device.multiprocessors * code.blocks)
    time = 1e3 * clocks[bound] / device.clock * math.ceil(waves) / waves
    return replace(
        counts, registers=code.registers, blocks=code.blocks, share=code.share, milliseconds=time, bound=bound
    )


def _clocks(profiles: list[Profile], share: float, device: Device) -> dict[str, float]:
    """Clocks of each unit for the large product with every multiprocessor busy."""

    def large(what: str, *kinds: str) -> float:
        shallow, deep = (_sum(profile, what, *kinds) for profile in profiles)
        return SIZE**2 / (M * N) * (shallow + (deep - shallow) / (DEPTHS[1] - DEPTHS[0]) * (SIZE - DEPTHS[0]))

    mma, sectors, busy = large("requests", "mma"), large("sectors"), device.multiprocessors
    return {
        "issue": (mma or SIZE**3 / 32) / share / ISSUED / busy,
        "tensor cores" if mma else "FFMA": (mma / device.mma if mma else SIZE**3 / device.ffma) / busy,
        "L1 and shared": (large("wavefronts") + sectors / SECTORS) / busy,
        "L2": 32 * sectors / device.l2,
        "DRAM": 3 * 4 * SIZE**2 / device.dram * device.clock,
    }


def _sum(profile: Profile, what: str, *kinds: str) -> int:
    return sum(getattr(site, what) for site in profile.sites if site.kind in kinds or not kinds)


def _blocks(rung: str, rows: int, columns: int) -> int:
    """Blocks of the rung's first launch."""
    a, b, out = (np.empty(shape, np.float32) for shape in ((rows, rows), (rows, columns), (rows, columns)))
    return math.prod(launches_of(rung, {}, a, b, out)[0].grid)
