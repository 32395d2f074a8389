"""Whole networks beside PyTorch eager, both channels-last in fp32: training steps and inference.

Times of eager calls include the host's: there the device waits for it, on both sides.  minires has three forms, plain,
fused and captured.  The learning rate is 0, so that each step computes the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np

import minires as mr
import minires.functional as F
from benchmarks.gpu.journal import Item, Row
from benchmarks.gpu.products import CALLS, Bench
from minires.arrays import on_cpu

FORMS = ("plain", "fused", "captured")
# Rounding grows through up to 53 layers of batch statistics, in PyTorch too; a wrong gradient would differ by about 1.
ALLOWED = {"loss": 1e-3, "logits": 1e-3, "gradient": 0.1}


class Network(NamedTuple):
    name: str
    batch: int
    size: int  # of the square images
    options: dict[str, Any] = {}  # of `mr.models.create`  # noqa: RUF012

    def __str__(self) -> str:
        return f"{self.name}, {self.batch}×{self.size}×{self.size}"


def networks(bench: Bench, subjects: Iterable[Network], tasks: Iterable[str] = ("training",)) -> Iterator[Item]:
    for subject in subjects:
        for task in tasks:
            for form in FORMS:
                measure = partial(network, bench, subject, task, form)
                yield Item("network", f"{subject} {task}, {form}", CALLS * 0.1, measure)


class Peer(NamedTuple):
    """PyTorch's network, with its results on the subject's images."""

    state: dict[str, np.ndarray]
    images: Any
    labels: np.ndarray
    call: Callable[[], Any]
    results: dict[str, np.ndarray]


def _peer(bench: Bench, subject: Network, task: str) -> Peer:
    mr.manual_seed(0)
    ours = mr.models.create(subject.name, **subject.options)
    images = bench.normal(subject.batch, subject.size, subject.size, 3).transpose(0, 3, 1, 2)
    classes = ours.fc.weight.shape[0]
    labels = bench.rng.integers(0, classes, subject.batch)
    state = {name: np.array(on_cpu(value)) for name, value in ours.state_dict().items()}
    torch = bench.peers.torch
    theirs = bench.peers.network(subject.name, subject.options, state)
    if task == "training":
        theirs.train()
        call = bench.peers.step(theirs, images, labels)
        results = {"loss": call().detach().cpu().numpy().reshape(1)}
        grads = {name: p.grad.contiguous().cpu().numpy() for name, p in theirs.named_parameters()}
        return Peer(state, images, labels, call, results | {f"gradient {name}": g for name, g in grads.items()})
    theirs.eval()
    x = bench.peers.tensor(images)

    def infer() -> Any:
        with torch.no_grad():
            return theirs(x)

    return Peer(state, images, labels, infer, {"logits": infer().cpu().numpy()})


def network(bench: Bench, subject: Network, task: str, form: str) -> Row:
    peer = bench.kept((subject, task), partial(_peer, bench, subject, task))
    with mr.backend("cuda"):
        model = mr.models.create(subject.name, **subject.options)
        model.load_state_dict(peer.state)
        model.to("cuda").train(task == "training")
        if form != "plain":
            model.fuse(training=task == "training")
        call = _training(model, peer) if task == "training" else _inference(model, peer)
        if form == "captured":
            call = _captured(call, model, peer, task)
        times = bench.clock.race({"ours": call, "peer": peer.call}, spin=False)
        found = call()
        grads = {} if task != "training" else {f"gradient {name}": p.grad for name, p in model.named_parameters()}
    output = found.data if isinstance(found, mr.Tensor) else found
    results = {("loss" if task == "training" else "logits"): output, **grads}
    off = {name: _off(on_cpu(results[name]), expected) for name, expected in peer.results.items()}
    worst = max(off, key=lambda name: off[name] / ALLOWED[name.partition(" ")[0]])
    allowed = ALLOWED[worst.partition(" ")[0]]
    return {
        "problem": f"{subject} {task}", "kernel": form, "precision": "fp32", "images": subject.batch,
        "seconds": times["ours"].median, "low": times["ours"].low, "high": times["ours"].high, "gaps": True,
        "peer": "PyTorch eager", "peer_seconds": times["peer"].median, "peer_gaps": True,
        "off": off[worst], "of": worst, "allowed": allowed, "right": off[worst] <= allowed,
    }  # fmt: skip


def _training(model: Any, peer: Peer) -> Callable[..., Any]:
    optimizer = mr.optim.SGD(model.parameters(), 0.0, 0.9, 1e-4)

    def step(images: Any = peer.images, labels: Any = peer.labels) -> Any:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(mr.tensor(images)), labels)
        loss.backward()
        optimizer.step()
        return loss

    return step


def _inference(model: Any, peer: Peer) -> Callable[..., Any]:
    def infer() -> Any:
        with mr.no_grad():
            return model(mr.tensor(peer.images))

    return infer


def _captured(call: Callable[..., Any], model: Any, peer: Peer, task: str) -> Callable[..., Any]:
    if task == "training":
        fast = mr.capture(call, peer.images, peer.labels)
        return partial(fast, peer.images, peer.labels)
    fast = mr.capture(model, peer.images)
    return partial(fast, peer.images)


def _off(found: Any, expected: np.ndarray) -> float:
    """Relative difference in norm; infinity in place of NaN."""
    difference = float(np.linalg.norm(np.asarray(found).reshape(expected.shape) - expected) / np.linalg.norm(expected))
    return difference if difference == difference else float("inf")
