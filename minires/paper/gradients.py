"""Gradients over depth at initialisation: {plain, residual} × {with, without batch norm}.

Vanishing gradients are the usual explanation for the failure of deep plain networks.  These measurements contradict it:
with batch norm, the gradients of a plain network *explode* toward the input (Yang et al., arXiv:1902.08129).  They
vanish only in plain networks without batch norm, which are not used.  The paper calls degradation "unlikely to be
caused by vanishing gradients" (section 4.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from minires import functional as F
from minires import models, random
from minires._checks import integer
from minires._plotting import encoded
from minires.nn import Conv2d
from minires.optim import SGD
from minires.tensor import Tensor

WARNING = (
    "In plain networks with batch norm the gradients do not vanish at initialisation: they explode toward the input. "
    'The paper calls degradation "unlikely to be caused by vanishing gradients" (section 4.1).'
)
DEPTHS = (20, 56, 110)


@dataclass(frozen=True)
class Case:
    """One network.

    norms    ‖∂L/∂W‖ of every 3×3 convolution, from the input to the output
    turned   degrees by which the steps have turned each of these weights; empty without steps, or if the outputs became
             infinite or NaN
    """

    residual: bool
    batch_norm: bool
    depth: int
    norms: tuple[float, ...]
    turned: tuple[float, ...] = ()

    @property
    def name(self) -> str:
        kind = "residual" if self.residual else "plain"
        return f"{kind}-{self.depth}, {'with' if self.batch_norm else 'without'} batch norm"


def measure(
    residual: bool, batch_norm: bool, depth: int, *, seed: int = 0, steps: int = 0, lr: float = 0.1, batch: int = 32
) -> Case:
    """Gradients of the cross-entropy for random images (3, 28, 28) and labels, in a freshly initialised network.

    steps   updates by SGD (momentum 0.9) on the same batch, before the turn of each layer's weights is measured
    """
    integer(steps, "steps", 0)
    integer(batch, "batch", 2)
    random.manual_seed(integer(seed, "seed", 0))
    family = "resnet" if residual else "plain"
    model = models.create(f"{family}{depth}", batch_norm=batch_norm)
    rng = np.random.default_rng(seed)
    x = Tensor(rng.standard_normal((batch, 3, 28, 28)).astype(np.float32))
    labels = rng.integers(0, 10, batch)
    layers = [m for path, m in model.named_modules() if isinstance(m, Conv2d) and "downsample" not in path]
    sgd = SGD(model.parameters(), lr, 0.9)
    first = [layer.weight.data.copy() for layer in layers]
    norms: tuple[float, ...] = ()
    with np.errstate(over="ignore", invalid="ignore"):  # some of these networks explode
        for step in range(steps + 1):
            sgd.zero_grad()
            logits = model(x)
            if not np.isfinite(logits.data).all():
                steps = 0
                break
            F.cross_entropy(logits, labels).backward()
            if step == 0:
                grads = [np.asarray(layer.weight.grad, np.float64) for layer in layers]  # squares may exceed float32
                norms = tuple(float(np.linalg.norm(grad)) for grad in grads)
            if step < steps:
                sgd.step()
    turned = tuple(_angle(a, layer.weight.data) for a, layer in zip(first, layers, strict=True)) if steps else ()
    return Case(residual, batch_norm, depth, norms, turned)


def _angle(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a.ravel().astype(np.float64), b.ravel().astype(np.float64)
    cosine = a @ b / (np.linalg.norm(a) * np.linalg.norm(b))
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))


def picture(cases: Sequence[Case]) -> bytes:
    """Gradient norm over depth, one panel for each of the four kinds: the bytes of a PNG."""
    figure = Figure(figsize=(9, 6.6), layout="constrained")
    panels = figure.subplots(2, 2, squeeze=False)
    for row, batch_norm in enumerate((True, False)):
        for column, residual in enumerate((False, True)):
            axes = panels[row][column]
            for case in cases:
                if (case.residual, case.batch_norm) == (residual, batch_norm):
                    depth = np.linspace(0, 1, len(case.norms))
                    axes.semilogy(depth, case.norms, label=f"{case.depth} layers")
            kind = "residual" if residual else "plain"
            axes.set_title(f"{kind}, {'with' if batch_norm else 'without'} batch norm", fontsize=10)
            axes.set(xlabel="depth: input 0, output 1", ylabel="norm of the weights' gradient")
            axes.grid(alpha=0.3)
    lines = {line.get_label(): line for row in panels for axes in row for line in axes.lines}
    figure.legend(lines.values(), lines.keys(), loc="outside lower center", ncols=len(lines), fontsize=9)
    figure.suptitle("Gradients at initialisation\n" + WARNING.replace(". The", ".\nThe"), fontsize=9)
    return encoded(figure)
