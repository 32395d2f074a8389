"""The hand-written kernels beside cuBLAS, cuDNN and PyTorch eager, on the GPU at hand.

    python -m benchmarks.gpu [--minutes 8] [--write]       needs CuPy, PyTorch with CUDA, and a GPU
    python -m benchmarks.gpu --rehearse                    checks every rung on tiny shapes in the emulator, untimed

Three tables: the GEMM ladder beside cuBLAS; the convolution ladder beside cuDNN (through PyTorch, cudnn.benchmark on)
on the distinct shapes of Table 1's networks; whole networks beside PyTorch eager.  Both sides have the same precision
(TF32 off, except in the TF32 rung) and the same layout (channels-last).  Times are medians, measured by events, with L2
flushed before each repeat.  Each timed result is compared with the peer's.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import minires as mr
import minires.functional as F
from benchmarks.tables import one_line, show, write_between_markers
from minires.arrays import channels_last
from minires.backends import reference
from minires.backends.kernels import conv2d
from minires.backends.kernels.catalogue import CONVOLUTIONS, GEMMS
from minires.backends.kernels.gemm import gemm
from minires.backends.kernels.provider import Emulator, Provider, device
from minires.bench.layers import convolutions
from minires.bench.machine import describe
from minires.bench.networks import off

RESULTS = Path(__file__).parent / "results"
# Relative difference in norm that the rounding of tf32 (11 bits) and bf16 (8 bits) explains.
ALLOWED = {"tf32": 4 * 2**-11, "bf16": 4 * 2**-8}
FLUSH = 256 << 20  # bytes: more than the L2 of any GPU


@dataclass(frozen=True)
class Row:
    """One kernel on one shape.  seconds is None in a rehearsal."""

    table: str
    shape: str
    kernel: str
    operations: int  # two for each multiply-add
    seconds: float | None
    peer_seconds: float | None
    difference: float

    @property
    def right(self) -> bool:
        return self.difference <= ALLOWED.get(self.kernel[-4:], 1e-5)


class Bench:
    """The GPU, or in a rehearsal the emulator."""

    def __init__(self, rehearse: bool, minutes: float, repeats: int = 7) -> None:
        self.rehearse = rehearse
        self.device: Provider = Emulator() if rehearse else device()
        self.xp = self.device.module
        self.until = time.monotonic() + 60 * minutes
        self.repeats = repeats
        self.rng = np.random.default_rng(0)
        self.left_out: list[str] = []

    def normal(self, *shape: int) -> Any:
        return self.xp.asarray(self.rng.standard_normal(shape, np.float32))

    def in_time(self, what: str) -> bool:
        if time.monotonic() < self.until:
            return True
        self.left_out.append(what)
        return False

    def seconds(self, run: Callable[[], Any]) -> float | None:
        """Median time on the device, after two runs to warm up."""
        if self.rehearse:
            run()
            return None
        cupy = self.xp
        flush = cupy.empty(FLUSH, np.uint8)
        begin, end = cupy.cuda.Event(), cupy.cuda.Event()
        measured = []
        for number in range(self.repeats + 2):
            flush.fill(number)
            begin.record()
            run()
            end.record()
            end.synchronize()
            if number >= 2:
                measured.append(cupy.cuda.get_elapsed_time(begin, end) / 1e3)
        return statistics.median(measured)

    def difference(self, found: Any, expected: Any) -> float:
        """Relative difference in norm; infinity in place of NaN."""
        return off(found, expected, self.xp)


# -- products of matrices


def gemm_shapes(bench: Bench) -> list[tuple[str, int, int, int]]:
    if bench.rehearse:
        return [("33", 33, 33, 33), ("im2col 50×12×27", 50, 12, 27)]
    squares = [(f"{n}³", n, n, n) for n in (512, 1024, 2048, 4096, 8192)]
    im2col = {}
    for x, w, stride, padding, *_ in convolutions(("resnet50",)):
        g = conv2d.Geometry.of((32, *x), w, stride, padding, (1, 1), 1)
        im2col[g.pixels, g.O, g.depth] = (f"im2col {g.pixels}×{g.O}×{g.depth}", g.pixels, g.O, g.depth)
    return squares + list(im2col.values())


def gemm_rows(bench: Bench) -> Iterator[Row]:
    xp = bench.xp
    for shape, M, N, K in gemm_shapes(bench):
        if not bench.in_time(f"gemm {shape}"):
            continue
        a, b, expected = bench.normal(M, K), bench.normal(K, N), xp.empty((M, N), np.float32)
        peer = bench.seconds(partial(xp.matmul, a, b, out=expected))  # TF32 is off by default
        for rung in GEMMS:
            if rung < "gemm_04" and M * N * K > 2**33:
                continue  # a product takes seconds
            out = xp.full((M, N), np.nan, np.float32)
            seconds = bench.seconds(partial(gemm, bench.device, rung, a, b, out))
            yield Row("gemm", shape, rung, 2 * M * N * K, seconds, peer, bench.difference(out, expected))


# -- convolutions


def conv_rows(bench: Bench) -> Iterator[Row]:
    if bench.rehearse:
        shapes: list[Any] = [((8, 6, 5), (12, 8, 3, 3), (1, 1), (1, 1)), ((4, 6, 5), (8, 4, 1, 1), (1, 1), (0, 0))]
        batches: tuple[int, ...] = (2,)
    else:
        shapes = list(convolutions(("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")))
        batches = (32, 128)
    for batch in batches:
        for x_shape, w_shape, stride, padding in shapes:
            geometry = conv2d.Geometry.of((batch, *x_shape), w_shape, stride, padding, (1, 1), 1)
            shape = f"{batch}×{'×'.join(map(str, x_shape))} {w_shape[2]}×{w_shape[3]}/{stride[0]} → {w_shape[0]}"
            if bench.in_time(f"convolution {shape}"):
                yield from one_convolution(bench, shape, geometry, x_shape, w_shape, batch)


def one_convolution(
    bench: Bench, shape: str, g: conv2d.Geometry, x_shape: Any, w_shape: Any, batch: int
) -> Iterator[Row]:
    xp, operations = bench.xp, 2 * g.pixels * g.O * g.depth
    C, H, W = x_shape
    x, w = bench.normal(batch, H, W, C), bench.normal(w_shape[0], *w_shape[2:], C)  # channels-last
    grad = bench.normal(batch, g.OH, g.OW, g.O)
    peers = Peers(bench, x, w, grad, g)
    for rung in CONVOLUTIONS:
        if (rung == "conv_03_1x1" and not g.is_1x1) or (rung == "conv_08_winograd" and not g.suits_winograd):
            continue
        if rung.endswith("atomic") or (rung == "conv_01_direct" and operations > 2**36):
            continue
        y = xp.full((batch, g.OH, g.OW, g.O), np.nan, np.float32)
        run = bench.seconds(partial(conv2d.forward, bench.device, rung, "auto", x, w, y, g))
        yield Row("forward", shape, rung, operations, run, peers.forward_seconds, bench.difference(y, peers.y))
    for rung in ("conv_02_im2col", "auto"):
        name = "conv_backward" if rung == "auto" else rung
        grad_x, grad_w = xp.full(x.shape, np.nan, np.float32), xp.full(w.shape, np.nan, np.float32)
        run = bench.seconds(partial(conv2d.backward_input, bench.device, rung, "auto", grad, w, grad_x, g))
        yield Row(
            "data gradient", shape, name, operations, run, peers.data_seconds, bench.difference(grad_x, peers.grad_x)
        )
        run = bench.seconds(partial(conv2d.backward_weight, bench.device, rung, "auto", grad, x, grad_w, g))
        difference = bench.difference(grad_w, peers.grad_w)
        yield Row("weight gradient", shape, name, operations, run, peers.weight_seconds, difference)


class Peers:
    """cuDNN through PyTorch, on the same memory; in a rehearsal the reference backend."""

    def __init__(self, bench: Bench, x: Any, w: Any, grad: Any, g: conv2d.Geometry) -> None:
        options = (g.stride, g.padding, g.dilation, g.groups)
        nchw, oihw, cotangent = (a.transpose(0, 3, 1, 2) for a in (x, w, grad))
        if bench.rehearse:
            self.forward_seconds = self.data_seconds = self.weight_seconds = None
            self.y = channels_last(reference.conv2d_forward(nchw, oihw, None, *options))
            self.grad_x = channels_last(reference.conv2d_backward_input(cotangent, oihw, nchw.shape, *options))
            self.grad_w = channels_last(reference.conv2d_backward_weight(cotangent, nchw, oihw.shape, *options))
            return
        import torch  # optional

        torch.backends.cudnn.benchmark = True
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
        tx, tw, tg = (torch.from_dlpack(a) for a in (nchw, oihw, cotangent))  # channels_last by their strides
        convolve = torch.ops.aten.convolution_backward
        same = (tg, tx, tw, None, g.stride, g.padding, g.dilation, False, [0, 0], g.groups)
        stream = torch.cuda.ExternalStream(bench.xp.cuda.get_current_stream().ptr)
        with torch.cuda.stream(stream), torch.no_grad():
            forward = partial(torch.nn.functional.conv2d, tx, tw, None, *options)
            self.forward_seconds = bench.seconds(forward)
            self.data_seconds = bench.seconds(partial(convolve, *same, [True, False, False]))
            self.weight_seconds = bench.seconds(partial(convolve, *same, [False, True, False]))
            y, (grad_x, grad_w, _) = forward(), convolve(*same, [True, True, False])
        results = (t.contiguous(memory_format=torch.channels_last) for t in (y, grad_x, grad_w))
        self.y, self.grad_x, self.grad_w = (channels_last(bench.xp.from_dlpack(t)) for t in results)


# -- whole networks


def network_rows(bench: Bench) -> list[dict[str, Any]]:
    """Images per second of forward and of a training step, beside PyTorch eager."""
    if bench.rehearse:
        return []
    import torch  # optional, as is the next module, which imports it

    from minires.verify import torch_networks

    rows = []
    for name, batch in (("resnet18", 128), ("resnet50", 64)):
        if not bench.in_time(f"network {name}"):
            continue
        images, labels = bench.normal(batch, 3, 224, 224), bench.xp.asarray(bench.rng.integers(0, 1000, batch))
        with mr.backend("cuda"):
            ours = mr.models.create(name).to("cuda")
            sgd = mr.optim.SGD(ours.parameters(), 0.0, 0.9, 1e-4)
            x = mr.tensor(bench.xp.ascontiguousarray(images.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2))

            def step(ours: Any = ours, sgd: Any = sgd, x: Any = x, labels: Any = labels) -> float:
                sgd.zero_grad()
                loss = F.cross_entropy(ours(x), labels)
                loss.backward()
                sgd.step()
                return float(loss.item())

            with mr.no_grad():
                forward_seconds = bench.seconds(partial(ours, x))
            step_seconds, loss = bench.seconds(step), step()
        network = torch_networks.create(name).cuda().to(memory_format=torch.channels_last)
        state = {key: torch.from_numpy(value) for key, value in ours.to("cpu").state_dict().items()}
        network.load_state_dict(state, strict=False)
        network.train()
        tx = torch.from_dlpack(images).contiguous(memory_format=torch.channels_last)
        tl = torch.from_dlpack(labels)
        peer = torch.optim.SGD(network.parameters(), 0.0, 0.9, weight_decay=1e-4)

        def peer_step(network: Any = network, peer: Any = peer, tx: Any = tx, tl: Any = tl) -> float:
            peer.zero_grad()
            loss = torch.nn.functional.cross_entropy(network(tx), tl)
            loss.backward()
            peer.step()
            return float(loss.item())

        with torch.no_grad():
            peer_forward = bench.seconds(partial(network, tx))
        peer_seconds = bench.seconds(peer_step)
        rows.append(
            {
                "network": name,
                "batch": batch,
                "forward images/s": batch / forward_seconds,
                "forward ratio": forward_seconds / peer_forward,
                "step images/s": batch / step_seconds,
                "step ratio": step_seconds / peer_seconds,
                "loss difference": abs(loss - peer_step()) / abs(loss),
            }
        )
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rehearse", action="store_true", help="tiny shapes in the emulator; checks, does not time")
    parser.add_argument("--minutes", type=float, default=8, help="time after which no row begins (default: 8)")
    parser.add_argument("--write", action="store_true", help="write results/ and the tables of benchmarks/README.md")
    args = parser.parse_args()
    try:
        bench = Bench(args.rehearse, args.minutes)
    except mr.BackendUnavailable as error:
        print(f"benchmarks.gpu: {error}", file=sys.stderr)
        return 3
    networks = network_rows(bench)
    rows = [*gemm_rows(bench), *conv_rows(bench)]
    wrong = [row for row in rows if not row.right]
    peak = max((row.operations / row.seconds for row in rows if row.seconds), default=None)
    head = ["table", "shape", "kernel", "ms", "× peer", "TFLOP/s", "off by"]
    cells = [
        [
            row.table, row.shape, row.kernel,
            f"{1e3 * row.seconds:.3f}" if row.seconds else "",
            f"{row.seconds / row.peer_seconds:.2f}" if row.seconds and row.peer_seconds else "",
            f"{row.operations / row.seconds / 1e12:.1f}" if row.seconds else "",
            f"{row.difference:.0e}",
        ]
        for row in rows
    ]  # fmt: skip
    show(head, cells, describe(1, "numpy"))
    for row in networks:
        print(one_line({key: f"{value:.3g}" if isinstance(value, float) else value for key, value in row.items()}))
    for what in bench.left_out:
        print(f"left out, no time: {what}", file=sys.stderr)
    for row in wrong:
        print(f"{row.kernel} is wrong on {row.shape}: off by {row.difference:.2g}", file=sys.stderr)
    if args.write and not args.rehearse and not wrong:
        name = bench.xp.cuda.runtime.getDeviceProperties(0)["name"].decode()
        machine = {**describe(1, "numpy", "torch"), "device": name, "best TFLOP/s": f"{(peak or 0) / 1e12:.1f}"}
        found = {"machine": machine, "rows": [vars(row) for row in rows], "networks": networks}
        (RESULTS / f"{name.lower().replace(' ', '-')}.json").write_text(json.dumps(found, indent=2) + "\n")
        write_between_markers("gpu", head, cells, machine)
    if args.rehearse:
        print(f"{len(rows)} results compared, {len(wrong)} wrong; nothing was timed")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
