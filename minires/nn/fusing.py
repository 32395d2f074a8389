"""Batch normalisation folded into the convolution before it, for inference.

With fixed statistics batch norm is a scale and a shift per channel, and so is a convolution's filter and bias:

    (w ⋆ x + b − mean) / √(var + eps) · γ + β   =   (w · s) ⋆ x + (b − mean) · s + β,   s = γ / √(var + eps)
"""

from __future__ import annotations

import copy
import warnings
from collections import Counter

from minires.arrays import array_module
from minires.nn.layers import BatchNorm2d, Conv2d, Identity
from minires.nn.module import Module
from minires.tensor import Tensor


def fuse(model: Module) -> None:
    """Folds every pair that a module of the model declares in `normed`; afterwards Identity stands for batch norm.

    A new convolution takes the place of the old one, which is unchanged where it is used elsewhere too.  A warning
    lists the pairs that are left alone, because a forward of your own may compute something else: that of a subclass of
    Conv2d or BatchNorm2d, or one that overrides the forward that `normed` was declared for.
    """
    left_alone = []
    for path, module in list(model.named_modules()):
        pairs = [
            (conv, norm)
            for conv, norm in module.normed
            if isinstance(getattr(module, conv), Conv2d) and isinstance(getattr(module, norm), BatchNorm2d)
        ]
        uses = Counter(name for pair in pairs for name in pair)
        for names in pairs:
            conv, norm = (getattr(module, name) for name in names)
            if _depth(module, "forward") < _depth(module, "normed"):
                reason = f"{type(module).__name__} overrides forward without declaring normed"
            elif max(uses[name] for name in names) > 1:
                reason = "one of them is in several pairs"
            elif not (_is_exactly(conv, Conv2d) and _is_exactly(norm, BatchNorm2d)):
                reason = f"a forward of its own in {type(conv).__name__} or {type(norm).__name__}"
            else:
                setattr(module, names[0], _folded(conv, norm))
                setattr(module, names[1], Identity())
                continue
            pair = " and ".join(f"{path}.{name}" if path else name for name in names)
            left_alone.append(f"\n  {pair}: {reason}")
    if left_alone:
        warnings.warn("fuse left pairs of convolution and batch norm alone:" + "".join(left_alone), stacklevel=3)


def _depth(module: Module, name: str) -> int:
    """How far up `name` is defined: 0 by the module itself, 1 by its class, 2 by the next class above, ..."""
    return next(depth for depth, owner in enumerate((module, *type(module).__mro__)) if name in vars(owner))


def _is_exactly(layer: Module, kind: type[Module]) -> bool:
    return type(layer) is kind and "forward" not in vars(layer)


def _folded(conv: Conv2d, norm: BatchNorm2d) -> Conv2d:
    """A convolution that computes norm(conv(x)) with the running statistics."""
    weight, dtype = conv.weight.data, conv.weight.dtype
    xp = array_module(weight)
    gamma, beta, mean, var = (  # (O,) each, in float64: the rounding of the fold is that of the result alone
        a.astype(xp.float64) for a in (norm.weight.data, norm.bias.data, norm.running_mean, norm.running_var)
    )
    scale = gamma / xp.sqrt(var + norm.eps)
    bias = 0.0 if conv.bias is None else conv.bias.data
    folded = copy.deepcopy(conv)
    folded.weight = Tensor((weight * scale[:, None, None, None]).astype(dtype), requires_grad=True)
    folded.bias = Tensor(((bias - mean) * scale + beta).astype(dtype), requires_grad=True)
    return folded
