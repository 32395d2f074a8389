"""Networks that look like minires' and are others, and weights that were transformed: how to tell them by name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from minires.weights.structure import Shapes

_TRANSFORMED = (
    (r"_packed_params|(^|[._])(zero_point|qweight|qzeros|absmax|quant_map|quant_state|weight_packed)\b|\.scale$",
     "its weights are quantised: minires reads floating-point ones"),
    (r"\.weight_[gv]$|\.parametrizations\.", "its weights are parametrised (weight norm): remove that before saving"),
    (r"\.weight_(orig|mask)$", "its weights are pruned: make that permanent before saving"),
    (r"\blora_[AB]\b", "it holds low-rank adapters (LoRA), not a network: merge them first"),
)  # fmt: skip
_VARIANTS = (
    (r"layer\d+\.\d+\.se\.", "squeeze-and-excitation: an SENet"),
    (r"layer\d+\.\d+\.(attn|attention|ca|sa)\.", "attention in its blocks"),
    (r"conv1\.3\.weight$", "a stem of several convolutions: a ResNet-C or -D"),
    (r"layer\d+\.\d+\.downsample\.2\.", "average pooling before its projections: a ResNet-D"),
    (r"layer\d+\.\d+\.conv\d\.bias$", "biases in its convolutions: batch norms that were folded into them"),
    (r"layer\d+\.\d+\.residual_function\.", "blocks named residual_function, as in weiaicunzai/pytorch-cifar100"),
    (r"(^|\.)denseblock\d", "a DenseNet"),
    (r"(^|\.)blocks\.\d+\.attn\.|(^|\.)encoder\.layers?\.", "a transformer"),
)


def transformed(names: Iterable[str], kinds: Mapping[str, str]) -> str | None:
    """Why these are not plain weights; `kinds`: the data types in the file, by name."""
    integers = [name for name, kind in kinds.items() if not kind.startswith(("float", "bfloat"))]
    integers = [name for name in integers if not name.endswith("num_batches_tracked")]
    for name in (*names, *integers):
        for pattern, told in _TRANSFORMED:
            if re.search(pattern, name):
                return told
    return f"{integers[0]} is {kinds[integers[0]]}: minires reads floating-point weights" if integers else None


def variant(names: Iterable[str], shapes: Shapes, wanted: Shapes) -> str | None:
    """What kind of network it rather is, where that is known."""
    for name in names:
        for pattern, told in _VARIANTS:
            if re.search(pattern, name):
                return told
    for name, shape in shapes.items():
        theirs = wanted.get(name, ())
        if name.endswith(".conv2.weight") and len(shape) == len(theirs) == 4 and shape != theirs:
            if shape[1] < min(shape[0], theirs[1]):
                return "grouped convolutions: a ResNeXt"
            if shape[0] > theirs[0] and shapes.get(name.replace("conv2", "conv3"), ())[:1] != ():
                return "wider 3×3 convolutions within its bottlenecks: a wide ResNet"
    return None
