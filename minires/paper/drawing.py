"""Draws networks as in Figure 3, from the operations that a model runs."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from minires import models
from minires._plotting import encoded
from minires.arrays import Array
from minires.autograd import Function
from minires.context import Observer, no_grad
from minires.inspect.cost import multiply_adds
from minires.inspect.summary import blank_images
from minires.nn import Module
from minires.nn.module import evaluating
from minires.tensor import Tensor


@dataclass
class Box:
    """A layer with weights, or a pooling.

    text    e.g. "3×3 conv, 128, /2"
    kind    "conv", "pool" or "fc"
    size    output height; 1 after the global pooling
    module  path of the module
    """

    text: str
    kind: str
    size: int
    module: str


@dataclass
class Shortcut:
    """A shortcut from before box `first` to behind box `last`; dotted if it changes the dimensions."""

    first: int
    last: int
    dotted: bool


@dataclass
class Drawing:
    """A network as boxes from top to bottom, and its shortcuts."""

    title: str
    input_size: int
    macs: int = 0
    boxes: list[Box] = field(default_factory=list)
    shortcuts: list[Shortcut] = field(default_factory=list)


class _Walk(Observer):
    """Adds a box or a shortcut for each operation."""

    def __init__(self, drawing: Drawing) -> None:
        self.drawing = drawing

    def after_forward(self, node: Function, arrays: tuple[Array | None, ...], output: Array) -> None:
        drawing, described = self.drawing, vars(node)
        drawing.macs += multiply_adds(node)
        size = output.shape[2] if output.ndim == 4 else 1
        if node.name == "Conv2d" and "downsample" not in node.module:
            weight: Any = arrays[1]
            O, _, KH, KW = weight.shape
            stride = f", /{described['stride'][0]}" if described["stride"] != (1, 1) else ""
            drawing.boxes.append(Box(f"{KH}×{KW} conv, {O}{stride}", "conv", size, node.module))
        elif node.name in ("MaxPool2d", "AvgPool2d"):
            drawing.boxes.append(Box(f"pool, /{described['stride'][0]}", "pool", size, node.module))
        elif node.name == "AdaptiveAvgPool2d" and size != described["input_shapes"][0][2]:
            drawing.boxes.append(Box("avg pool", "pool", size, node.module))
        elif node.name == "Linear":
            drawing.boxes.append(Box(f"fc {output.shape[1]}", "fc", 1, node.module))
        elif node.name == "Add":
            inside = [i for i, box in enumerate(drawing.boxes) if box.module.startswith(f"{node.module}.")]
            drawing.shortcuts.append(Shortcut(inside[0], inside[-1], dotted=False))


def draw(model: Module, input_shape: tuple[int, int, int], title: str) -> Drawing:
    """Draws the operations of a forward pass.  A shortcut is dotted if its block changes the dimensions."""
    drawing = Drawing(title, input_shape[1])
    with evaluating(model), no_grad(), _Walk(drawing):
        model(Tensor(blank_images(model, input_shape, 1)))
    by_path = dict(model.named_modules())
    for shortcut in drawing.shortcuts:
        first: Any = by_path[drawing.boxes[shortcut.first].module]
        last: Any = by_path[drawing.boxes[shortcut.last].module]
        changed = first.weight.shape[1] != last.weight.shape[0]
        before = drawing.boxes[shortcut.first - 1].size if shortcut.first else drawing.input_size
        shortcut.dotted = changed or before != drawing.boxes[shortcut.last].size
    return drawing


def named(name: str, **options: Any) -> Drawing:
    """The drawing of a network by name, at the paper's input size."""
    return draw(models.create(name, **options), models.input_shape(name), name)


def picture(drawings: Sequence[Drawing], kind: str) -> bytes:
    """The networks side by side, aligned by output size, as the bytes of a "png" or "svg"."""
    sizes = sorted({box.size for d in drawings for box in d.boxes}, reverse=True)
    # Output size -> rows: the largest number of boxes of that size in any network.
    heights = {size: max(sum(box.size == size for box in d.boxes) for d in drawings) for size in sizes}
    tops, row = {}, 2.0
    for size in sizes:
        tops[size] = row
        row += heights[size] + 0.6
    step, width, pitch, left = 0.27, 1.7, 2.9, 1.1  # inches
    figure = Figure(figsize=(left + pitch * len(drawings), step * (row + 1)))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set(xlim=(0, left + pitch * len(drawings)), ylim=(step * (row + 1), 0))
    for size in sizes:
        axes.text(0.1, step * (tops[size] + 0.5), f"output\nsize: {size}", fontsize=7, va="center")
        ends = [0.05, left + pitch * len(drawings) - 0.05]
        axes.plot(ends, [step * (tops[size] - 0.35)] * 2, color="0.85", linewidth=0.6)
    colours = {size: f"C{i % 10}" for i, size in enumerate(sizes)}
    for number, d in enumerate(drawings):
        centre = left + pitch * number + width / 2
        count = f"{d.macs / 1e9:.1f} ×10⁹" if d.macs >= 1e8 else f"{d.macs:,}"
        axes.text(
            centre, step * 0.7, f"{d.title}\n{count} multiply-adds", ha="center", va="center", fontsize=9, weight="bold"
        )
        used = dict.fromkeys(sizes, 0)
        places = []
        for box in d.boxes:
            y = step * (tops[box.size] + used[box.size] + 0.5)
            used[box.size] += 1
            places.append(y)
            face = "white" if box.kind == "pool" else colours[box.size]
            axes.add_patch(
                FancyBboxPatch(
                    (centre - width / 2, y - 0.36 * step), width, 0.72 * step, facecolor=face, edgecolor="0.3",
                    boxstyle="round,pad=0,rounding_size=0.03", linewidth=0.6, alpha=0.35 if face != "white" else 1,
                )
            )  # fmt: skip
            axes.text(centre, y, box.text, ha="center", va="center", fontsize=7)
        for above, below in itertools.pairwise(places):
            start, end = (centre, above + 0.36 * step), (centre, below - 0.36 * step)
            axes.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=5, linewidth=0.6, color="0.2",
                                           shrinkA=0, shrinkB=0))  # fmt: skip
        for shortcut in d.shortcuts:
            top = places[shortcut.first] - 0.45 * step
            bottom = places[shortcut.last] + 0.45 * step
            axes.add_patch(
                FancyArrowPatch(
                    (centre + width / 2 - 0.05, top), (centre + width / 2 - 0.05, bottom), arrowstyle="-|>",
                    connectionstyle=f"arc3,rad={-0.55 / max((bottom - top) / (2 * step), 1):.3f}", mutation_scale=6,
                    linewidth=0.9, linestyle=":" if shortcut.dotted else "-", color="black", shrinkA=0, shrinkB=0,
                )
            )  # fmt: skip
    return encoded(figure, kind)
