"""One update of the weights: forward, backward, SGD step."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np

from minires import backends
from minires import functional as F
from minires.arrays import Array, array_module
from minires.capture import Captured, capture
from minires.nn import Dropout, Module
from minires.optim import SGD
from minires.parallel import Alone, Buckets, Communicator, together, unsynchronised
from minires.tensor import Tensor
from minires.training.divergence import Diverged, first_bad_layer
from minires.training.evaluation import on_device
from minires.training.history import Metrics
from minires.training.microbatch import shards


class Update:
    """An SGD step along the gradient of the mean cross-entropy of a batch.

    micro_batch   images in one forward pass; None: the whole batch.  The gradients of the micro-batches add up to the
                  gradient of the batch's mean.  Batch norm differs: it normalises each micro-batch by its own mean and
                  variance, and updates the running statistics once for each.
    ranks         processes that share each micro-batch; their gradients are summed during the last backward pass
    capture       whether to capture forward and backward of a whole batch, for batches as large as the first.  Has an
                  effect only in one process, without dropout, on a backend that records; the bits are the same
    """

    def __init__(
        self,
        model: Module,
        optimizer: SGD,
        *,
        label_smoothing: float = 0.0,
        micro_batch: int | None = None,
        ranks: Communicator | None = None,
        capture: bool = False,
    ) -> None:
        self.model, self.optimizer = model, optimizer
        self.label_smoothing, self.micro_batch = label_smoothing, micro_batch
        self.ranks = ranks or Alone()
        self.buckets = Buckets(list(model.parameters()), self.ranks) if self.ranks.size > 1 else None
        drops = any(isinstance(module, Dropout) for module in model.modules())
        self.captures = capture and self.ranks.size == 1 and not drops
        self.captured: tuple[tuple[int, ...], Captured] | None = None  # and the shape of its images

    def __call__(self, x: Array, labels: Array, lr: float, whole: int | None = None) -> Metrics:
        """x (N, C, H, W), labels (N,): the images at `places(whole, …)` of a batch of `whole` images; None: the batch.

        Returns the metrics of the whole batch.  Raises Diverged, on every rank and before the weights change, when an
        output is not finite.
        """
        self.optimizer.zero_grad()
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # checked in _add_gradient
            total = len(labels) if whole is None else whole
            metrics, start = Metrics(), 0
            for shard, last in shards(total, self.micro_batch, self.ranks):
                end = start + shard.size
                with shard.drawing():
                    metrics += self._add_gradient(x[start:end], labels[start:end], shard.size / total, last)
                start = end
            self.optimizer.lr = lr
            self.optimizer.step()
        return metrics

    def _add_gradient(self, x: Array, labels: Array, share: float, last: bool) -> Metrics:
        """Adds the gradient of a micro-batch, weighted by its share of the batch.  The last one sums over the ranks."""
        images = Tensor(on_device(self.model, x))
        replay = self._replay(images, labels) if share == 1 else None
        logits, loss = (self.model(images), None) if replay is None else map(Tensor, replay(images, labels))
        xp = array_module(logits.data)  # (N, classes)
        labels, fault = xp.asarray(labels), ""
        if not bool(xp.isfinite(logits.data).all()):
            fault = "the network's outputs are not finite"
        else:
            if loss is None:
                loss = F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
            if not np.isfinite(loss.item()):
                fault = f"the loss is {loss.item()}"
        wrong = int((logits.data.argmax(axis=1) != labels).sum())
        sums = np.array([bool(fault), 0.0 if loss is None else loss.item() * len(labels), wrong, len(labels)])
        self.ranks.allreduce(sums)
        if sums[0]:
            together(self.ranks, lambda: self._raise(fault, images, labels))
        assert loss is not None
        cotangent = xp.asarray(share, loss.dtype)
        if replay is None:  # a replay includes backward
            with self.buckets.of(loss) if last and self.buckets is not None else nullcontext():
                loss.backward(cotangent)
        return Metrics(float(sums[1]), int(sums[2]), int(sums[3]))

    def _replay(self, images: Tensor, labels: Array) -> Captured | None:
        """The captured forward and backward for images of this shape; None without a capture."""
        if not self.captures or getattr(backends.active(), "recording", None) is None:
            return None
        if backends.on_gpu():  # CUDA graphs have not run on a GPU yet
            return None
        if self.captured is None or self.captured[0][0] < len(labels):  # a run may resume at an epoch's last batch
            try:
                self.captured = images.shape, capture(self._forward_and_backward, images, labels)
            except ValueError:  # an output is not finite: the eager pass reports it
                return None
        shape, replay = self.captured
        return replay if shape == images.shape else None

    def _forward_and_backward(self, images: Tensor, labels: Array) -> tuple[Tensor, Tensor]:
        self.optimizer.zero_grad()
        logits = self.model(images)
        loss = F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
        loss.backward()
        return logits, loss

    def _raise(self, fault: str, images: Tensor, labels: Array) -> None:
        if fault:
            with unsynchronised(self.model):  # only this rank runs the search
                found = first_bad_layer(self.model, images, labels, self.label_smoothing)
            raise Diverged(f"{fault}; {found}")
