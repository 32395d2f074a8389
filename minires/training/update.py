"""One update of the weights: forward, backward, descent."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from minires import functional as F
from minires.arrays import Array, array_module
from minires.nn import Module
from minires.optim import SGD
from minires.tensor import Tensor
from minires.training.divergence import Diverged, first_bad_layer
from minires.training.evaluation import on_device
from minires.training.measured import Measured


class Update:
    """Moves a model's weights by SGD along the gradient of the mean cross-entropy of a batch.

    micro_batch   how many images go through the network at a time; None: the whole batch.  Gradients add up over the
                  parts to that of the batch's mean, whatever their sizes.  Batch norm is what remains of the parts: it
                  normalises each with its own mean and variance, and moves the running statistics once for each.
    """

    def __init__(
        self, model: Module, optimizer: SGD, *, label_smoothing: float = 0.0, micro_batch: int | None = None
    ) -> None:
        self.model, self.optimizer = model, optimizer
        self.label_smoothing, self.micro_batch = label_smoothing, micro_batch

    def __call__(self, x: Array, labels: Array, lr: float) -> Measured:
        """x (N, C, H, W), labels (N,).  Raises Diverged, before anything is moved, when an output is not finite."""
        self.optimizer.zero_grad()
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # what overflows is noticed here
            N = len(labels)
            measured = Measured()
            for start, end in parts(N, self.micro_batch):
                measured += self._add_gradient(x[start:end], labels[start:end], (end - start) / N)
            self.optimizer.lr = lr
            self.optimizer.step()
        return measured

    def _add_gradient(self, x: Array, labels: Array, share: float) -> Measured:
        """Adds the part's gradient, which weighs as much as its share of the batch."""
        images = Tensor(on_device(self.model, x))
        logits = self.model(images)  # (N, classes)
        xp = array_module(logits.data)
        labels = xp.asarray(labels)
        if not bool(xp.isfinite(logits.data).all()):
            raise self._diverged("the network's outputs are not finite", images, labels)
        loss = F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
        if not np.isfinite(loss.item()):
            raise self._diverged(f"the loss is {loss.item()}", images, labels)
        loss.backward(xp.asarray(share, loss.dtype))
        wrong = int((logits.data.argmax(axis=1) != labels).sum())
        return Measured(loss.item() * len(labels), wrong, len(labels))

    def _diverged(self, what: str, images: Tensor, labels: Array) -> Diverged:
        return Diverged(f"{what}; {first_bad_layer(self.model, images, labels, self.label_smoothing)}")


def parts(N: int, micro_batch: int | None) -> list[tuple[int, int]]:
    """(start, end) of the fewest parts of at most micro_batch images, their sizes one apart at most.

    So none is a small leftover, of whose statistics batch norm could make little.
    """
    count = 1 if micro_batch is None else -(-N // micro_batch)
    edges = [N * part // count for part in range(count + 1)]
    return list(pairwise(edges))
