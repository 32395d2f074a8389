"""The layer table: output shapes, parameters, multiply-adds, memory; by layer or by stage, and in total."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from rich.console import Console, Group
from rich.text import Text

from minires import backends
from minires._checks import LARGEST_SIZE, choice, instance, integer
from minires._html import table_html
from minires._repr import shown
from minires._table import FittedTable
from minires.arrays import Array, array_module
from minires.autograd import Function
from minires.context import Observer, enable_grad
from minires.inspect.cost import memory_owners, multiply_adds
from minires.inspect.shapes import Shapes
from minires.nn import Module
from minires.nn.fusing import in_form
from minires.nn.module import evaluating
from minires.tensor import Tensor

# sort -> the field of `Row`
SORTS = {"macs": "macs", "params": "params", "memory": "kept_bytes"}


@dataclass(frozen=True)
class Row:
    """One operation of the forward pass, or all operations of a module, for a batch of one image.

    module             path of the module that ran it, e.g. "layer1.0.conv1"
    operation          e.g. "Conv2d", or "7 operations"
    output_shape       without the batch axis; that of the last operation
    params             parameters of that module, counted at its first operation
    macs               multiply-adds of the forward pass
    backward_macs      of the backward pass: `macs` for the weight's gradient and for the input's (not for the image's)
    activation_bytes   size of the output
    kept_bytes         what the operation keeps for backward, without parameters and what earlier operations keep
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
    """The rows of the table in the requested order, and totals.

    params, trainable   parameters, and parameters that require a gradient; a shared parameter counts once
    input_bytes         size of the image
    pass_bytes          outputs of the layers with parameters, twice, because their gradients are as large
    params_bytes        size of the parameters
    sort, depth         arguments of `summary`
    """

    input_shape: tuple[int, ...]
    rows: tuple[Row, ...]
    params: int
    trainable: int
    input_bytes: int
    pass_bytes: int
    params_bytes: int
    sort: str | None = None
    depth: int | None = None

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
        """Bytes of one image that stay alive between forward and backward."""
        return sum(row.kept_bytes for row in self.rows)

    def to_csv(self) -> str:
        """One line an operation; the columns are the fields of `Row`."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow([field.name for field in fields(Row)])
        for row in self.rows:
            writer.writerow((asdict(row) | {"output_shape": "x".join(map(str, row.output_shape))}).values())
        return out.getvalue()

    def __rich__(self) -> Group:
        return Group(self._table(), *(Text(f"{label:<26}{value:>14}") for label, value in self._totals()))

    def _table(self) -> FittedTable:
        rows, sections = list(self.rows), [len(self.rows) - 1]
        if self.sort is None:
            rows, sections = _with_subtotals(self.rows)
        rows.append(_sum("total", self.rows))
        numbers = ("parameters", "multiply-adds", "share", "in backward", "output bytes", "kept for backward")
        head = ("module", "operation", "output", *numbers)
        heads = {"macs": "multiply-adds", "params": "parameters", "memory": "kept for backward"}
        drop = ("in backward", "output bytes", "kept for backward", "output", "operation", "parameters", "share")
        return FittedTable(
            head,
            [self._cells(row) for row in rows],
            f"input {'×'.join(map(str, self.input_shape))}, {'one image' if self.input_shape[1:] else 'batch of 1'}",
            right=numbers,
            drop=[name for name in drop if name != heads.get(self.sort or "")],
            sections=sections,
        )

    def _cells(self, row: Row) -> tuple[str, ...]:
        share = f"{100 * row.macs / self.macs:.1f} %" if row.macs else ""
        counts = (row.params, row.macs, row.backward_macs, row.activation_bytes, row.kept_bytes)
        params, macs, *more = (f"{count:,}" if count else "" for count in counts)
        return row.module, row.operation, "×".join(map(str, row.output_shape)), params, macs, share, *more

    def _totals(self) -> list[tuple[str, str]]:
        """The totals that torchinfo prints; 1 MB is a million bytes."""
        sizes = {
            "input size": self.input_bytes,
            "forward/backward pass size": self.pass_bytes,
            "params size": self.params_bytes,
        }
        sizes["estimated total size"] = sum(sizes.values())
        counts = {"total params": self.params, "trainable params": self.trainable, "multiply-adds": self.macs}
        totals = [(label, f"{count:,}") for label, count in counts.items()]
        return totals + [(label, f"{size / 1e6:,.2f} MB") for label, size in sizes.items()]

    def _repr_html_(self) -> str:
        table, totals = self._table(), self._totals()
        more = [(label, "", "", value, *[""] * (len(table.head) - 4)) for label, value in totals]
        return table_html(table.head, [*table.rows, *more], table.title, table.right, totals=1 + len(more))

    def __repr__(self) -> str:
        return str(self)

    def __str__(self) -> str:
        # Without these options rich displays the table itself in a notebook, and adds colours on a terminal.
        console = Console(width=140, force_jupyter=False, color_system=None)
        with console.capture() as capture:
            console.print(self, crop=False)
        return capture.get().rstrip("\n")


def _sum(module: str, rows: Sequence[Row], operation: str = "") -> Row:
    shape = () if module == "total" else rows[-1].output_shape
    sums = (sum(getattr(row, field.name) for row in rows) for field in fields(Row)[3:])
    return Row(module, operation, shape, *sums)


def _merged(rows: Sequence[Row], depth: int) -> list[Row]:
    """One row for each module path, cut to `depth` names, in the order of the first operation."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(".".join(row.module.split(".")[:depth]), []).append(row)
    return [
        own[0] if len(own) == 1 and own[0].module == module else _sum(module, own, f"{len(own)} operations")
        for module, own in groups.items()
    ]


def _with_subtotals(rows: Sequence[Row]) -> tuple[list[Row], list[int]]:
    """(rows with a subtotal after each stage of several rows, indices of the rows that end a section)"""
    table: list[Row] = []
    ends = []
    for stage, group in itertools.groupby(rows, key=lambda row: row.module.partition(".")[0]):
        own = list(group)
        if len(own) > 1 and stage:
            ends += [len(table) - 1] if table else []
            table += [*own, _sum(f"{stage} subtotal", own)]
            ends.append(len(table) - 1)
        else:
            table += own
    return table, [*ends, len(table) - 1]


class _Counter(Observer):
    def __init__(self, model: Module) -> None:
        self.own_params: dict[str, int] = {}
        seen: set[int] = set()  # ids of parameters: two modules may share one
        for path, module in model.named_modules(model._name):  # `_name`: the path of a part within its network
            own = [p for p in module._parameters.values() if id(p) not in seen]
            seen.update(map(id, own))
            self.own_params[path] = sum(p.size for p in own)
        self.with_params = {path for path, module in model.named_modules(model._name) if module._parameters}
        self.pass_bytes = 0
        self.rows: list[Row] = []
        self.kept: dict[int, Any] = {id(p.data): p.data for p in model.parameters()}  # alive, so ids stay unique

    def after_forward(self, node: Function, arrays: tuple[Array | None, ...], output: Array) -> None:
        kept = 0
        for owner in memory_owners(node.saved) if any(node.needs_input_grad) else []:
            if id(owner) not in self.kept:
                self.kept[id(owner)] = owner
                kept += owner.nbytes
        macs = multiply_adds(node)
        params = self.own_params.pop(node.module, 0)
        backward_macs = multiply_adds(node, "backward")
        self.pass_bytes += 2 * output.nbytes * (node.module in self.with_params)
        self.rows.append(
            Row(node.module, node.name, output.shape[1:], params, macs, backward_macs, output.nbytes, kept)
        )


def summary(model: Module, input_shape: Sequence[int], *, sort: str | None = None, depth: int | None = None) -> Summary:
    """The layer table of one image that passes through the model; computes shapes alone.

    input_shape   (C, H, W) of an image, or (features,) of a flat input, without the batch axis
    sort          "macs", "params" or "memory" (kept for backward), the largest first; None: the order of the pass
    depth         length of the module paths that have one row each (1: the stages); None: one row an operation

    The model keeps its mode and statistics.  Counting follows the paper: one multiply-add is 1, and convolutions,
    projections and linear layers count.
    """
    if sort is not None:
        choice(sort, "sort", SORTS)
    if depth is not None:
        integer(depth, "depth", 1)
    images = blank_images(model, input_shape, 1)
    counter = _Counter(model)
    # Evaluation mode leaves the statistics alone, and with a tape batch norm keeps as much as in training.
    # All counts depend on shapes alone, so the backend computes nothing else.
    with evaluating(model), in_form(model, fused=False), backends.using(Shapes()), enable_grad(), counter:
        model(Tensor(images))
    rows = counter.rows if depth is None else _merged(counter.rows, depth)
    if sort is not None:
        rows = sorted(rows, key=lambda row: -getattr(row, SORTS[sort]))
    parameters = list(model.parameters())
    return Summary(
        input_shape=images.shape[1:],
        rows=tuple(rows),
        params=sum(p.size for p in parameters),
        trainable=sum(p.size for p in parameters if p.requires_grad),
        input_bytes=images.nbytes,
        pass_bytes=counter.pass_bytes,
        params_bytes=sum(p.data.nbytes for p in parameters),
        sort=sort,
        depth=depth,
    )


def check_input(model: Module, input_shape: Sequence[int]) -> tuple[int, ...]:
    """(C, H, W) or (features,); TypeError or ValueError names the argument."""
    instance(model, "model", Module)
    if not isinstance(input_shape, (tuple, list)) or len(input_shape) not in (1, 3):
        raise ValueError(f"input_shape must be (C, H, W), or (features,) of a flat input, got {shown(input_shape)}")
    return tuple(integer(n, "input_shape", 1, LARGEST_SIZE) for n in input_shape)


def blank_images(model: Module, input_shape: Sequence[int], batch: int) -> Array:
    """Zeros (batch, *input_shape) of the model's dtype, on its device; TypeError or ValueError names the argument."""
    shape = check_input(model, input_shape)
    like = next((p.data for p in model.parameters()), np.empty(0, np.float32))
    images: Array = array_module(like).zeros((batch, *shape), like.dtype)
    return images
