"""Whole networks: inference and training steps, every contender with the same weights, images and labels.

minires trains with fused operations (`model.fuse(training=True)`).  It infers with batch norm folded into the
convolutions (`model.fuse()`), as onnxruntime, OpenVINO and compiled PyTorch do; PyTorch eager does not.  "plain" is
minires without either.  "captured" is fused and replays a capture (`mr.capture`) of the inference or of the whole
training step.  Only the native backend captures.

Every contender computes in float32: OpenVINO and PyTorch are configured not to use bfloat16, onnxruntime keeps the
dtype of the ONNX file.  Captures and compilations happen before anything is timed.  If `torch.compile` fails, "torch
compiled" is left out and the reason is reported.

The peak memory of a contender is its process's, from the moment when the contender is ready.  For "captured" it
includes the capture, not the runs that test the capture.

The results of the last timed calls are compared: the logits, or the loss and the gradient of the first convolution.
"""

from __future__ import annotations

import tempfile
import textwrap
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from minires import backends, models, random
from minires import functional as F
from minires.arrays import channels_first, channels_last
from minires.bench.peers import CAPTURED, CHANNELS_LAST, COMPILED, FREEZING, TORCH, TUNED, TUNED_ALLOCATOR, environment
from minires.bench.race import CannotTakePart, Contender, race, statistics_of, workers
from minires.capture import capture
from minires.context import no_grad
from minires.inspect import summary
from minires.nn import BatchNorm2d
from minires.optim import SGD
from minires.tensor import Tensor, tensor
from minires.weights import exported

Arrays = dict[str, np.ndarray]

WEIGHTS, ONNX = "weights", "network.onnx"  # OpenVINO recognises the format by the suffix


@dataclass(frozen=True)
class Workload:
    """A network on a batch of random images of its usual size; task: "inference" or "training"."""

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
        """Operations of the convolutions and the linear layer: two for each multiply-add."""
        counted = summary(models.create(self.network), models.input_shape(self.network))
        macs = counted.macs + (counted.backward_macs if self.task == "training" else 0)
        return 2 * self.batch * macs


def workloads(network: str, batch: int | None = None, quick: bool = False) -> list[Workload]:
    """The workloads of a network; `batch` replaces the usual batches."""
    usual = 128 if models.input_shape(network)[1] == 32 else 16
    batches = {"inference": (8,), "training": (16,)} if quick else {"inference": (1, 8, 32), "training": (1, usual)}
    if batch is not None:
        batches = dict.fromkeys(batches, (batch,))
    return [Workload(network, task, n) for task, sizes in batches.items() for n in sizes]


# -- the contenders


class Ours:
    """minires on the backend that the environment names; form: "fused", "plain" or "captured" (and fused)."""

    def __init__(self, work: Workload, files: Path, threads: int, form: str) -> None:
        backends.set_num_threads(threads)
        self.model = models.create(work.network)
        self.model.load_state_dict(load_file(files / WEIGHTS))
        self.model.train()
        x, self.labels = work.data()
        self.x = tensor(channels_first(channels_last(x)))  # channels-last in memory, as for "torch channels_last"
        if form != "plain":
            self.model.fuse(training=work.task == "training")
        self.call: Callable[..., Any]
        self.inputs: tuple[Any, ...]
        if work.task == "inference":
            self.call, self.inputs, self.run = self.model.eval(), (self.x,), self.infer
        else:
            self.sgd = SGD(self.model.parameters(), lr=0.0, momentum=0.9, weight_decay=1e-4)
            self.call, self.inputs, self.run = self.step, (self.x, self.labels, 0.0), self.train
        if form == "captured":
            self.call = capture(self.call, *self.inputs)

    def infer(self) -> None:
        with no_grad():
            self.logits = self.call(*self.inputs)

    def train(self) -> None:
        self.loss = self.call(*self.inputs).item()

    def step(self, x: Tensor, labels: np.ndarray, lr: float) -> Tensor:
        self.sgd.zero_grad()
        self.sgd.lr = lr
        loss = F.cross_entropy(self.model(x), labels)
        loss.backward()
        self.sgd.step()
        return loss

    def result(self) -> Arrays:
        if self.run == self.infer:
            logits = self.logits.data if isinstance(self.logits, Tensor) else self.logits
            return {"logits": np.ascontiguousarray(logits)}
        first = next(iter(self.model.parameters())).grad
        assert first is not None
        return {"loss": np.array(self.loss), "gradient": np.ascontiguousarray(first)}


class Torch:
    """PyTorch, eager or compiled."""

    def __init__(self, work: Workload, files: Path, threads: int, channels_last: bool, compiled: bool = False) -> None:
        import torch  # optional, as are the modules that import it
        from safetensors.torch import load_file

        from minires.verify import torch_networks

        self.torch = torch
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision("highest")
        self.model = torch_networks.create(work.network)
        self.model.load_state_dict(load_file(files / WEIGHTS), strict=False)
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
        self.call: Any = self.model
        if compiled:
            try:
                self.call = torch.compile(self.model)
                self.run()  # compiles
            except Exception as error:
                reason = str(error).partition("\n\n")[0] or type(error).__name__  # without the hints for debugging
                raise CannotTakePart(textwrap.shorten(f"could not compile: {reason}", 200)) from error

    def infer(self) -> None:
        with self.torch.inference_mode():
            self.logits = self.call(self.x)

    def train(self) -> None:
        self.sgd.zero_grad()
        loss: Any = self.torch.nn.functional.cross_entropy(self.call(self.x), self.labels)
        loss.backward()
        self.sgd.step()
        self.loss = loss.item()

    def result(self) -> Arrays:
        if self.run == self.infer:
            return {"logits": self.logits.contiguous().numpy()}
        return {"loss": np.array(self.loss), "gradient": next(self.model.parameters()).grad.contiguous().numpy()}


class OnnxRuntime:
    """onnxruntime with its default settings, except for the number of threads."""

    def __init__(self, work: Workload, files: Path, threads: int) -> None:
        import onnxruntime  # optional

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = onnxruntime.InferenceSession(str(files / ONNX), options, ["CPUExecutionProvider"])
        self.x = work.data()[0]

    def run(self) -> None:
        (self.logits,) = self.session.run(None, {"images": self.x})

    def result(self) -> Arrays:
        return {"logits": self.logits}


class OpenVino:
    """OpenVINO in float32, with its latency hint."""

    def __init__(self, work: Workload, files: Path, threads: int) -> None:
        import openvino  # optional

        options = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        self.compiled = openvino.Core().compile_model(str(files / ONNX), "CPU", options)
        self.request = self.compiled.create_infer_request()
        self.x = work.data()[0]

    def run(self) -> None:
        self.logits = self.request.infer({"images": self.x}, share_inputs=True)[0]

    def result(self) -> Arrays:
        return {"logits": self.logits}


ONNX_READERS = {"onnxruntime": OnnxRuntime, "openvino": OpenVino}


def contenders(work: Workload, files: Path, threads: int, backend: str, peers: tuple[str, ...]) -> list[Contender]:
    """minires first, then the peers."""

    def ours(name: str, backend: str, form: str = "fused") -> Contender:
        return Contender(name, partial(Ours, work, files, threads, form), environment(threads, backend))

    def peer(name: str, kind: Callable[..., Any], *form: bool, more: dict[str, str] | None = None) -> Contender:
        return Contender(name, partial(kind, work, files, threads, *form), environment(threads, more=more))

    found = [ours(backend, backend), ours(f"{backend}, plain", backend, "plain")]
    if backend == "native":
        found.append(ours(CAPTURED, backend, "captured"))
    if "reference" in peers and backend != "reference":
        found.append(ours("reference", "reference"))
    if "torch" in peers:
        found += [peer(TORCH, Torch, False), peer(CHANNELS_LAST, Torch, True)]
        found.append(peer(TUNED, Torch, True, more=TUNED_ALLOCATOR))
    if "torch.compile" in peers:
        found.append(peer(COMPILED, Torch, True, True, more=FREEZING))
    if work.task == "inference":
        found += [peer(name, kind) for name, kind in ONNX_READERS.items() if name in peers]
    return found


# -- their files


def prepare(work: Workload, files: Path, onnx: bool) -> None:
    """Writes the weights, and the network as an ONNX file if asked for.

    The running statistics are those of a batch.  With fresh ones, every block would double the activations.
    """
    random.manual_seed(0)
    model = models.create(work.network)
    norms = [module for module in model.modules() if isinstance(module, BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    with no_grad():
        model.train()(tensor(replace(work, batch=8).data()[0]))
    save_file({name: np.ascontiguousarray(array) for name, array in model.state_dict().items()}, files / WEIGHTS)
    if onnx:
        (files / ONNX).write_bytes(exported(model, models.input_shape(work.network), work.batch))


# -- the race


def measure(
    work: Workload, threads: int, rounds: int, until: float, backend: str, peers: tuple[str, ...]
) -> dict[str, Any]:
    """One workload: each contender's time, rate, peak memory, and the difference of its result from the judge's.

    until   end of the time, by `time.monotonic`
    """
    left_out: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder)
        prepare(work, files, onnx=work.task == "inference" and not ONNX_READERS.keys().isdisjoint(peers))
        with workers(contenders(work, files, threads, backend, peers), left_out) as ready:
            began = time.monotonic()
            seconds = race(ready, ("run",), rounds, until - began)["run"]
            lasted = time.monotonic() - began
            results = {worker.name: worker.ask("result") for worker in ready}
            usage = {worker.name: worker.usage() for worker in ready}
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
    workload = {**asdict(work), "operations": operations, "judge": judge}
    return {**workload, "sides": rows, "disagree": disagreeing(rows), "left_out": left_out}


def off(found: Any, expected: Any, xp: Any = np) -> float:
    """Relative difference in norm; infinity in place of NaN."""
    value = float(xp.linalg.norm(found - expected) / xp.linalg.norm(expected))
    return value if value == value else float("inf")


def disagreeing(rows: dict[str, Any]) -> list[str]:
    """The contenders whose results differ from the judge's by more than rounding explains."""
    # float32 rounding grows in backward through up to 53 layers of batch statistics, in PyTorch as well.  PyTorch's two
    # memory layouts show by how much.  A wrong gradient would differ by about 1.
    rounding = rows.get(CHANNELS_LAST, {}).get("difference", {}).get("gradient", 0.05)
    allowed = {"logits": 1e-3, "loss": 1e-3, "gradient": min(max(0.02, 3 * rounding), 0.2)}
    return [
        name
        for name, row in rows.items()
        if not all(difference <= allowed[key] for key, difference in row["difference"].items())
    ]
