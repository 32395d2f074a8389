"""Weight files in memory: the networks' own arrays under other programs' names."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from minires import models
from minires.nn import init
from minires.weights import WeightFile

# From torchvision's names to the programs' own, apart from the tables under test: patterns of re.sub.
_PART = r"^layer(\d)\.(\d+)\."
_TRANSFORMERS = (
    (r"^(?=conv1|bn1)", "embedder.embedder."),
    (_PART + r"(conv|bn)(\d)", lambda m: f"encoder.stages.{int(m[1]) - 1}.layers.{m[2]}.layer.{int(m[4]) - 1}.{m[3]}"),
    (_PART + "downsample", lambda m: f"encoder.stages.{int(m[1]) - 1}.layers.{m[2]}.shortcut"),
    (r"\.(conv1?|(?<=shortcut\.)0)\.", ".convolution."),
    (r"\.(bn1?|(?<=shortcut\.)1)\.", ".normalization."),
    (r"^fc", "classifier.1"),
)
_THEIRS = {
    "torchvision": (),
    "CIFAR, head named linear": ((r"^fc", "linear"), ("downsample", "shortcut")),
    "timm": tuple(
        (rf"^classifier\.{i}", part) for i, part in ((0, "pre_logits.fc1"), (3, "pre_logits.fc2"), (6, "head.fc"))
    ),
    "Hugging Face transformers": (*_TRANSFORMERS, (r"^(?=embedder|encoder)", "resnet.")),
    "Hugging Face transformers, without its classifier": _TRANSFORMERS,
}


def their_name(ours, convention):
    for pattern, replacement in _THEIRS[convention]:
        ours = re.sub(pattern, replacement, ours)
    return ours


SMALL = {"num_classes": 7, "in_channels": 2}


def small(name, **options):
    """Options of a narrow network."""
    width = {"width": 4} | ({"hidden": 6} if name.startswith("vgg") else {})
    return SMALL | width | options


def state(name, rng=None, **options):
    """A network's state dict with every number drawn (zeros without a generator)."""
    with init.skipped():
        arrays = models.create(name, **small(name, **options)).state_dict()
    for array in arrays.values():
        array[...] = 0 if rng is None else rng.uniform(0.5, 1.5, array.shape)
    return arrays


def renamed(arrays, convention, prefix=""):
    """The same arrays as the convention names and shapes them."""
    found = {}
    for ours, array in arrays.items():
        if convention == "timm" and ours in ("classifier.0.weight", "classifier.3.weight"):
            side = 7 if ours == "classifier.0.weight" else 1
            array = array.reshape(len(array), -1, side, side)
        found[prefix + their_name(ours, convention)] = array
    return found


def file(arrays, path="x.pth", stored=None, metadata=None, format="PyTorch zip"):
    kinds = {name: str(array.dtype) for name, array in arrays.items()} | (stored or {})
    return WeightFile(Path(path), format, dict(arrays), kinds, metadata or {})


def counters(arrays):
    """The arrays with the counters that PyTorch keeps beside each running variance."""
    found = dict(arrays)
    for name in arrays:
        if name.endswith("running_var"):
            found[name.replace("running_var", "num_batches_tracked")] = np.array(3)
    return found
