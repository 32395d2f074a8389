"""The ladder of convolutions, and the gradients, beside cuDNN; both sides channels-last in memory."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import minires as mr
from benchmarks.gpu.journal import Item, Row
from benchmarks.gpu.peers import DIRECTIONS
from benchmarks.gpu.precision import growth_of, judge, peer_precision, precision_of
from benchmarks.gpu.products import Bench, judge_peer, least, row
from minires.arrays import channels_first, channels_last
from minires.backends.kernels import conv2d
from minires.backends.kernels.catalogue import CONVOLUTIONS
from minires.bench.layers import Convolution

# What cuDNN's Winograd and FFT algorithms may multiply the rounding of an element by in fp32.
PEER_GROWTH = {"fp32": 64.0}


def mean_growth(depth: int) -> float:
    """The same for the root mean square: at most a quarter of 2^-11 / √depth, so that tf32 does not pass as fp32."""
    return min(16.0, max(1.0, 512 / math.sqrt(depth)))


def geometry_of(shape: Convolution, batch: int) -> conv2d.Geometry:
    return conv2d.Geometry.of((batch, *shape.x), shape.w, shape.stride, shape.padding, (1, 1), 1)


def convolutions(
    bench: Bench, shapes: Iterable[Convolution], batch: int, rungs: Iterable[str] = CONVOLUTIONS, gradients: bool = True
) -> Iterator[Item]:
    """The rungs that can compute each shape; with `gradients` also both gradients, by two kernels each."""
    usable = [rung for rung in rungs if bench.usable(rung)]
    for shape in shapes:
        g, operations = geometry_of(shape, batch), shape.operations(batch)
        calls = [("forward", rung) for rung in usable if _can(rung, g, operations)]
        if gradients:
            calls += itertools.product(DIRECTIONS[1:], ("conv_backward", "conv_02_im2col"))
        for direction, kernel in calls:
            measure = partial(convolution, bench, shape, batch, direction, kernel)
            yield Item(direction, f"{kernel} {batch}×{shape}", least(operations, kernel), measure)


def _can(rung: str, g: conv2d.Geometry, operations: int) -> bool:
    if rung == "conv_03_1x1":
        return g.is_1x1
    if rung == "conv_08_winograd":
        return g.suits_winograd
    return rung != "conv_02_im2col_atomic" and not (rung == "conv_01_direct" and operations > 2**36)


def _arrays(bench: Bench, shape: Convolution, batch: int) -> tuple[Any, Any, Any]:
    """x (N, H, W, C), w (O, KH, KW, C) and a cotangent (N, OH, OW, O)"""
    (C, H, W), (O, _, KH, KW), (_, OH, OW) = shape.x, shape.w, shape.y
    return bench.normal(batch, H, W, C), bench.normal(O, KH, KW, C), bench.normal(batch, OH, OW, O)


def _problem(bench: Bench, shape: Convolution, batch: int, direction: str) -> tuple[Any, ...]:
    """(x, w, grad, exact, magnitude)"""
    arrays = _arrays(bench, shape, batch)
    return *arrays, *bench.peers.exact(*arrays, geometry_of(shape, batch), direction)


def convolution(bench: Bench, shape: Convolution, batch: int, direction: str, kernel: str) -> Row:
    x, w, grad, exact, _ = problem = _kept(bench, shape, batch, direction)
    g, out = geometry_of(shape, batch), bench.poisoned(*exact.shape)
    rung = "auto" if kernel == "conv_backward" else kernel
    function, arrays = {
        "forward": (conv2d.forward, (x, w)),
        "data gradient": (conv2d.backward_input, (grad, w)),
        "weight gradient": (conv2d.backward_weight, (grad, x)),
    }[direction]
    call = partial(function, bench.device, rung, "auto", *arrays, out, g)
    return _beside_cudnn(bench, shape, batch, direction, kernel, problem, call, lambda: out)


def _kept(bench: Bench, shape: Convolution, batch: int, direction: str) -> Any:
    return bench.kept((shape, batch, direction), partial(_problem, bench, shape, batch, direction))


def _beside_cudnn(
    bench: Bench, shape: Convolution, batch: int, direction: str, kernel: str, problem: Any, call: Callable[[], Any],
    found: Callable[[], Any],
) -> Row:  # fmt: skip
    *arrays, exact, magnitude = problem
    g, precision = geometry_of(shape, batch), precision_of(kernel)
    depths = (g.depth, g.O * g.kernel[0] * g.kernel[1], g.pixels)
    depth = depths[DIRECTIONS.index(direction)]
    beside = peer_precision(precision)
    with bench.peers.at(beside):
        peer = bench.peers.convolution(*arrays, g, direction, beside)
        times = bench.clock.race({"ours": call, "peer": peer})
        theirs = bench.peers.last(peer())
    check = judge(bench.xp, found(), exact, magnitude, depth, precision, growth_of(kernel))
    growth, mean = PEER_GROWTH.get(beside, 4.0), mean_growth(depth) if beside == "fp32" else None
    peer_check = judge_peer(bench, theirs, exact, magnitude, depth, beside, growth, mean)
    problem, operations = f"{batch}×{shape}", shape.operations(batch)
    return row(problem, kernel, precision, operations, times["ours"], "cuDNN", times["peer"], check, peer_check)


def own(bench: Bench, file: Path, shapes: Iterable[Convolution], batch: int) -> Iterator[Item]:
    """A kernel of your own, on NCHW arrays, beside cuDNN on channels-last ones."""
    for shape in shapes:
        measure = partial(own_convolution, bench, file, shape, batch)
        yield Item("forward", f"{file.name} {batch}×{shape}", least(shape.operations(batch), "conv_01"), measure)


def own_convolution(bench: Bench, file: Path, shape: Convolution, batch: int) -> Row:
    x, w, *_ = problem = _kept(bench, shape, batch, "forward")
    nchw, oihw = (bench.xp.ascontiguousarray(channels_first(array)) for array in (x, w))
    with mr.backend("cuda", conv2d=file) as backend:
        call = partial(backend.conv2d_forward, nchw, oihw, None, shape.stride, shape.padding, (1, 1), 1)
        return _beside_cudnn(bench, shape, batch, "forward", file.name, problem, call, lambda: channels_last(call()))
