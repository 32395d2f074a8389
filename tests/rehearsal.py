"""benchmarks.gpu without a GPU: on the strict stand-in for CuPy, beside PyTorch on the CPU, with small sizes.

    python -m tests.rehearsal [arguments of benchmarks.gpu]        needs PyTorch and the emulator

PyTorch's operations take the time of the stream that it computes on, which must be the one that CuPy's events mark, and
round to tf32 where its settings allow that, as cuDNN's do by default.  All else of torch.cuda raises.  The time limit
of `--minutes` counts the stand-in's made-up time, so that a run does not depend on the speed of the machine.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

import strict_cupy  # noqa: E402
import torch  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

from minires.bench.layers import Convolution  # noqa: E402

SHAPES = {
    "first": [
        Convolution((8, 6, 5), (12, 8, 3, 3), (1, 1), (1, 1)),
        Convolution((4, 6, 5), (8, 4, 1, 1), (1, 1), (0, 0)),
    ],
    "more": [Convolution((4, 7, 6), (6, 4, 3, 3), (2, 2), (1, 1))],
}


class Device(TorchDispatchMode):
    """What the GPU does for PyTorch."""

    def __init__(self) -> None:
        super().__init__()
        self.stream = SimpleNamespace(ptr=0)  # the default stream
        self.launched = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        product, matmul = name == "mm", torch.backends.cuda.matmul.fp32_precision == "tf32"
        convolution = name.startswith("convolution") and torch.backends.cudnn.conv.fp32_precision != "ieee"
        tf32 = (product and matmul) or convolution
        if tf32:
            args = tuple(rounded(a) for a in args)
        found = function(*args, **(kwargs or {}))
        milliseconds = strict_cupy.KERNEL
        if product:
            (M, K), N = args[0].shape, args[1].shape[1]
            faster = 16 if args[0].dtype == torch.bfloat16 else 8 if tf32 else 1
            milliseconds = 1.25 * 2 * M * N * K / strict_cupy.PEAK / faster
        elif name == "convolution":
            milliseconds = 1.25 * 2 * found.numel() * args[1][0].numel() / strict_cupy.PEAK / (8 if tf32 else 1)
        strict_cupy.timeline.queue(strict_cupy.Stream.living[self.stream.ptr], milliseconds)
        self.launched += 1
        return found


def rounded(value):
    """To the 10 bits of tf32's mantissa."""
    if not isinstance(value, torch.Tensor) or value.dtype != torch.float32:
        return value
    return ((value.contiguous().view(torch.int32) + 0x1000) & ~0x1FFF).view(torch.float32).reshape(value.shape)


@contextmanager
def installed() -> Iterator[Device]:
    """Within it, CuPy is the stand-in, and benchmarks.gpu takes PyTorch's CPU for the same device."""
    from benchmarks.gpu import clock
    from benchmarks.gpu.peers import Torch

    device = Device()
    matmul, cudnn, cuda = torch.backends.cuda.matmul, torch.backends.cudnn, torch.cuda
    kept = matmul.fp32_precision, cudnn.conv.fp32_precision, cudnn.benchmark
    external = mock.patch.object(cuda, "get_stream_from_external", lambda ptr, of: SimpleNamespace(ptr=ptr))
    entered = mock.patch.object(cuda, "set_stream", lambda stream: setattr(device, "stream", stream))
    small, home = mock.patch.object(clock, "L2", 1), mock.patch.object(Torch, "device", "cpu")
    with strict_cupy.installed(), external, entered, small, home, device:
        try:
            yield device
        finally:
            matmul.fp32_precision, cudnn.conv.fp32_precision, cudnn.benchmark = kept


def sizes():
    """Of a run that takes some seconds in the emulator."""
    from benchmarks.gpu.__main__ import Sizes
    from benchmarks.gpu.networks import Network

    network = Network("resnet20", 2, 8, {"width": 4})
    return Sizes(1 << 12, 256, ((40, 33), (20,)), (network,), (("first",), ("more",)), (2, 3), repeats=1)


def main(words: list[str]) -> int:
    from benchmarks.gpu import __main__ as benchmark
    from benchmarks.gpu import clock, journal

    named = mock.patch.object(benchmark, "convolutions_of", lambda names: [s for name in names for s in SHAPES[name]])
    time = SimpleNamespace(monotonic=lambda: 1e-3 * strict_cupy.timeline.now)
    clocks = [mock.patch.object(module, "time", time) for module in (benchmark, journal, clock)]
    with installed(), named, clocks[0], clocks[1], clocks[2]:
        return benchmark.main(words, sizes())


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
