"""Batch normalisation folded into the convolution before it, for inference.

With fixed statistics batch norm is a scale and a shift per channel, and so is a convolution's filter and bias:

    (w ⋆ x + b − mean) / √(var + eps) · γ + β   =   (w · s) ⋆ x + (b − mean) · s + β,   s = γ / √(var + eps)
"""

from __future__ import annotations

from collections import Counter

from minires.arrays import array_module
from minires.nn.layers import BatchNorm2d, Conv2d, Identity
from minires.nn.module import Module
from minires.tensor import Tensor


def fuse(model: Module) -> None:
    """Folds every pair that a module of the model declares in `normed`; afterwards Identity stands for batch norm."""
    pairs = [
        (path, module, conv, norm)
        for path, module in model.named_modules()
        for conv, norm in module.normed
        if isinstance(getattr(module, conv), Conv2d) and isinstance(getattr(module, norm), BatchNorm2d)
    ]
    uses = Counter(id(child) for module in model.modules() for child in module._children.values())
    for path, module, *names in pairs:
        for name in names:
            if uses[id(getattr(module, name))] > 1:
                told = f"{path}.{name}" if path else name
                raise ValueError(f"{told} stands in several places of the model: it cannot be fused in one of them")
    for _, module, conv, norm in pairs:
        _fold(getattr(module, conv), getattr(module, norm))
        setattr(module, norm, Identity())


def _fold(conv: Conv2d, norm: BatchNorm2d) -> None:
    weight, dtype = conv.weight.data, conv.weight.dtype
    xp = array_module(weight)
    gamma, beta, mean, var = (  # (O,) each, in float64: the rounding of the fold is that of the result alone
        a.astype(xp.float64) for a in (norm.weight.data, norm.bias.data, norm.running_mean, norm.running_var)
    )
    scale = gamma / xp.sqrt(var + norm.eps)
    bias = 0.0 if conv.bias is None else conv.bias.data
    conv.weight.data = (weight * scale[:, None, None, None]).astype(dtype)
    conv.bias = Tensor(((bias - mean) * scale + beta).astype(dtype), requires_grad=True)
