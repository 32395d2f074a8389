"""The hand-written kernels beside cuBLAS, cuDNN and PyTorch, on the GPU at hand.

    python -m benchmarks.gpu [--minutes M] [--out DIR] [--kernel FILE.cu --as gemm|conv2d]
    python -m benchmarks.gpu tables FILE.jsonl [--write]

The first command measures, the most valuable rows first, and writes one JSON line a row to DIR.  A row is on disk
before the next begins, so that a time-out or a kill loses only what was not measured.  The second command prints the
tables of such a file; with --write it puts them into the READMEs, with a chart.

Needs CuPy, PyTorch with CUDA, and a GPU.  Both sides compute in the precision of the row; the times are medians of
the device's, without the time in which it waits for the host, and with L2 flushed.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import minires as mr
from benchmarks.gpu import convolutions, networks, products, tables
from benchmarks.gpu.clock import Clock, ClockError
from benchmarks.gpu.journal import Item, Journal, run
from benchmarks.gpu.networks import Network
from benchmarks.gpu.peers import Torch
from benchmarks.gpu.precision import peer_precision, precision_of
from benchmarks.gpu.products import Bench
from minires.backends.kernels.catalogue import CONVOLUTIONS, GEMMS
from minires.backends.kernels.provider import device
from minires.bench.layers import Convolution
from minires.bench.layers import convolutions as convolutions_of
from minires.bench.machine import describe

RESULTS = Path(__file__).parents[1] / "results"


@dataclass(frozen=True)
class Sizes:
    """How large the problems are; the tests take small ones.

    copied     bytes of the copy
    check      edge of the product by which the peer's clock is checked
    squares    edges of square matrices: those that come first, and the others
    networks   that are trained, and run in evaluation
    shapes     networks whose convolutions are measured: those that come first, and all
    batches    of the convolutions
    repeats    of each call
    """

    copied: int = 1 << 30
    check: int = 4096
    squares: tuple[tuple[int, ...], tuple[int, ...]] = ((8192, 4096), (2048, 1024, 512))
    networks: tuple[Network, ...] = (Network("resnet50", 64, 224), Network("resnet18", 128, 224))
    shapes: tuple[tuple[str, ...], tuple[str, ...]] = (("resnet50",), ("resnet18", "resnet34", "resnet50"))
    batches: tuple[int, ...] = (32, 128)
    repeats: int = 9


def items(bench: Bench, sizes: Sizes, kernel: Path | None = None, kind: str = "gemm") -> Iterator[Item]:
    """All rows, the most valuable first."""
    first, others = ([(f"{n}³", n, n, n) for n in edges] for edges in sizes.squares)
    fp32 = [rung for rung in reversed(GEMMS) if peer_precision(precision_of(rung)) == "fp32"]
    late, early = ([rung for rung in fp32 if (rung >= "gemm_04") == is_late] for is_late in (True, False))
    reduced = [rung for rung in reversed(GEMMS) if rung not in fp32]
    shapes, more = (list(convolutions_of(names)) for names in sizes.shapes)
    yield from products.ceilings(bench, sizes.copied, sizes.squares[0])
    if kernel is not None and kind == "gemm":
        yield from products.own(bench, kernel, first)
    if kernel is not None and kind == "conv2d":
        yield from convolutions.own(bench, kernel, shapes, sizes.batches[0])
    yield from products.products(bench, first, late)
    yield from products.products(bench, first, reduced)
    yield from networks.networks(bench, sizes.networks[:1])
    best = [rung for rung in reversed(CONVOLUTIONS) if rung > "conv_05"]
    yield from convolutions.convolutions(bench, shapes, sizes.batches[0], ["conv_03_1x1", *best])
    yield from networks.networks(bench, sizes.networks[:1], ("inference",))
    yield from products.products(bench, first, early)
    yield from products.products(bench, [*others, *im2col(shapes, sizes.batches[0])], [*late, *reduced])
    rest = [rung for rung in CONVOLUTIONS if rung not in ("conv_03_1x1", *best)]
    yield from convolutions.convolutions(bench, shapes, sizes.batches[0], rest, gradients=False)
    yield from networks.networks(bench, sizes.networks[1:], ("training", "inference"))
    for batch in sizes.batches:
        left = [shape for shape in more if batch != sizes.batches[0] or shape not in shapes]
        yield from convolutions.convolutions(bench, left, batch, ["conv_03_1x1", *best])
    yield from products.products(bench, others, early)


def im2col(shapes: Sequence[Convolution], batch: int) -> list[tuple[str, int, int, int]]:
    """The distinct products that these convolutions are, as (name, M, N, K)."""
    found = [convolutions.geometry_of(shape, batch) for shape in shapes]
    sizes = dict.fromkeys((g.pixels, g.O, g.depth) for g in found)
    return [("×".join(map(str, each)), *each) for each in sizes]


def machine(bench: Bench) -> dict[str, str | int]:
    properties = bench.xp.cuda.runtime.getDeviceProperties(bench.xp.cuda.Device().id)
    name = properties["name"]
    return {
        "device": name.decode() if isinstance(name, bytes) else name,
        **describe(1, "numpy"),
        "cupy": bench.xp.__version__,
        "torch": bench.peers.torch.__version__,
    }


def measure(args: argparse.Namespace, sizes: Sizes) -> int:
    until = time.monotonic() + 60 * args.minutes
    try:
        provider = device()
        cupy = provider.module
        with cupy.cuda.Stream(non_blocking=True) as stream:
            bench = Bench(provider, Clock(cupy, sizes.repeats), Torch(cupy))
            about = machine(bench)
            start = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%S")
            path = args.out / f"gpu-{str(about['device']).lower().replace(' ', '-')}-{start}.jsonl"
            print(path, flush=True)
            with Journal(path) as journal:
                journal.write({"table": "machine", **about, "fp32 peak": bench.clock.peak})
                chosen = itertools.islice(items(bench, sizes, args.kernel, args.kind), args.rows)
                return measure_rows(bench, sizes.check, chosen, journal, until, stream.synchronize)
    except (mr.BackendUnavailable, ModuleNotFoundError) as error:
        print(f"benchmarks.gpu: {error}", file=sys.stderr)
        return 3


def measure_rows(
    bench: Bench, n: int, chosen: Iterable[Item], journal: Journal, until: float, alive: Callable[[], Any]
) -> int:
    """Checks the clock, then measures; 1 if the clock or a row is wrong.

    The check takes a product of n × n matrices, and a 1×1 convolution of as many operations.
    """
    try:
        product, _ = bench.peers.product(bench.normal(n, n), bench.normal(n, n), "fp32")
        images = bench.normal(n // 64, 8, 8, n)
        geometry = convolutions.conv2d.Geometry.of((n // 64, n, 8, 8), (n, n, 1, 1), (1, 1), (0, 0), (1, 1), 1)
        convolution = bench.peers.convolution(images, bench.normal(n, 1, 1, n), images, geometry, "forward")
        bench.clock.check({"product": product, "convolution": convolution}, 2 * n**3)
    except ClockError as error:
        journal.write({"table": "error", "name": "clock", "error": str(error)})
        print(f"benchmarks.gpu: {error}", file=sys.stderr)
        return 1
    right = run(chosen, journal, until, alive)
    journal.write({"table": "end", "right": right})
    return 0 if right else 1


def main(words: Sequence[str] | None = None, sizes: Sizes | None = None) -> int:
    words = list(sys.argv[1:] if words is None else words)
    if words[:1] == ["tables"]:
        return tables.main(words[1:])
    parser = argparse.ArgumentParser(
        prog="benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--minutes", type=float, default=8, metavar="M", help="for all rows, compiling included (default: 8)")
    add("--rows", type=int, metavar="K", help="at most so many rows (default: all)")
    add("--out", type=Path, default=RESULTS, metavar="DIR", help="folder of the JSON lines (default: results)")
    add("--kernel", type=Path, metavar="FILE.cu", help="a kernel of your own, measured after the ceilings")
    add("--as", dest="kind", choices=("gemm", "conv2d"), default="gemm", help="what it computes (default: gemm)")
    return measure(parser.parse_args(words), sizes or Sizes())


if __name__ == "__main__":
    raise SystemExit(main())
