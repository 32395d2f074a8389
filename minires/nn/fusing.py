"""Fusion as a form of the network: the user asks for it, and nothing else switches it on or off.

`fuse_operations` chooses a module's `forward_fused`, which computes what `forward` does by fused operations (see
`layers.conv_norm_relu`).  `fold` puts batch norm into the convolution before it.  With fixed statistics batch norm is a
scale and a shift per channel, and so is a convolution's filter and bias:

    (w ⋆ x + b − mean) / √(var + eps) · γ + β   =   (w · s) ⋆ x + (b − mean) · s + β,   s = γ / √(var + eps)
"""

from __future__ import annotations

import copy
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from minires._checks import flag
from minires.arrays import array_module
from minires.nn.layers import BatchNorm2d, Conv2d, Folded, is_exactly
from minires.nn.module import Module
from minires.tensor import Tensor


def fuse(self: Module, on: bool = True, *, training: bool = False) -> Module:
    """Makes the model faster without changing what it computes. Returns the model.

    fuse(training=True)   every module that has a `forward_fused` uses it, in training and in evaluation.  Same bits,
                          same state_dict.
    fuse()                for inference: folds each batch norm into the convolution before it as well, and sets
                          evaluation mode.  Outputs are those of evaluation up to rounding.  Folds the pairs of the
                          networks of `minires.models`, of a Sequential, and those that a module names in `normed`.
                          A warning lists the pairs that a class of your own might compute otherwise, and the batch
                          norms of a class without `normed`: they are left alone.  `fuse(False)` puts the layers back.
    fuse(False)           undoes both, and leaves the mode as it is.  Raises ValueError when a folded convolution has
                          changed since.
    """
    on, training = flag(on, "on"), flag(training, "training")
    if training and not on:
        raise ValueError("training: fuse(False) undoes every fusing (got training=True too); leave training out")
    if on and not training:
        fold(self)
        self.eval()
    if not on:
        unfold(self)
    fuse_operations(self, on)
    return self


# Bound here, because folding imports the layers and the layers import Module.
Module.fuse = fuse  # type: ignore[method-assign, assignment]


def fuse_operations(model: Module, on: bool) -> None:
    """Chooses the fused form of every module that has one, or the plain one."""
    for module in model.modules():
        object.__setattr__(module, "fused", on and _has_fused_form(module))


@contextmanager
def in_form(model: Module, fused: bool) -> Iterator[None]:
    """Within it the model computes with fused or plain operations, in every thread; what was folded stays so."""
    forms = [(module, module.fused) for module in model.modules()]
    fuse_operations(model, fused)
    try:
        yield
    finally:
        for module, before in forms:
            object.__setattr__(module, "fused", before)


def _has_fused_form(module: Module) -> bool:
    """A forward of your own has the fused form that stands beside it, or none."""
    defining = next(owner for owner in type(module).__mro__ if "forward" in vars(owner))
    return defining is not Module and "forward_fused" in vars(defining)


def fold(model: Module) -> None:
    """Folds every pair that a module of the model declares in `normed`.

    A new convolution takes the place of the old one, which is unchanged where it is used elsewhere too.
    """
    left_alone = []
    for path, module in list(model.named_modules()):
        inside = f"{path}." if path else ""
        if not any("normed" in vars(owner) for owner in (module, *type(module).__mro__) if owner is not Module):
            norms = [name for name, child in module.named_children() if isinstance(child, BatchNorm2d)]
            left_alone += [f"\n  {inside}{name}: {type(module).__name__} declares no normed" for name in norms]
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
            elif not (is_exactly(conv, Conv2d) and is_exactly(norm, BatchNorm2d)):
                reason = f"a forward of its own in {type(conv).__name__} or {type(norm).__name__}"
            else:
                setattr(module, names[0], _folded(conv, norm))
                setattr(module, names[1], Folded(conv, norm))
                continue
            left_alone.append(f"\n  {' and '.join(inside + name for name in names)}: {reason}")
    if left_alone:
        left_alone.append(
            '\nA class names its pairs, normed = (("conv1", "bn1"),), or none, (); a Sequential needs no names.'
        )
        warnings.warn("fuse left pairs of convolution and batch norm alone:" + "".join(left_alone), stacklevel=3)


def unfold(model: Module) -> None:
    """Puts the layers from before back."""
    pairs = [
        (f"{path}.{conv}" if path else conv, module, conv, norm)
        for path, module in model.named_modules()
        for conv, norm in module.normed
        if type(getattr(module, norm)) is Folded
    ]
    for place, module, conv_name, norm_name in pairs:
        if not _same(getattr(module, conv_name), _folded(*getattr(module, norm_name).original)):
            raise ValueError(
                f"{place} has changed since batch norm was folded into it (trained, loaded, moved or converted): its "
                "batch norm cannot be put back; make the model anew and load the weights from before"
            )
    for _, module, conv_name, norm_name in pairs:
        for name, layer in zip((conv_name, norm_name), getattr(module, norm_name).original, strict=True):
            setattr(module, name, layer.train(module.training))


def _same(conv: Module, other: Module) -> bool:
    """Whether both have the same bits on the same device."""
    states = [{name: (type(a), a.dtype, a.tobytes()) for name, a in m.state_dict().items()} for m in (conv, other)]
    return states[0] == states[1]


def _depth(module: Module, name: str) -> int:
    """How far up `name` is defined: 0 by the module itself, 1 by its class, 2 by the next class above, ..."""
    return next(depth for depth, owner in enumerate((module, *type(module).__mro__)) if name in vars(owner))


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
