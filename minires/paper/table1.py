"""Table 1: the architectures for ImageNet, read from the models."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from minires import models
from minires._plotting import encoded
from minires.context import no_grad
from minires.inspect import summary
from minires.models.blocks import Bottleneck
from minires.models.resnet import ResNet
from minires.paper import published
from minires.tensor import Tensor

NETWORKS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
STAGES = ("conv2_x", "conv3_x", "conv4_x", "conv5_x")
CONVENTION = (
    "one multiply-add is 1; convolutions, projections and the linear layer; no BN, ReLU, pooling, addition, bias"
)


@dataclass(frozen=True)
class Column:
    """A network's column of Table 1.

    blocks         for each stage the rows of the bracket, e.g. ("3×3, 64", "3×3, 64"), and the number of repetitions
    sizes          output height of conv1 and of the stages
    macs, params   of the model, exact
    printed        the paper's FLOPs in 10⁹
    seconds        of a forward pass of one image, if measured
    """

    network: str
    blocks: tuple[tuple[tuple[str, ...], int], ...]
    sizes: tuple[int, ...]
    macs: int
    params: int
    printed: float
    seconds: float | None = None


def column(network: str, measure: bool = False, **options: Any) -> Column:
    """Builds the network (options as of `models.create`) and reads its column from it."""
    model = models.create(network, **options)
    assert isinstance(model, ResNet)
    counted = summary(model, models.input_shape(network))
    sizes = {row.module: row.output_shape[-1] for row in counted.rows if len(row.output_shape) == 3}
    blocks, sides = [], [sizes["conv1"]]
    for name in model.stages:
        stage = getattr(model, name)
        first = stage[0]
        convolutions = [first.conv1, first.conv2] + ([first.conv3] if isinstance(first, Bottleneck) else [])
        rows = tuple(f"{c.weight.shape[2]}×{c.weight.shape[3]}, {c.weight.shape[0]}" for c in convolutions)
        blocks.append((rows, len(list(stage.named_children()))))
        sides.append(sizes[f"{name}.0.conv{len(convolutions)}"])
    seconds = _forward_seconds(model) if measure else None
    printed = published.FLOPS[network]
    return Column(network, tuple(blocks), tuple(sides), counted.macs, counted.params, printed, seconds)


def _forward_seconds(model: ResNet) -> float:
    """Median of five forward passes of one image in evaluation mode, after one to warm up."""
    x = Tensor(np.zeros((1, 3, 224, 224), np.float32))
    model.eval()
    times = []
    with no_grad():
        for _ in range(6):
            start = time.perf_counter()
            model(x)
            times.append(time.perf_counter() - start)
    return sorted(times[1:])[2]


def rows(columns: Sequence[Column]) -> tuple[list[str], list[list[str]]]:
    """Head and lines of the table as text; a cell of several lines holds newlines.

    A bracket holds all convolutions of a block, so the factor behind it applies to all of them.
    """
    head = ["layer name", "output size", *(c.network.replace("resnet", "") + "-layer" for c in columns)]
    first = columns[0]
    lines = [["conv1", _side(first.sizes[0]), *["7×7, 64, stride 2"] * len(columns)]]
    for number, stage in enumerate(STAGES):
        cells = []
        for c in columns:
            bracket, times = c.blocks[number]
            cells.append("[" + "\n ".join(bracket) + f"]×{times}")
        pool = "3×3 max pool, stride 2, then\n" if number == 0 else ""
        lines.append([stage, _side(first.sizes[number + 1]), *(pool + cell for cell in cells)])
    lines.append(["", "1×1", *["average pool, 1000-d fc, softmax"] * len(columns)])
    lines.append(["multiply-adds", "", *(f"{c.macs:,}" for c in columns)])
    lines.append(["the paper's FLOPs", "", *(f"{c.printed} ×10⁹" for c in columns)])
    lines.append(["parameters", "", *(f"{c.params:,}" for c in columns)])
    if any(c.seconds is not None for c in columns):
        lines.append(["forward, 1 image", "", *(f"{1e3 * (c.seconds or 0):.0f} ms" for c in columns)])
    return head, lines


def _side(n: int) -> str:
    return f"{n}×{n}"


def picture(columns: Sequence[Column], kind: str) -> bytes:
    """The table with ruled lines: the bytes of a "png" or "svg"."""
    head, lines = rows(columns)
    heights = [1, *(1 + cell.count("\n") for line in lines for cell in [max(line, key=lambda c: c.count("\n"))])]
    widths = [1.25, 0.95, *[2.15] * len(columns)]
    unit = 0.2  # inches a line of text
    figure = Figure(figsize=(sum(widths) + 0.2, unit * (sum(heights) + len(heights) * 0.5 + 1.6)))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    total = sum(heights) + len(heights) * 0.5 + 1.6
    axes.set(xlim=(0, sum(widths) + 0.2), ylim=(total, 0))
    y = 0.3
    for number, (line, height) in enumerate(zip([head, *lines], heights, strict=True)):
        axes.plot([0.1, sum(widths) + 0.1], [y, y], color="black", linewidth=1.2 if number < 2 else 0.5)
        x = 0.1
        for cell, width in zip(line, widths, strict=True):
            weight = "bold" if number == 0 else "normal"
            form: dict[str, Any] = {"ha": "center", "va": "center", "ma": "left", "fontsize": 8, "weight": weight}
            axes.text(x + width / 2, y + (height + 0.5) / 2, cell, **form)
            x += width
        y += height + 0.5
    axes.plot([0.1, sum(widths) + 0.1], [y, y], color="black", linewidth=1.2)
    axes.text(0.1, y + 0.7, f"Multiply-adds: {CONVENTION}.", fontsize=7, va="center")
    return encoded(figure, kind)
