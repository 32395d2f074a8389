"""One update of the weights: forward, backward, descent."""

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
from minires.training.measured import Measured
from minires.training.parts import shards


class Update:
    """Moves a model's weights by SGD along the gradient of the mean cross-entropy of a batch.

    micro_batch   how many images go through the network at a time; None: the whole batch.  Gradients add up over the
                  parts to that of the batch's mean, whatever their sizes.  Batch norm is what remains of the parts: it
                  normalises each with its own mean and variance, and moves the running statistics once for each.
    ranks         who share each part; their gradients are added up while the last part's backward goes on
    capture       whether forward and backward of a whole batch are captured, for batches as large as the first.  Only
                  where this process trains alone, without dropout, on the backend `native`; the bits are the same
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
        self.captured: tuple[tuple[int, ...], Captured] | None = None  # for images of this shape

    def __call__(self, x: Array, labels: Array, lr: float, whole: int | None = None) -> Measured:
        """x (N, C, H, W), labels (N,): the images at `places(whole, …)` of a batch of `whole`; None: it is all of it.

        Returns what was measured on the whole batch.  Raises Diverged, on every rank and before the weights move,
        when an output is not finite.
        """
        self.optimizer.zero_grad()
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # what overflows is noticed here
            total = len(labels) if whole is None else whole
            measured, start = Measured(), 0
            for shard, last in shards(total, self.micro_batch, self.ranks):
                end = start + shard.size
                with shard.drawing():
                    measured += self._add_gradient(x[start:end], labels[start:end], shard.size / total, last)
                start = end
            self.optimizer.lr = lr
            self.optimizer.step()
        return measured

    def _add_gradient(self, x: Array, labels: Array, share: float, last: bool) -> Measured:
        """Adds the gradient of a part of the batch, which weighs as much as its share; with the last, the ranks'."""
        images = Tensor(on_device(self.model, x))
        replay = self._replay(images, labels) if share == 1 else None
        logits, loss = (self.model(images), None) if replay is None else map(Tensor, replay(images, labels))
        xp = array_module(logits.data)  # of (N, classes)
        labels, fault = xp.asarray(labels), ""
        if not bool(xp.isfinite(logits.data).all()):
            fault = "the network's outputs are not finite"
        else:
            if loss is None:
                loss = F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
            if not np.isfinite(loss.item()):
                fault = f"the loss is {loss.item()}"
        wrong = int((logits.data.argmax(axis=1) != labels).sum())
        told = np.array([bool(fault), 0.0 if loss is None else loss.item() * len(labels), wrong, len(labels)])
        self.ranks.allreduce(told)
        if told[0]:
            together(self.ranks, lambda: self._raise(fault, images, labels))
        assert loss is not None
        cotangent = xp.asarray(share, loss.dtype)
        if replay is None:  # a replay has walked backward too
            with self.buckets.of(loss) if last and self.buckets is not None else nullcontext():
                loss.backward(cotangent)
        return Measured(float(told[1]), int(told[2]), int(told[3]))

    def _replay(self, images: Tensor, labels: Array) -> Captured | None:
        """Replays forward and backward of images of this shape; None where they are not captured."""
        if not self.captures or getattr(backends.active(), "recording", None) is None:
            return None
        if backends.on_gpu():  # CUDA graphs have not run on a GPU yet
            return None
        if self.captured is None or self.captured[0][0] < len(labels):  # a run may resume at an epoch's last batch
            try:
                self.captured = images.shape, capture(self._forward_and_backward, images, labels)
            except ValueError:  # an output is not finite, which is reported without a capture
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
            with unsynchronised(self.model):  # the other ranks do not look for it
                found = first_bad_layer(self.model, images, labels, self.label_smoothing)
            raise Diverged(f"{fault}; {found}")
