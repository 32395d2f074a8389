"""Ceilings of the device, and the ladder of matrix products beside cuBLAS."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import minires as mr
from benchmarks.gpu.clock import Clock, Time
from benchmarks.gpu.journal import Item, Row
from benchmarks.gpu.peers import Torch
from benchmarks.gpu.precision import growth_of, judge, peer_precision, precision_of
from minires.backends.kernels.catalogue import RUNGS
from minires.backends.kernels.gemm import gemm
from minires.backends.kernels.provider import Provider

SLOW, FAST = 3e11, 5e12  # operations a second that the rungs before gemm_04 and all others reach at least
CALLS = 22  # of a row: own and peer, warm-up and repeats
BF16_STORED = 2.0**-8


@dataclass
class Bench:
    """What every row needs.

    device   launches the kernels
    clock    times them
    peers    PyTorch
    """

    device: Provider
    clock: Clock
    peers: Torch
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))
    _kept: tuple[Any, Any] = (None, None)

    @property
    def xp(self) -> Any:
        return self.device.module

    def normal(self, *shape: int) -> Any:
        return self.xp.asarray(self.rng.standard_normal(shape, np.float32))

    def poisoned(self, *shape: int) -> Any:
        return self.xp.full(shape, np.nan, np.float32)

    def kept(self, key: Any, make: Callable[[], Any]) -> Any:
        """What `make` returned for this key; that of the key before is released."""
        if self._kept[0] != key:
            self._kept = (None, None)
            self._kept = (key, make())
        return self._kept[1]

    def usable(self, rung: str) -> bool:
        """Whether this device has the rung's instructions."""
        needs = next((r.needs for r in RUNGS if r.name == rung), "")
        return int(needs.replace(".", "") or 0) <= int(self.xp.cuda.Device().compute_capability)


def row(
    problem: str, kernel: str, precision: str, operations: int, ours: Time, peer: str, theirs: Time, check: Row,
    peer_check: Row,
) -> Row:  # fmt: skip
    """A kernel beside its peer.  It is wrong also if the peer is: then the comparison means nothing."""
    return {
        "problem": problem, "kernel": kernel, "precision": precision, "operations": operations,
        "seconds": ours.median, "low": ours.low, "high": ours.high, "gaps": ours.gaps,
        "peer": peer, "peer_seconds": theirs.median, "peer_gaps": theirs.gaps,
        **check, "peer_off": peer_check["off"], "right": check["right"] and peer_check["right"],
    }  # fmt: skip


def least(operations: int, rung: str = "") -> float:
    """Seconds of a row's calls, by the slowest rate that is credible."""
    rate = SLOW if rung[:7] in ("gemm_01", "gemm_02", "gemm_03", "conv_01") else FAST
    return CALLS / 2 * (operations / rate + operations / FAST)


# -- ceilings


def ceilings(bench: Bench, copied: int, sizes: Iterable[int]) -> Iterator[Item]:
    """Bandwidth of a copy of so many bytes, and the rate of cuBLAS in each precision on square matrices."""
    yield Item("ceiling", "copy", 1.0, partial(copy, bench, copied))
    for n in sizes:
        for precision in ("fp32", "tf32", "bf16"):
            measure = partial(cublas, bench, n, precision)
            yield Item("ceiling", f"cuBLAS {precision} {n}³", least(2 * n**3), measure)


def copy(bench: Bench, size: int) -> Row:
    source, target = bench.normal(size // 4), bench.poisoned(size // 4)
    call = partial(target.data.copy_from_device_async, source.data, source.nbytes)
    time = bench.clock.race({"copy": call})["copy"]
    same = bool((source == target).all())
    return {
        "problem": f"{size >> 20} MiB", "kernel": "copy", "bytes": 2 * size, "seconds": time.median, "gaps": time.gaps,
        "right": same, "off": 0.0 if same else 1.0, "allowed": 0.0,
    }  # fmt: skip


def cublas(bench: Bench, n: int, precision: str) -> Row:
    a, b, exact, magnitude = bench.kept(("product", n, n, n), partial(_product, bench, n, n, n))
    with bench.peers.at(precision):
        call, out = bench.peers.product(a, b, precision)
        time = bench.clock.race({"cuBLAS": call})["cuBLAS"]
    check = judge_peer(bench, bench.peers.array(out), exact, magnitude, n, precision)
    return {
        "problem": f"{n}³", "kernel": "cuBLAS", "precision": precision, "operations": 2 * n**3,
        "seconds": time.median, "gaps": time.gaps, **check,
    }  # fmt: skip


def _product(bench: Bench, M: int, N: int, K: int) -> tuple[Any, ...]:
    """(a, b, a·b, |a|·|b|), the last two in float64"""
    xp, a, b = bench.xp, bench.normal(M, K), bench.normal(K, N)
    left, right = a.astype("float64"), b.astype("float64")
    return a, b, xp.matmul(left, right), xp.matmul(xp.abs(left), xp.abs(right))


def judge_peer(
    bench: Bench, found: Any, exact: Any, magnitude: Any, depth: int, precision: str, growth: float = 2.0,
    mean_growth: float | None = None,
) -> Row:  # fmt: skip
    """With twice the rounding, as a peer may truncate operands to tf32; bf16 results are stored in bf16."""
    stored = BF16_STORED if precision == "bf16" else 0.0
    return judge(bench.xp, found, exact, magnitude, depth, precision, growth, stored, mean_growth)


# -- the ladder


def products(bench: Bench, shapes: Iterable[tuple[str, int, int, int]], rungs: Iterable[str]) -> Iterator[Item]:
    """The rungs on each (name, M, N, K)."""
    usable = [rung for rung in rungs if bench.usable(rung)]
    for name, *sizes in shapes:
        for rung in usable:
            operations = 2 * sizes[0] * sizes[1] * sizes[2]
            if rung < "gemm_04" and operations > 2**38:
                continue  # each product takes seconds
            measure = partial(product, bench, name, *sizes, rung)
            yield Item("gemm", f"{rung} {name}", least(operations, rung), measure)


def product(bench: Bench, name: str, M: int, N: int, K: int, rung: str) -> Row:
    operands = bench.kept(("product", M, N, K), partial(_product, bench, M, N, K))
    out = bench.poisoned(M, N)
    call = partial(gemm, bench.device, rung, *operands[:2], out)
    return _beside_cublas(bench, name, rung, operands, call, lambda: out)


def _beside_cublas(
    bench: Bench, name: str, kernel: str, operands: Any, call: Callable[[], Any], found: Callable[[], Any]
) -> Row:
    a, b, exact, magnitude = operands
    (M, K), N, precision = a.shape, b.shape[1], precision_of(kernel)
    beside = peer_precision(precision)
    with bench.peers.at(beside):
        peer, theirs = bench.peers.product(a, b, beside)
        times = bench.clock.race({"ours": call, "peer": peer})
    check = judge(bench.xp, found(), exact, magnitude, K, precision, growth_of(kernel))
    peer_check = judge_peer(bench, bench.peers.array(theirs), exact, magnitude, K, beside)
    operations = 2 * M * N * K
    return row(name, kernel, precision, operations, times["ours"], "cuBLAS", times["peer"], check, peer_check)


def own(bench: Bench, file: Path, shapes: Iterable[tuple[str, int, int, int]]) -> Iterator[Item]:
    """A kernel of your own beside cuBLAS."""
    for name, *sizes in shapes:
        operations = 2 * sizes[0] * sizes[1] * sizes[2]
        measure = partial(own_product, bench, file, name, *sizes)
        yield Item("gemm", f"{file.name} {name}", least(operations, "gemm_01"), measure)


def own_product(bench: Bench, file: Path, name: str, M: int, N: int, K: int) -> Row:
    operands = bench.kept(("product", M, N, K), partial(_product, bench, M, N, K))
    a, b, *_ = operands
    with mr.backend("cuda", gemm=file) as backend:
        call = partial(backend.linear_forward, a, b.T, None)
        return _beside_cublas(bench, name, file.name, operands, call, call)
