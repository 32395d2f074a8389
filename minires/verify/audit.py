"""Holds every result of a run against the exact one: error / bound of each element, for operations and for networks.

An `Audit` observes the tape.  After each forward and backward it computes the exact result for the arrays that the
node was given (exact.py) and divides the error by the a-priori bound (bounds.py).  A quotient above 1 is a bug: in the
operation, in the backend, or in the bound.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minires import backends
from minires.arrays import Array
from minires.autograd import Function
from minires.context import Observer, no_grad
from minires.nn import Module
from minires.tensor import Tensor
from minires.verify import bounds
from minires.verify.bounds import Arithmetic
from minires.verify.enclosure import Enclosure
from minires.verify.exact import EXACT

NAMES = {  # Function -> what reports call it
    "Conv2d": "conv2d", "Linear": "linear", "BatchNorm": "batch_norm", "ReLU": "relu", "Add": "add",
    "MaxPool2d": "max_pool2d", "AvgPool2d": "avg_pool2d", "AdaptiveAvgPool2d": "adaptive_avg_pool2d", "Sum": "sum",
    "Mean": "mean", "Softmax": "softmax", "LogSoftmax": "log_softmax", "CrossEntropy": "cross_entropy",
}  # fmt: skip
COPIES = ("Reshape", "Transpose", "Slice", "Pad", "Copy")  # operations that only move numbers


@dataclass
class Row:
    """What one output of an operation was found to be.

    output     "y" or the gradient of an input, "grad_x"
    elements   number of elements compared with the exact result
    ratio      the largest error / bound
    where      backend, dtype, shape and index of that element
    """

    operation: str
    output: str
    elements: int = 0
    ratio: float = 0.0
    where: str = ""

    def add(self, found: Array, exact: Enclosure, bound: Array, where: str) -> None:
        if found.shape != exact.shape:
            self.ratio, self.where = float("inf"), f"{where}: the shape is {found.shape}, expected {exact.shape}"
            return
        if not found.size:
            return
        error = exact.distance(found)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(error == 0, 0, error / bound)
        ratio = np.where(np.isnan(ratio), np.inf, ratio)
        index = np.unravel_index(int(ratio.argmax()), ratio.shape)
        self.elements += found.size
        if ratio[index] > self.ratio or not self.where:
            at = tuple(int(i) for i in index)
            self.ratio, self.where = float(ratio[index]), f"{where}, {found.dtype} {found.shape} at {at}"


class Audit(Observer):
    """Compares every forward and backward within it with the exact result; `rows` collects (operation, output).

    label     name of the backend in reports
    backend, options   what computes, as `mr.backend` takes them: they decide on the bounds
    """

    def __init__(self, label: str = "", backend: str = "reference", **options: Any) -> None:
        self.label, self.backend, self.options = label or backend, backend, options
        self.rows: dict[tuple[str, str], Row] = {}
        self.bounds: list[Array | None] = []  # of the outputs, in the order of the forward pass; None: unknown
        self._terms: dict[int, Any] = {}

    @property
    def ratio(self) -> float:
        return max((row.ratio for row in self.rows.values()), default=0.0)

    def arithmetic(self, dtype: Any) -> Arithmetic:
        return Arithmetic.of(dtype, self.backend, **self.options)

    def after_forward(self, node: Function, arrays: tuple[Array | None, ...], output: Array) -> None:
        dtypes = {a.dtype for a in arrays if a is not None}
        if node.name not in EXACT or len(dtypes) != 1 or output.dtype not in (np.float32, np.float64):
            self.bounds.append(np.zeros(()) if node.name in COPIES else None)
            return
        terms = EXACT[node.name](node, *arrays)
        bound = bounds.forward(terms, self.arithmetic(output.dtype))
        self.bounds.append(bound)
        self._row(node, "y").add(output, terms.forward(), bound, self._where(node))
        if any(node.needs_input_grad):
            self._terms[node.serial] = terms

    def after_backward(self, node: Function, grad_output: Array, grads: tuple[Array | None, ...]) -> None:
        terms = self._terms.pop(node.serial, None)
        if terms is None:
            return
        names = list(inspect.signature(node.forward).parameters)
        exact = terms.backward(grad_output)
        limits = bounds.backward(terms, self.arithmetic(grad_output.dtype), grad_output)
        for name, wanted, grad, true, limit in zip(names, node.needs_input_grad, grads, exact, limits, strict=False):
            if wanted and grad is not None:
                self._row(node, f"grad_{name}").add(grad, true, limit, self._where(node))

    def _row(self, node: Function, output: str) -> Row:
        operation = NAMES[node.name]
        return self.rows.setdefault((operation, output), Row(operation, output))

    def _where(self, node: Function) -> str:
        return ", ".join(part for part in (self.label, node.module) if part)


def merged(audits: Sequence[Audit]) -> list[Row]:
    """A row for each output of each operation, over all audits"""
    rows: dict[tuple[str, str], Row] = {}
    for key, row in (item for audit in audits for item in audit.rows.items()):
        whole = rows.setdefault(key, Row(*key))
        whole.elements += row.elements
        if row.ratio > whole.ratio or not whole.where:
            whole.ratio, whole.where = row.ratio, row.where
    return list(rows.values())


def of_active_backend() -> Audit | None:
    """An audit for the backend that computes; None for one whose algorithms have no bounds here, such as your own"""
    chosen = backends.active()
    home = getattr(chosen, "__name__", type(chosen).__module__)
    if not home.startswith("minires.backends.") or chosen.name not in ("reference", "native", "emulated"):
        return None
    options = {key: getattr(chosen, key, None) for key in ("winograd", "gemm", "conv2d")}
    return Audit(chosen.name, chosen.name, **{k: v for k, v in options.items() if isinstance(v, str | bool)})


# -- a network


@dataclass(frozen=True)
class Logits:
    """How far float32 moves the logits of a network, and how far it may.

    error, bound   of each logit (N, K): |float32 − float64|, and the first-order running error bound
    """

    error: Array
    bound: Array

    @property
    def ratio(self) -> float:
        return float((self.error / self.bound).max())


class _Adjoints(Observer):
    """Σ |∂ logit / ∂ output| · bound over the outputs of every node, image by image"""

    def __init__(self, limits: Sequence[Array | None]) -> None:
        self.limits, self.place, self.total = limits, {}, 0.0  # type: ignore[var-annotated]

    def before_forward(self, node: Function, arrays: tuple[Array | None, ...]) -> None:
        self.place[node.serial] = len(self.place)

    def before_backward(self, node: Function, grad_output: Array) -> None:
        limit = self.limits[self.place[node.serial]]
        if limit is None:
            raise ValueError(f"{node.heading} has no bound")
        moved = np.abs(grad_output) * limit
        self.total = self.total + moved.reshape(len(moved), -1).sum(1)


def logits(model: Module, images: Array, audit: Audit) -> Logits:
    """Carries the bounds of all roundings of a float32 forward pass to the logits.

    model    in evaluation mode, float32
    audit    has observed model(images) and nothing else

    A rounding by δ of the output of a layer moves a logit by ∂ logit/∂ output · δ to first order.  All roundings move
    it by at most Σ |∂ logit/∂ output| · bound (Bauer, Computational graphs and rounding error, 1974).  The
    derivatives are those of the float64 network.  Its own roundings have the same bound, 2²⁹ times smaller.
    """
    with no_grad():
        found = model(Tensor(images)).data.astype(np.float64)
    wide, limits = copy.deepcopy(model).astype("float64"), []
    for k in range(found.shape[1]):
        with _Adjoints(audit.bounds) as adjoints:
            y = wide(Tensor(images.astype(np.float64), requires_grad=True))
            cotangent = np.zeros(y.shape)
            cotangent[:, k] = 1
            exact = y.data.copy()
            y.backward(cotangent)
        limits.append(adjoints.total)
    return Logits(np.abs(found - exact), np.stack(limits, 1) * (1 + 2.0**-28))
