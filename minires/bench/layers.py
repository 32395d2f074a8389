"""Single convolutions: every distinct one of some networks, forward, data gradient and weight gradient.

GFLOP/s count the multiply-adds of the definition, twice each.  Winograd's algorithm needs fewer, so it can exceed the
processor's peak.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from minires import backends, context, models
from minires.arrays import channels_first
from minires.bench.networks import off
from minires.bench.peers import CHANNELS_LAST, TORCH, environment
from minires.bench.race import Contender, Worker, race, statistics_of, workers
from minires.tensor import tensor

DIRECTIONS = ("forward", "data_gradient", "weight_gradient")
ALLOWED = 1e-4  # relative difference in norm, from the order of float32 sums and Winograd's transformations


class Convolution(NamedTuple):
    """x (C, H, W) of one image, w (O, C, KH, KW)."""

    x: tuple[int, int, int]
    w: tuple[int, int, int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]

    def __str__(self) -> str:
        O, _, KH, KW = self.w
        return f"{'×'.join(map(str, self.x))} → {O}, {KH}×{KW}" + (f"/{self.stride[0]}" if self.stride[0] > 1 else "")

    @property
    def y(self) -> tuple[int, int, int]:
        sizes = zip(self.x[1:], self.w[2:], self.stride, self.padding, strict=True)
        OH, OW = ((n + 2 * p - k) // s + 1 for n, k, s, p in sizes)
        return self.w[0], OH, OW

    def operations(self, batch: int) -> int:
        return 2 * batch * math.prod(self.y) * math.prod(self.w[1:])

    def arrays(self, batch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """x (N, C, H, W), w and a cotangent of y; x and the cotangent are channels-last in memory."""
        rng = np.random.default_rng(0)
        (C, H, W), (O, OH, OW) = self.x, self.y
        x, grad = (rng.standard_normal((batch, *shape), np.float32) for shape in ((H, W, C), (OH, OW, O)))
        return channels_first(x), rng.standard_normal(self.w, np.float32), channels_first(grad)


def convolutions(networks: Sequence[str]) -> dict[Convolution, list[str]]:
    """Every distinct convolution of these networks -> the networks that contain it."""
    found: dict[Convolution, list[str]] = {}

    class Watch(context.Observer):
        def before_forward(self, node: Any, arrays: tuple[Any, ...]) -> None:
            if node.name == "Conv2d":
                x, w = arrays[:2]
                having = found.setdefault(Convolution(x.shape[1:], w.shape, node.stride, node.padding), [])
                if network not in having:
                    having.append(network)

    for network in networks:
        with context.no_grad(), Watch():
            models.create(network).eval()(tensor(np.zeros((1, *models.input_shape(network)), np.float32)))
    return found


class Directions:
    """One convolution, computed in each direction; the last result of each is kept."""

    calls: dict[str, Callable[[], Any]]  # direction -> its computation

    def __init__(self) -> None:
        self.found: dict[str, Any] = {}

    def forward(self) -> None:
        self.found["forward"] = self.calls["forward"]()

    def data_gradient(self) -> None:
        self.found["data_gradient"] = self.calls["data_gradient"]()

    def weight_gradient(self) -> None:
        self.found["weight_gradient"] = self.calls["weight_gradient"]()


class Ours(Directions):
    """minires on the backend that the environment names."""

    def __init__(self, threads: int) -> None:
        super().__init__()
        backends.set_num_threads(threads)
        self.backend = backends.active()

    def take(self, convolution: Convolution, batch: int) -> None:
        x, w, grad = convolution.arrays(batch)
        geometry = convolution.stride, convolution.padding, (1, 1), 1
        self.calls = {
            "forward": partial(self.backend.conv2d_forward, x, w, None, *geometry),
            "data_gradient": partial(self.backend.conv2d_backward_input, grad, w, x.shape, *geometry),
            "weight_gradient": partial(self.backend.conv2d_backward_weight, grad, x, w.shape, *geometry),
        }

    def result(self, direction: str) -> np.ndarray:
        return np.ascontiguousarray(self.found.pop(direction))


class Torch(Directions):
    """PyTorch: the operations that its autograd calls."""

    def __init__(self, threads: int, channels_last: bool) -> None:
        import torch  # optional

        super().__init__()
        self.torch = torch
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision("highest")
        torch.set_grad_enabled(False)
        self.layout = torch.channels_last if channels_last else torch.contiguous_format

    def take(self, convolution: Convolution, batch: int) -> None:
        torch, stride, padding = self.torch, convolution.stride, convolution.padding
        arrays = convolution.arrays(batch)
        x, w, grad = (torch.from_numpy(a).contiguous(memory_format=self.layout) for a in arrays)
        backward = partial(
            torch.ops.aten.convolution_backward, grad, x, w, None, stride, padding, [1, 1], False, [0, 0], 1
        )
        self.calls = {
            "forward": partial(torch.nn.functional.conv2d, x, w, None, stride, padding),
            "data_gradient": lambda: backward([True, False, False])[0],
            "weight_gradient": lambda: backward([False, True, False])[1],
        }

    def result(self, direction: str) -> np.ndarray:
        found: np.ndarray = self.found.pop(direction).contiguous().numpy()
        return found


def contenders(threads: int, backend: str, peers: tuple[str, ...]) -> list[Contender]:
    """minires first, then the peers."""
    ours = [backend] + (["reference"] if "reference" in peers and backend != "reference" else [])
    found = [Contender(name, partial(Ours, threads), environment(threads, name)) for name in ours]
    if "torch" in peers:
        layouts = {TORCH: False, CHANNELS_LAST: True}
        found += [
            Contender(name, partial(Torch, threads, last), environment(threads)) for name, last in layouts.items()
        ]
    return found


def measure(
    shapes: Mapping[Convolution, Sequence[str]], batch: int, threads: int, rounds: int, until: float, backend: str,
    peers: tuple[str, ...],
) -> Iterator[list[dict[str, Any]]]:  # fmt: skip
    """Three rows for each convolution, one a direction.

    shapes   convolution -> the networks that contain it
    until    end of the time, by `time.monotonic`; each convolution gets an equal share of the time left
    """
    with workers(contenders(threads, backend, peers)) as ready:
        for number, (convolution, networks) in enumerate(shapes.items()):
            for worker in ready:
                worker.ask("take", convolution, batch)
            budget = (until - time.monotonic()) / (len(shapes) - number)
            seconds = race(ready, DIRECTIONS, rounds, budget)
            yield [
                {
                    "convolution": str(convolution),
                    **convolution._asdict(),
                    "batch": batch,
                    "networks": list(networks),
                    "direction": direction.replace("_", " "),
                    **_compared(ready, direction, seconds[direction], convolution.operations(batch)),
                }
                for direction in DIRECTIONS
            ]


def _compared(
    ready: Sequence[Worker], direction: str, seconds: dict[str, list[float]], operations: int
) -> dict[str, Any]:
    results = {worker.name: worker.ask("result", direction) for worker in ready}
    judge = next((name for name in (TORCH, "reference") if name in results), ready[0].name)
    rows = {
        name: {**statistics_of(taken, operations), "difference": off(results[name], results[judge])}
        for name, taken in seconds.items()
    }
    disagree = [name for name, row in rows.items() if not row["difference"] <= ALLOWED]
    return {"operations": operations, "judge": judge, "sides": rows, "disagree": disagree}
