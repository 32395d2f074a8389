"""Finds the layer where a diverged run first became non-finite."""

from __future__ import annotations

import numpy as np

from minires import functional as F
from minires.arrays import Array, array_module
from minires.context import enable_grad
from minires.inspect import AnomalyError, detect_anomaly
from minires.nn import Module
from minires.tensor import Tensor


class Diverged(ArithmeticError):
    """The loss, the logits or the weights are no longer finite numbers."""


def first_bad_layer(model: Module, images: Tensor, labels: Array | None = None, label_smoothing: float = 0.0) -> str:
    """A clause that names the first layer with non-finite weights or results.

    images   (N, C, H, W), the model's input
    labels   (N,): checks the loss and the backward pass too; None: the forward pass only

    Runs the model once more in its mode, and checks every result.
    """
    bad = bad_parameters(model)
    if bad:
        return bad
    try:
        with np.errstate(all="ignore"), enable_grad(), detect_anomaly():
            logits = model(images)
            if labels is not None:
                F.cross_entropy(logits, labels, label_smoothing=label_smoothing).backward()
    except AnomalyError as error:
        found = str(error).partition("; its forward was called at")[0]  # that place is in this function
        return f"the first bad layer is {error.node.module or 'the loss'}: {found}"
    except ValueError as error:  # the loss refuses non-finite logits
        return f"the first bad layer is the loss: {error}"
    return "no single layer's result is not finite"


def bad_parameters(model: Module) -> str:
    """A clause that names the layer with non-finite weights; "" without such a layer.

    An overflow in backward spreads to the weights of its own layer and of all layers before it.  So the origin is the
    bad layer nearest to the output.
    """
    bad = [name for name, p in model.named_parameters() if not bool(array_module(p.data).isfinite(p.data).all())]
    if not bad:
        return ""
    layer, _, parameter = bad[-1].rpartition(".")
    found = f"the first bad layer is {layer}: the last update made its {parameter} not finite"
    return found if len(bad) == 1 else f"{found}, and {len(bad) - 1} parameters of the layers before it"
