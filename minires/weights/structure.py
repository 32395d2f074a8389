"""Which network has these shapes?  Read off its first layer, its blocks and its last layer."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from itertools import pairwise, zip_longest
from typing import Any

from minires import models
from minires._checks import mapping

Shapes = Mapping[str, tuple[int, ...]]  # by torchvision's name

# What a network of a known name has too, or another one in the same place: it decides nothing that is a network's.
_BLOCK = re.compile(r"layer(\d+)\.(\d+)\.(?:conv|bn|downsample)")


def stages(shapes: Shapes) -> tuple[str, tuple[int, ...]]:
    """In the words of `models.stages`: ("bottleneck", (3, 4, 6, 3)).  Counts are () where there are no blocks."""
    if any(name.startswith("features.") for name in shapes):
        return "convolution", _convolutions(shapes)
    blocks = defaultdict(set)
    for name in shapes:
        if match := _BLOCK.match(name):
            blocks[int(match[1])].add(int(match[2]))
    kind = "bottleneck" if any(name.endswith(".conv3.weight") for name in shapes) else "basic"
    return kind, tuple(len(blocks[stage]) for stage in sorted(blocks))


def _convolutions(shapes: Shapes) -> tuple[int, ...]:
    """Of each stage of a VGG: the pooling between two stages leaves out one number more."""
    numbers = sorted(
        int(name.split(".")[1])
        for name, shape in shapes.items()
        if name.startswith("features.") and name.endswith(".weight") and len(shape) == 4
    )
    gap = 3 if _vgg_normed(shapes) else 2  # convolution, batch norm, ReLU
    counts = [1]
    for before, after in pairwise(numbers):
        if after - before > gap:
            counts.append(0)
        counts[-1] += 1
    return tuple(counts)


def nearest(shapes: Shapes) -> str:
    """The residual network or VGG of `models.names()` whose stages are these, or the most alike."""
    kind, counts = stages(shapes)

    def distance(name: str) -> int:
        theirs = models.stages(name)[1]
        return sum(abs(a - b) for a, b in zip_longest(counts, theirs, fillvalue=0)) + abs(len(counts) - len(theirs))

    alike = [name for name in models.names() if models.stages(name)[0] == kind and not name.startswith("plain")]
    return min(alike, key=distance)


def options(network: str, shapes: Shapes) -> dict[str, Any]:
    """The options of `models.create` that the shapes tell, as far as `network` has them."""
    first = shapes.get("conv1.weight", shapes.get("features.0.weight", ()))
    found: dict[str, Any] = {}
    if len(first) == 4:
        found |= {"in_channels": first[1], "width": first[0]}
    last = "classifier.6.weight" if models.stages(network)[0] == "convolution" else "fc.weight"
    if len(shapes.get(last, ())) == 2:
        found["num_classes"] = shapes[last][0]
    if len(shapes.get("classifier.0.weight", ())) == 2:
        found["hidden"] = shapes["classifier.0.weight"][0]
    if models.stages(network)[0] == "convolution":
        found["batch_norm"] = _vgg_normed(shapes)
    else:
        found["batch_norm"] = any(name.startswith("bn1.") for name in shapes)
        found["shortcut"] = _shortcut(network, shapes)
    return {name: value for name, value in found.items() if name in models.options(network)}


def expected(network: str, options: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """The shapes of a network by name.  Raises ValueError or TypeError for options that cannot be."""
    return models.shapes(network, **mapping(options, "options", "names to values"))


def _vgg_normed(shapes: Shapes) -> bool:
    return any(name.startswith("features.") and name.endswith(".running_mean") for name in shapes)


def _shortcut(network: str, shapes: Shapes) -> str:
    """A: no block has a projection; C: all have; B: those where dimensions increase, or whatever else there is."""
    projected = {match[0] for name in shapes if (match := re.match(r"layer\d+\.\d+\.(?=downsample)", name))}
    if not projected:
        return "A"
    return "C" if len(projected) == sum(models.stages(network)[1]) else "B"
