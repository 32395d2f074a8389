"""The layer table: output shapes, parameters, multiply-adds, activation bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rich.console import Console
from rich.table import Table

from minires import backends
from minires._checks import integer
from minires.arrays import Array, array_module
from minires.autograd import Function, Observer, no_grad
from minires.inspect.counting import multiply_adds
from minires.nn import Module
from minires.nn.module import evaluating
from minires.tensor import Tensor


@dataclass(frozen=True)
class Row:
    """One operation of the forward pass, for a batch of one image.

    module             path of the module that ran it, e.g. "layer1.0.conv1"
    operation          e.g. "Conv2d"
    output_shape       without the batch axis
    params             parameters of that module, counted at its first operation
    macs               multiply-adds
    activation_bytes   size of the output
    """

    module: str
    operation: str
    output_shape: tuple[int, ...]
    params: int
    macs: int
    activation_bytes: int


@dataclass(frozen=True)
class Summary:
    """The rows of all operations in the order they ran, and their totals."""

    input_shape: tuple[int, ...]
    rows: tuple[Row, ...]
    params: int

    @property
    def macs(self) -> int:
        """Multiply-adds of one image: convolutions, projections and linear layers; no BN, ReLU, pooling, add, bias."""
        return sum(row.macs for row in self.rows)

    @property
    def activation_bytes(self) -> int:
        """Bytes of all outputs of one image."""
        return sum(row.activation_bytes for row in self.rows)

    def __rich__(self) -> Table:
        title = f"input {'×'.join(map(str, self.input_shape))}, one image"
        table = Table(title=title, show_footer=True)
        totals = (f"{self.params:,}", f"{self.macs:,}", f"{self.activation_bytes:,}")
        for head, foot in zip(("module", "operation", "output"), ("total", "", ""), strict=True):
            table.add_column(head, foot)
        for head, foot in zip(("parameters", "multiply-adds", "activation bytes"), totals, strict=True):
            table.add_column(head, foot, justify="right")
        for row in self.rows:
            table.add_row(
                row.module,
                row.operation,
                "×".join(map(str, row.output_shape)),
                f"{row.params:,}" if row.params else "",
                f"{row.macs:,}" if row.macs else "",
                f"{row.activation_bytes:,}",
            )
        return table

    def __str__(self) -> str:
        console = Console(width=110)
        with console.capture() as capture:
            console.print(self)
        return capture.get().rstrip("\n")


class _Recorder(Observer):
    def __init__(self, model: Module) -> None:
        self.own_params = {
            path: sum(p.size for p in module._parameters.values()) for path, module in model.named_modules()
        }
        self.rows: list[Row] = []

    def after_forward(self, node: Function, arrays: tuple[Array | None, ...], output: Array) -> None:
        self.rows.append(
            Row(
                node.module,
                node.name,
                output.shape[1:],
                self.own_params.pop(node.module, 0),
                multiply_adds(node),
                output.nbytes,
            )
        )


def summary(model: Module, input_shape: Sequence[int]) -> Summary:
    """Runs one image through the model and returns the layer table.

    input_shape   (C, H, W) of an image, without the batch axis

    The model's mode and statistics are left as they were.  Counting follows the paper: one multiply-add is 1;
    convolutions, projections and linear layers count.
    """
    if not isinstance(model, Module):
        raise TypeError(f"model must be a Module, got {type(model).__name__}")
    if not isinstance(input_shape, (tuple, list)) or len(input_shape) != 3:
        raise ValueError(f"input_shape must be (C, H, W), got {input_shape!r}")
    shape = tuple(integer(n, "input_shape", 1) for n in input_shape)
    parameters = list(model.parameters())
    like = parameters[0].data if parameters else np.empty(0, np.float32)
    image = array_module(like).zeros((1, *shape), like.dtype)
    recorder = _Recorder(model)
    # The reference backend computes wherever the arrays are; what is counted does not depend on who computes.
    with evaluating(model), backends.backend("reference"), no_grad(), recorder:
        model(Tensor(image))
    return Summary(shape, tuple(recorder.rows), sum(p.size for p in parameters))
