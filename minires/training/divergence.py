"""Where a training run that diverged went bad first."""

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
    """Names the first layer whose weights or results are not finite, in words that end a sentence.

    images   (N, C, H, W), as the model was given them
    labels   (N,): the loss and the way back are looked at as well; None: the outputs only

    The model runs once more, in its mode, with every result looked at: for a run that is over.
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
        node = error.node
        told = str(error).partition("; its forward was called at")[0]  # which is here
        return f"the first bad layer is {node.module or 'the loss'}: {told}"
    except ValueError as error:  # the loss takes no logits that are not finite
        return f"the first bad layer is the loss: {error}"
    return "no single layer's result is not finite"


def bad_parameters(model: Module) -> str:
    """Names the layer with weights that are not finite, and "" where there is none.

    An overflow on the way back reaches the weights of its own layer and of those before it.  So of the layers whose
    weights are bad, the one nearest to the output was the first.
    """
    bad = [name for name, p in model.named_parameters() if not bool(array_module(p.data).isfinite(p.data).all())]
    if not bad:
        return ""
    layer, _, parameter = bad[-1].rpartition(".")
    told = f"the first bad layer is {layer}: the last update made its {parameter} not finite"
    return told if len(bad) == 1 else f"{told}, and {len(bad) - 1} parameters of the layers before it"
