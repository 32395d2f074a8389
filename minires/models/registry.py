"""The networks by name."""

from __future__ import annotations

import inspect
from typing import Any

from minires._checks import suggest
from minires._repr import shown
from minires.models.blocks import BasicBlock, Bottleneck
from minires.models.resnet import ResNet
from minires.models.vgg import VGG
from minires.nn import Module, init

# Table 1: blocks per stage at 56, 28, 14 and 7 pixels.
_IMAGENET = {
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
    152: (Bottleneck, (3, 8, 36, 3)),
}
# Section 4.2: 6n + 2 layers, n blocks each at 32, 16 and 8 pixels.
_CIFAR = (20, 32, 44, 56, 110)
_VGG = {16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}


def _recipes() -> dict[str, tuple[type[Module], tuple[Any, ...], dict[str, Any], set[str]]]:
    """name -> class, positional arguments, defaults, and the options of the class that this network does not have"""
    table: dict[str, tuple[type[Module], tuple[Any, ...], dict[str, Any], set[str]]] = {}
    shortcuts = {"shortcut", "zero_channels"}
    fixed = {"stem", "residual"}
    imagenet = {"stem": "imagenet", "width": 64, "num_classes": 1000}
    cifar = {"stem": "cifar", "width": 16, "num_classes": 10, "shortcut": "A"}
    for depth, (block, layers) in _IMAGENET.items():
        hidden = fixed if block is Bottleneck else fixed | {"stride_in"}
        table[f"resnet{depth}"] = (ResNet, (block, layers), imagenet, hidden)
    for depth in (18, 34):
        plain = imagenet | {"residual": False}
        table[f"plain{depth}"] = (ResNet, _IMAGENET[depth], plain, fixed | shortcuts | {"stride_in"})
    for depth, convolutions in _VGG.items():
        table[f"vgg{depth}"] = (VGG, (convolutions,), {}, set())
    for family, residual in (("resnet", True), ("plain", False)):
        for depth in _CIFAR:
            n = (depth - 2) // 6
            hidden = fixed | {"stride_in"} | (set() if residual else shortcuts)
            table[f"{family}{depth}"] = (ResNet, (BasicBlock, (n, n, n)), cifar | {"residual": residual}, hidden)
    return table


_TABLE = _recipes()


def names() -> tuple[str, ...]:
    """Every network there is."""
    return tuple(_TABLE)


def options(name: str) -> dict[str, Any]:
    """The options that `create(name, ...)` takes, with their defaults."""
    network, _, defaults, hidden = _recipe(name)
    parameters = inspect.signature(network).parameters.values()
    keywords = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    return {option: value for option, value in (keywords | defaults).items() if option not in hidden}


def input_shape(name: str) -> tuple[int, int, int]:
    """(C, H, W) of the images that the paper's network was made for."""
    return (3, 32, 32) if _recipe(name)[2].get("stem") == "cifar" else (3, 224, 224)


def stages(name: str) -> tuple[str, tuple[int, ...]]:
    """What a network is made of, and how many of them in each stage: ("bottleneck", (3, 4, 6, 3)).

    The kinds are "basic" (the building block), "bottleneck" and "convolution" (VGG).
    """
    network, arguments, _, _ = _recipe(name)
    if network is VGG:
        return "convolution", arguments[0]
    return ("bottleneck" if arguments[0] is Bottleneck else "basic"), arguments[1]


def create(name: str, **options_given: Any) -> Module:
    """A freshly initialised network.

    name        one of `names()`, e.g. "resnet50"
    options     num_classes, in_channels, width; for residual networks shortcut ("A", "B", "C"; B for ImageNet, A for
                CIFAR) and zero_channels; for bottlenecks stride_in ("1x1" as in the paper, "3x3"); see `options(name)`

    Weights are drawn from `minires.random.generator()`.
    Raises ValueError for an unknown name or value, TypeError for an option that the network does not have.
    """
    network, arguments, defaults, _ = _recipe(name)
    allowed = options(name)
    for option in options_given:
        if option not in allowed:
            known = ", ".join(allowed)
            raise TypeError(f"{name} has no option {option!r}; it has {known}.{suggest(option, allowed)}")
    return network(*arguments, **(defaults | options_given))


def shapes(name: str, **options_given: Any) -> dict[str, tuple[int, ...]]:
    """The shapes of a network's state by name; no memory is written for it.

    Raises what `create` raises, and MemoryError for more numbers than the machine can address.
    """
    with init.skipped():
        return {path: array.shape for path, array in create(name, **options_given).state_dict().items()}


def _recipe(name: str) -> tuple[type[Module], tuple[Any, ...], dict[str, Any], set[str]]:
    if not isinstance(name, str) or name not in _TABLE:
        raise ValueError(f"unknown network {shown(name)}; known are {', '.join(_TABLE)}.{suggest(name, _TABLE)}")
    return _TABLE[name]
