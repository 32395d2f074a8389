"""The layer table: output shapes, parameters, multiply-adds, activation bytes."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from minires import backends
from minires._checks import LARGEST_SIZE, instance, integer
from minires._html import table_html
from minires._shown import shown
from minires.arrays import Array, array_module
from minires.autograd import Function
from minires.context import Observer, enable_grad
from minires.inspect.counting import memory_owners, multiply_adds
from minires.inspect.shapes import Shapes
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
    macs               multiply-adds of the forward pass
    backward_macs      of the backward pass: once more for the weight's gradient, and for the input's (not the image's)
    activation_bytes   size of the output
    kept_bytes         what backward keeps alive because of it, beyond what earlier operations keep and the parameters
    """

    module: str
    operation: str
    output_shape: tuple[int, ...]
    params: int
    macs: int
    backward_macs: int
    activation_bytes: int
    kept_bytes: int


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
    def backward_macs(self) -> int:
        """Multiply-adds of one image's backward pass."""
        return sum(row.backward_macs for row in self.rows)

    @property
    def activation_bytes(self) -> int:
        """Bytes of all outputs of one image."""
        return sum(row.activation_bytes for row in self.rows)

    @property
    def kept_bytes(self) -> int:
        """Bytes of one image that are alive between forward and backward."""
        return sum(row.kept_bytes for row in self.rows)

    def to_csv(self) -> str:
        """A line an operation, under the names of `Row`'s fields."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow([field.name for field in fields(Row)])
        for row in self.rows:
            told = asdict(row) | {"output_shape": "x".join(map(str, row.output_shape))}
            writer.writerow(told.values())
        return out.getvalue()

    def __rich__(self) -> Table:
        title = f"input {'×'.join(map(str, self.input_shape))}, one image"
        table = Table(title=title, show_footer=True)
        totals = (self.params, self.macs, self.backward_macs, self.activation_bytes, self.kept_bytes)
        for head, foot in zip(("module", "operation", "output"), ("total", "", ""), strict=True):
            table.add_column(head, foot)
        heads = ("parameters", "multiply-adds", "in backward", "output bytes", "kept for backward")
        for head, total in zip(heads, totals, strict=True):
            table.add_column(head, f"{total:,}", justify="right")
        for row in self.rows:
            numbers = (row.params, row.macs, row.backward_macs, row.activation_bytes, row.kept_bytes)
            shape = "×".join(map(str, row.output_shape))
            table.add_row(row.module, row.operation, shape, *(f"{number:,}" if number else "" for number in numbers))
        return table

    def _repr_html_(self) -> str:
        table = self.__rich__()
        rows = [*zip(*(column.cells for column in table.columns), strict=True), [c.footer for c in table.columns]]
        right = [str(column.header) for column in table.columns if column.justify == "right"]
        return table_html([column.header for column in table.columns], rows, str(table.title), right, totals=1)

    def __repr__(self) -> str:
        return str(self)

    def __str__(self) -> str:
        # In a notebook rich would display the table itself; elsewhere it adds colours where the output is a terminal.
        console = Console(width=140, force_jupyter=False, color_system=None)
        with console.capture() as capture:
            console.print(self)
        return capture.get().rstrip("\n")


class _Recorder(Observer):
    def __init__(self, model: Module) -> None:
        self.own_params = {
            path: sum(p.size for p in module._parameters.values()) for path, module in model.named_modules()
        }
        self.rows: list[Row] = []
        self.kept: dict[int, Any] = {id(p.data): p.data for p in model.parameters()}  # owners seen, kept alive by this

    def after_forward(self, node: Function, arrays: tuple[Array | None, ...], output: Array) -> None:
        kept = 0
        for owner in memory_owners(node.saved) if any(node.needs_input_grad) else []:
            if id(owner) not in self.kept:
                self.kept[id(owner)] = owner
                kept += owner.nbytes
        macs = multiply_adds(node)
        params = self.own_params.pop(node.module, 0)
        backward_macs = multiply_adds(node, "backward")
        self.rows.append(
            Row(node.module, node.name, output.shape[1:], params, macs, backward_macs, output.nbytes, kept)
        )


def summary(model: Module, input_shape: Sequence[int]) -> Summary:
    """Lets one image pass through the model, by shapes alone, and returns the layer table.

    input_shape   (C, H, W) of an image, without the batch axis

    The model's mode and statistics are left as they were.  Counting follows the paper: one multiply-add is 1;
    convolutions, projections and linear layers count.
    """
    images = blank_images(model, input_shape, 1)
    recorder = _Recorder(model)
    # In evaluation mode, with a tape: the model's statistics stay, and batch norm keeps as much as in training.
    # What is counted depends on shapes alone: nothing has to be computed.
    with evaluating(model), backends.using(Shapes()), enable_grad(), recorder:
        model(Tensor(images))
    return Summary(images.shape[1:], tuple(recorder.rows), sum(p.size for p in model.parameters()))


def check_input(model: Module, input_shape: Sequence[int]) -> tuple[int, ...]:
    """(C, H, W); TypeError or ValueError names the argument."""
    instance(model, "model", Module)
    if not isinstance(input_shape, (tuple, list)) or len(input_shape) != 3:
        raise ValueError(f"input_shape must be (C, H, W), got {shown(input_shape)}")
    return tuple(integer(n, "input_shape", 1, LARGEST_SIZE) for n in input_shape)


def blank_images(model: Module, input_shape: Sequence[int], batch: int) -> Array:
    """Zeros (batch, C, H, W) of the model's dtype and on its device; TypeError or ValueError names the argument."""
    shape = check_input(model, input_shape)
    like = next((p.data for p in model.parameters()), np.empty(0, np.float32))
    images: Array = array_module(like).zeros((batch, *shape), like.dtype)
    return images
