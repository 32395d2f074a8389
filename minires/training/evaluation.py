"""The errors of a network on a set of images."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minires._checks import instance
from minires._repr import shown
from minires.arrays import Array, array_module, is_array
from minires.context import no_grad
from minires.nn import Module
from minires.nn.module import evaluating
from minires.parallel import Communicator, as_communicator, together
from minires.tensor import Tensor
from minires.training.divergence import Diverged, first_bad_layer


@dataclass(frozen=True)
class Evaluation:
    """The errors of a network on a set of images.

    images      number of images
    error       percent of the images whose label is not the highest logit (top-1)
    top5_error  percent of the images whose label is not among the five highest; None for five classes or fewer
    confusion   (C, C) counts: row = label, column = prediction
    """

    images: int
    error: float
    top5_error: float | None
    confusion: Array = field(repr=False)


def evaluate(
    model: Module,
    batches: Iterable[tuple[Array, Array]],
    on_batch: Callable[[int], None] | None = None,
    *,
    ranks: Communicator | None = None,
) -> Evaluation:
    """Runs every batch through the model in evaluation mode, then restores the mode of each module.

    batches    (images (N, C, H, W), labels (N,)): one ordered pass
    ranks      processes that share the images, at least one image each; all get the result of all images.  None: this
               process alone
    on_batch   called after each batch with the number of images done; an exception ends the evaluation

    Raises Diverged for non-finite logits, and ValueError without any image or for a label outside the outputs.
    """
    instance(model, "model", Module)
    if on_batch is not None and not callable(on_batch):
        raise TypeError(f"on_batch must be a function of the number of images done, got {shown(on_batch)}")
    if isinstance(batches, (str, bytes)) or not isinstance(batches, Iterable):
        raise TypeError(f"batches must be pairs of images and labels, got {shown(batches)}")
    ranks = as_communicator(ranks, "ranks")
    confusion, images, beyond_five = together(ranks, lambda: _counted(model, batches, on_batch))
    counts = np.append(confusion.ravel(), (images, beyond_five))
    ranks.allreduce(counts)
    confusion, (images, beyond_five) = counts[:-2].reshape(confusion.shape), counts[-2:].tolist()
    error = 100.0 * float(images - np.trace(confusion)) / images
    return Evaluation(images, error, 100.0 * beyond_five / images if len(confusion) > 5 else None, confusion)


def _counted(model: Module, batches: Iterable[Any], on_batch: Callable[[int], None] | None) -> tuple[Array, int, int]:
    """This process's confusion (C, C), number of images, and number of labels outside the five highest logits."""
    confusion: Any = None
    beyond_five = images = 0
    with evaluating(model):
        for batch in batches:
            x, labels = _pair(batch)
            logits = predict(model, x)  # (N, C)
            C = logits.shape[1]
            if labels.min() < 0 or labels.max() >= C:
                raise ValueError(
                    f"labels must lie in [0, {C}) for a network of {C} outputs, got {labels.min()} to {labels.max()}"
                )
            if confusion is None:
                confusion = np.zeros((C, C), np.int64)
            np.add.at(confusion, (labels, logits.argmax(axis=1)), 1)
            if C > 5:
                best = np.argpartition(-logits, 5, axis=1)[:, :5]  # (N, 5)
                beyond_five += int((best != labels[:, None]).all(axis=1).sum())
            images += len(labels)
            if on_batch is not None:
                on_batch(images)
    if images == 0:
        raise ValueError("batches must hold at least one image, got none")
    return confusion, images, beyond_five


def _pair(batch: Any) -> tuple[Array, Array]:
    if not isinstance(batch, (tuple, list)) or len(batch) != 2 or not all(map(is_array, batch)):
        raise TypeError(f"batches must be pairs of arrays, images and labels, got {shown(batch)}")
    x, labels = batch
    if labels.dtype.kind not in "iu" or labels.shape != x.shape[:1]:
        raise ValueError(
            f"batches: labels must be integers (N,) for images of shape {x.shape}, got dtype {labels.dtype} and shape "
            f"{labels.shape}"
        )
    return x, labels


def predict(model: Module, x: Array) -> Array:
    """Logits (N, C) of images (N, C, H, W), on the CPU.  Raises Diverged for non-finite logits."""
    images = Tensor(on_device(model, x))
    with no_grad(), np.errstate(over="ignore", invalid="ignore"):
        logits = model(images).numpy()
    if not np.isfinite(logits).all():
        raise Diverged(f"the network's outputs are not finite; {first_bad_layer(model, images)}")
    return logits


def on_device(model: Module, x: Array) -> Array:
    """x with the dtype and on the device of the model's parameters."""
    parameter = next(iter(model.parameters())).data
    return array_module(parameter).asarray(x, dtype=parameter.dtype)
