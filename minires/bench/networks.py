"""Whole networks: inference and training steps, every side with the same weights, images and labels.

Ours trains with fused operations (`model.fuse(training=True)`) and infers with batch norm folded into the convolutions
(`model.fuse()`), as onnxruntime does by itself and as PyTorch eager does not; "plain" does neither.  The results that
are compared are those of the last call that was timed: the logits, or the loss and the gradient of the first
convolution.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from minires import backends, models, random
from minires import functional as F
from minires.bench.race import Side, players, race, statistics_of
from minires.bench.sides import CHANNELS_LAST, TORCH, TUNED, TUNED_ALLOCATOR, environment
from minires.context import no_grad
from minires.inspect import summary
from minires.nn import BatchNorm2d, Module
from minires.optim import SGD
from minires.tensor import tensor

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Workload:
    """A network on a batch of random images of the size that the paper's was made for; task: inference or training."""

    network: str
    task: str
    batch: int

    def __str__(self) -> str:
        return f"{self.network} {self.task} {self.batch}"

    def data(self) -> tuple[np.ndarray, np.ndarray]:
        """x (N, C, H, W), labels (N,)"""
        rng = np.random.default_rng(1)
        shape = (self.batch, *models.input_shape(self.network))
        classes = models.options(self.network)["num_classes"]
        return rng.standard_normal(shape, np.float32), rng.integers(0, classes, self.batch)

    def operations(self) -> int:
        """Of the convolutions and the linear layer, a multiply-add counted as two."""
        counted = summary(models.create(self.network), models.input_shape(self.network))
        macs = counted.macs + (counted.backward_macs if self.task == "training" else 0)
        return 2 * self.batch * macs


def workloads(network: str, batch: int | None = None, quick: bool = False) -> list[Workload]:
    """What is measured of a network; `batch` replaces the usual ones."""
    training = 128 if models.input_shape(network)[1] == 32 and not quick else 16
    inference = (8,) if quick else (1, 8, 32)
    found = [Workload(network, "inference", n) for n in (inference if batch is None else (batch,))]
    return [*found, Workload(network, "training", training if batch is None else batch)]


# -- the sides


class Ours:
    """minires; which backend computes, the environment says."""

    def __init__(self, work: Workload, files: Path, threads: int, fused: bool) -> None:
        backends.set_num_threads(threads)
        self.model = _restored(work, files)
        x, self.labels = work.data()
        # Channels-last in memory, as PyTorch's side of that name has its images.
        self.x = tensor(np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2))
        if fused:
            self.model.fuse(training=work.task == "training")
        if work.task == "inference":
            self.model.eval()
            self.run = self.infer
        else:
            self.sgd = SGD(self.model.parameters(), lr=0.0, momentum=0.9, weight_decay=1e-4)
            self.run = self.train

    def infer(self) -> None:
        with no_grad():
            self.logits = self.model(self.x).data

    def train(self) -> None:
        self.sgd.zero_grad()
        loss = F.cross_entropy(self.model(self.x), self.labels)
        loss.backward()
        self.sgd.step()
        self.loss = loss.item()

    def result(self) -> Arrays:
        if self.run == self.infer:
            return {"logits": np.ascontiguousarray(self.logits)}
        first = next(iter(self.model.parameters())).grad
        assert first is not None
        return {"loss": np.array(self.loss), "gradient": np.ascontiguousarray(first)}


class Torch:
    """PyTorch eager."""

    def __init__(self, work: Workload, files: Path, threads: int, channels_last: bool) -> None:
        import torch
        from safetensors.torch import load_file

        from minires.verify import torch_networks

        self.torch = torch
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision("highest")
        self.model = torch_networks.create(work.network)
        self.model.load_state_dict(load_file(files / "weights"), strict=False)
        x, labels = work.data()
        self.x, self.labels = torch.from_numpy(x), torch.from_numpy(labels)
        if channels_last:
            self.model = self.model.to(memory_format=torch.channels_last)
            self.x = self.x.contiguous(memory_format=torch.channels_last)
        if work.task == "inference":
            self.model.eval()
            self.run = self.infer
        else:
            self.sgd = torch.optim.SGD(self.model.parameters(), lr=0.0, momentum=0.9, weight_decay=1e-4)
            self.run = self.train

    def infer(self) -> None:
        with self.torch.inference_mode():
            self.logits = self.model(self.x)

    def train(self) -> None:
        self.sgd.zero_grad()
        loss: Any = self.torch.nn.functional.cross_entropy(self.model(self.x), self.labels)
        loss.backward()
        self.sgd.step()
        self.loss = loss.item()

    def result(self) -> Arrays:
        if self.run == self.infer:
            return {"logits": self.logits.contiguous().numpy()}
        return {"loss": np.array(self.loss), "gradient": next(self.model.parameters()).grad.contiguous().numpy()}


class OnnxRuntime:
    """onnxruntime with its own defaults, but for the number of threads."""

    def __init__(self, work: Workload, files: Path, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = onnxruntime.InferenceSession(str(files / "onnx"), options, ["CPUExecutionProvider"])
        self.x = work.data()[0]

    def run(self) -> None:
        (self.logits,) = self.session.run(None, {"images": self.x})

    def result(self) -> Arrays:
        return {"logits": self.logits}


def sides(work: Workload, files: Path, threads: int, backend: str, peers: tuple[str, ...]) -> list[Side]:
    """Who takes part; the first is ours."""

    def ours(name: str, backend: str, fused: bool = True) -> Side:
        return Side(name, partial(Ours, work, files, threads, fused), environment(threads, backend))

    def torch(name: str, channels_last: bool, allocator: dict[str, str] | None = None) -> Side:
        return Side(name, partial(Torch, work, files, threads, channels_last), environment(threads, more=allocator))

    found = [ours(backend, backend), ours(f"{backend}, plain", backend, fused=False)]
    if "reference" in peers and backend != "reference":
        found.append(ours("reference", "reference"))
    if "torch" in peers:
        found += [torch(TORCH, False), torch(CHANNELS_LAST, True), torch(TUNED, True, TUNED_ALLOCATOR)]
    if "onnxruntime" in peers and work.task == "inference":
        found.append(Side("onnxruntime", partial(OnnxRuntime, work, files, threads), environment(threads)))
    return found


# -- what they are given


def prepare(work: Workload, files: Path, onnx: bool) -> None:
    """Writes the weights, and the network as an ONNX file if that is wanted."""
    from safetensors.numpy import save_file

    random.manual_seed(0)
    model = models.create(work.network)
    _settle(model, work)
    save_file({name: np.ascontiguousarray(array) for name, array in model.state_dict().items()}, files / "weights")
    if onnx:
        from minires.weights import exported

        (files / "onnx").write_bytes(exported(model, models.input_shape(work.network), work.batch))


def _settle(model: Module, work: Workload) -> None:
    """Running statistics as training leaves them: else every block of an untrained network doubles the activations."""
    norms = [module for module in model.modules() if isinstance(module, BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    x, _ = Workload(work.network, work.task, 8).data()
    with no_grad():
        model.train()(tensor(x))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def _restored(work: Workload, files: Path) -> Module:
    from safetensors.numpy import load_file

    model = models.create(work.network)
    model.load_state_dict(load_file(files / "weights"))
    return model.train()


# -- the race


def measure(
    work: Workload, threads: int, rounds: int, until: float, backend: str, peers: tuple[str, ...]
) -> dict[str, Any]:
    """One workload: for each side its time, rate, peak of memory, and how far its result is from the judge's.

    until   when it should be over, as `time.monotonic` tells it
    """
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder)
        prepare(work, files, onnx="onnxruntime" in peers and work.task == "inference")
        with players(sides(work, files, threads, backend, peers)) as ready:
            began = time.monotonic()
            seconds = race(ready, ("run",), rounds, until - began)["run"]
            lasted = time.monotonic() - began
            results = {player.name: player.ask("result") for player in ready}
            usage = {player.name: player.usage() for player in ready}
    judge = next((name for name in (TORCH, "reference") if name in results), backend)
    operations = work.operations()
    rows = {}
    for name, taken in seconds.items():
        peak, out_of_turn = usage[name]
        rows[name] = {
            **statistics_of(taken, operations),
            "peak_bytes": peak,
            "out_of_turn": out_of_turn / lasted,
            "difference": {key: off(found, results[judge][key]) for key, found in results[name].items()},
        }
    told = {"network": work.network, "task": work.task, "batch": work.batch, "operations": operations, "judge": judge}
    return {**told, "sides": rows, "disagree": disagreeing(rows)}


def off(found: np.ndarray, expected: np.ndarray) -> float:
    """Relative difference in norm; NaN is infinitely far."""
    value = float(np.linalg.norm(found - expected) / np.linalg.norm(expected))
    return value if value == value else float("inf")


def disagreeing(rows: dict[str, Any]) -> list[str]:
    """The sides whose results differ from the judge's by more than rounding explains."""
    # float32 rounding grows on its way back through up to 53 layers of batch statistics, in PyTorch as well: its two
    # layouts of memory say by how much.  A wrong gradient would differ by the order of 1.
    rounding = rows.get(CHANNELS_LAST, {}).get("difference", {}).get("gradient", 0.05)
    allowed = {"logits": 1e-3, "loss": 1e-3, "gradient": min(max(0.02, 3 * rounding), 0.2)}
    return [
        name
        for name, row in rows.items()
        if not all(difference <= allowed[key] for key, difference in row["difference"].items())
    ]
