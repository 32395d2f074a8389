"""The layers: an operation with its parameters."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from minires import functional as F
from minires._checks import LARGEST_SIZE, Pair, choice, flag, integer, iterable, number, pair, window
from minires.context import module_scope
from minires.nn import init
from minires.nn.module import Module
from minires.tensor import Tensor, as_tensor

WORDS = ("same", "valid")  # that stand for a padding


class Conv2d(Module):
    """2-D convolution: (N, in_channels, H, W) -> (N, out_channels, OH, OW).

    weight (out_channels, in_channels/groups, KH, KW), He-initialised (fan-out); bias (out_channels,), zeros, or absent.
    padding may be "valid" (none) or, with stride 1, "same": (OH, OW) = (H, W).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Pair,
        stride: Pair = 1,
        padding: Pair | str = 0,
        dilation: Pair = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.in_channels = integer(in_channels, "in_channels", 1, LARGEST_SIZE)
        self.out_channels = integer(out_channels, "out_channels", 1, LARGEST_SIZE)
        self.kernel_size = pair(kernel_size, "kernel_size", 1)
        self.stride = pair(stride, "stride", 1)
        self.padding = choice(padding, "padding", WORDS) if isinstance(padding, str) else pair(padding, "padding", 0)
        if padding == "same" and self.stride != (1, 1):
            raise ValueError(f"padding must be numbers where stride is not 1: 'same' goes with 1, got {self.stride}")
        self.dilation = pair(dilation, "dilation", 1)
        self.groups = integer(groups, "groups", 1, LARGEST_SIZE)
        for name, channels in (("in_channels", in_channels), ("out_channels", out_channels)):
            if channels % groups:
                raise ValueError(f"{name} must be divisible by groups, got {channels} and {groups}")
        self.weight = Tensor(
            init.he_normal((self.out_channels, self.in_channels // self.groups, *self.kernel_size)), requires_grad=True
        )
        self.bias = Tensor(np.zeros(out_channels, np.float32), requires_grad=True) if flag(bias, "bias") else None

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)

    def extra_repr(self) -> str:
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        text += f", padding={self.padding!r}" if self.padding != (0, 0) else ""
        text += f", dilation={self.dilation}" if self.dilation != (1, 1) else ""
        text += f", groups={self.groups}" if self.groups != 1 else ""
        return text + ("" if self.bias is not None else ", bias=False")


class BatchNorm2d(Module):
    """Batch normalisation over N, H and W: (N, C, H, W) -> (N, C, H, W).

    weight (γ, ones) and bias (β, zeros) of shape (C,); running_mean and running_var (C,), updated in training with
    `momentum` as the weight of the new value, used in evaluation.

    function   computes it, with the arguments of `functional.batch_norm`; `parallel.synchronise` sets another
    """

    function: Callable[..., Tensor] = staticmethod(F.batch_norm)

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.num_features = integer(num_features, "num_features", 1, LARGEST_SIZE)
        self.eps = number(eps, "eps", 0)
        self.momentum = number(momentum, "momentum", 0, 1)
        self.weight = Tensor(np.ones(num_features, np.float32), requires_grad=True)
        self.bias = Tensor(np.zeros(num_features, np.float32), requires_grad=True)
        self.running_mean: Any
        self.running_var: Any
        self.register_buffer("running_mean", np.zeros(num_features, np.float32))
        self.register_buffer("running_var", np.ones(num_features, np.float32))

    def forward(self, x: Tensor) -> Tensor:
        statistics = self.running_mean, self.running_var
        return self.function(x, *statistics, self.weight, self.bias, self.training, self.momentum, self.eps)

    def extra_repr(self) -> str:
        return f"{self.num_features}, eps={self.eps}, momentum={self.momentum}"


class ReLU(Module):
    """max(x, 0), any shape."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x)


class Tanh(Module):
    """The hyperbolic tangent, any shape."""

    def forward(self, x: Tensor) -> Tensor:
        return F.tanh(x)


class Sigmoid(Module):
    """1 / (1 + e^−x), any shape."""

    def forward(self, x: Tensor) -> Tensor:
        return F.sigmoid(x)


class MaxPool2d(Module):
    """The maximum of each window: (N, C, H, W) -> (N, C, OH, OW)."""

    def __init__(
        self,
        kernel_size: Pair,
        stride: Pair | None = None,
        padding: Pair = 0,
        dilation: Pair = 1,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__()
        self.kernel_size, self.stride, self.padding = window(kernel_size, stride, padding)
        self.dilation = pair(dilation, "dilation", 1)
        self.ceil_mode = flag(ceil_mode, "ceil_mode")

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(x, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class AvgPool2d(Module):
    """The mean of each window: (N, C, H, W) -> (N, C, OH, OW)."""

    def __init__(
        self,
        kernel_size: Pair,
        stride: Pair | None = None,
        padding: Pair = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        *,
        divisor_override: int | None = None,
    ) -> None:
        super().__init__()
        self.kernel_size, self.stride, self.padding = window(kernel_size, stride, padding)
        self.ceil_mode = flag(ceil_mode, "ceil_mode")
        self.count_include_pad = flag(count_include_pad, "count_include_pad")
        self.divisor_override = None if divisor_override is None else integer(divisor_override, "divisor_override")
        if divisor_override == 0:
            raise ValueError("divisor_override must not be 0")

    def forward(self, x: Tensor) -> Tensor:
        window = self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad
        return F.avg_pool2d(x, *window, divisor_override=self.divisor_override)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class AdaptiveAvgPool2d(Module):
    """Averages into `output_size` bins: (N, C, H, W) -> (N, C, OH, OW)."""

    def __init__(self, output_size: Any) -> None:
        super().__init__()
        parts = output_size if isinstance(output_size, (tuple, list)) and len(output_size) == 2 else (output_size,) * 2
        pair([1 if isinstance(output_size, (tuple, list)) and n is None else n for n in parts], "output_size", 1)
        self.output_size = output_size

    def forward(self, x: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(x, self.output_size)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"


class Linear(Module):
    """Fully connected: (..., in_features) -> (..., out_features).

    weight (out_features, in_features), He-initialised (fan-in); bias (out_features,), zeros, or absent.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__()
        self.in_features = integer(in_features, "in_features", 1, LARGEST_SIZE)
        self.out_features = integer(out_features, "out_features", 1, LARGEST_SIZE)
        self.weight = Tensor(init.he_normal((self.out_features, self.in_features), fan="in"), requires_grad=True)
        biased = flag(bias, "bias")
        self.bias = Tensor(np.zeros(self.out_features, np.float32), requires_grad=True) if biased else None

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}" + ("" if self.bias is not None else ", bias=False")


class Dropout(Module):
    """In training sets elements to 0 with probability p and scales the others by 1/(1 − p)."""

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        self.p = number(p, "p", 0, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.p, self.training)

    def extra_repr(self) -> str:
        return f"p={self.p}"


class Flatten(Module):
    """Joins the axes from start_dim to end_dim: (N, C, H, W) -> (N, C·H·W)"""

    def __init__(self, start_dim: int = 1, *, end_dim: int = -1) -> None:
        super().__init__()
        self.start_dim = integer(start_dim, "start_dim")
        self.end_dim = integer(end_dim, "end_dim")

    def forward(self, x: Tensor) -> Tensor:
        return F.flatten(x, self.start_dim, end_dim=self.end_dim)


class Identity(Module):
    """x itself: what stands in the place of a batch norm that is left out or folded into a convolution."""

    def forward(self, x: Tensor) -> Tensor:
        return as_tensor(x, "x")


class Folded(Identity):
    """Stands where a batch norm was that `fuse` folded into the convolution before it; keeps both layers as they were.

    original   (convolution, batch norm): no children, because state_dict holds the folded weights alone
    """

    original: tuple[Conv2d, BatchNorm2d]

    def __init__(self, conv: Conv2d, norm: BatchNorm2d) -> None:
        super().__init__()
        object.__setattr__(self, "original", (conv, norm))


class Sequential(Module):
    """Modules one after another, named "0", "1", ..."""

    def __init__(self, *modules: Module) -> None:
        super().__init__()
        for position, module in enumerate(modules):
            if not isinstance(module, Module):
                raise TypeError(f"modules must be Modules, got {type(module).__name__} at position {position}")
            setattr(self, str(position), module)

    def forward(self, x: Tensor) -> Tensor:
        for module in self._children.values():
            x = module(x)
        return x

    def forward_fused(self, x: Tensor) -> Tensor:
        ahead = deque(self._children.values())
        while ahead:
            module, norm, relu = ahead.popleft(), None, None
            if is_exactly(module, Conv2d) and ahead and is_exactly(ahead[0], BatchNorm2d, Folded):
                norm = ahead.popleft()
            if is_exactly(module, Conv2d) and ahead and is_exactly(ahead[0], ReLU):
                relu = ahead.popleft()
            x = module(x) if norm is relu is None else conv_norm_relu(x, module, norm or Identity(), relu)
        return x

    @property
    def normed(self) -> tuple[tuple[str, str], ...]:  # type: ignore[override]
        return tuple(itertools.pairwise(self._children))

    def __len__(self) -> int:
        return len(self._children)

    def __getitem__(self, position: int) -> Module:
        return list(self._children.values())[integer(position, "position")]


class ModuleList(Module):
    """A list of modules named "0", "1", ..., whose order of use the module that holds it decides.

    Takes indices, slices to read and to delete, and assignment as a list does.  Calling it is an error: it defines no
    forward.
    """

    def __init__(self, modules: Iterable[Module] = ()) -> None:
        super().__init__()
        self.extend(modules)

    def append(self, module: Module) -> None:
        self.insert(len(self), module)

    def extend(self, modules: Iterable[Module]) -> None:
        self._hold([*self, *iterable(modules, "modules", "an iterable of Modules")])

    def insert(self, position: int, module: Module) -> None:
        modules = list(self)
        modules.insert(integer(position, "position"), module)
        self._hold(modules)

    def __len__(self) -> int:
        return len(self._children)

    def __iter__(self) -> Iterator[Module]:
        return iter(list(self._children.values()))

    def __getitem__(self, position: int | slice) -> Any:
        """A module, or a list of those in a slice."""
        return list(self)[position if isinstance(position, slice) else integer(position, "position")]

    def __setitem__(self, position: int, module: Module) -> None:
        modules = list(self)
        modules[integer(position, "position")] = module
        self._hold(modules)

    def __delitem__(self, position: int | slice) -> None:
        modules = list(self)
        del modules[position if isinstance(position, slice) else integer(position, "position")]
        self._hold(modules)

    def _hold(self, modules: list[Module]) -> None:
        for position, module in enumerate(modules):
            if not isinstance(module, Module):
                raise TypeError(f"modules must be Modules, got {type(module).__name__} at position {position}")
        for name in list(self._children):
            delattr(self, name)
        for position, module in enumerate(modules):
            setattr(self, str(position), module)
        self._take_name(self._name)

    def _take_name(self, name: str) -> None:
        """The list itself is never called: each of its modules has the list's name before its own."""
        super()._take_name(name)
        for position, module in self._children.items():
            module._take_name(f"{name}.{position}" if name else position)


def is_exactly(layer: Module | None, *kinds: type[Module]) -> bool:
    """Whether the layer computes what one of these classes does: a subclass or a patched instance may not."""
    return type(layer) in kinds and "forward" not in vars(layer)


def conv_norm_relu(
    x: Tensor, conv: Module, norm: Module, relu: Module | None, shortcut: Tensor | None = None
) -> Tensor:
    """relu(norm(conv(x)) + shortcut) in as few operations as there are for it, with the bits of one by one.

    In training the convolution is one and the rest another, as backward needs the output of the convolution.  Otherwise
    all is one.  Layers with a forward of their own are called as they are.

    relu, shortcut   None: left out
    """
    x = as_tensor(x, "x")
    fuses = (relu is None or is_exactly(relu, ReLU)) and x.ndim == 4 and x.size > 0
    if isinstance(norm, BatchNorm2d):
        fuses = fuses and is_exactly(norm, BatchNorm2d) and norm.function is F.batch_norm
        statistics: dict[str, Any] = {
            "running_mean": norm.running_mean,
            "running_var": norm.running_var,
            "eps": norm.eps,
        }
        if norm.training and fuses and relu is not None:
            y = conv(x)
            if shortcut is not None and shortcut.shape != y.shape:  # it is broadcast
                return relu(norm(y) + shortcut)
            with module_scope(norm._name):
                affine: dict[str, Any] = {"weight": norm.weight, "bias": norm.bias, "momentum": norm.momentum}
                return F.batch_norm_add_relu(y, shortcut=shortcut, **statistics, **affine)
        fuses = fuses and not norm.training
        statistics |= {"gamma": norm.weight, "beta": norm.bias}
    else:
        fuses, statistics = fuses and is_exactly(norm, Identity, Folded), {}
    if (
        fuses
        and isinstance(conv, Conv2d)
        and is_exactly(conv, Conv2d)
        and (shortcut is None or shortcut.shape[1] == conv.out_channels)  # else it is broadcast
    ):
        geometry = conv.stride, conv.padding, conv.dilation, conv.groups
        with module_scope(conv._name):
            return F.fused_conv2d(
                x, conv.weight, conv.bias, *geometry, **statistics, shortcut=shortcut, relu=relu is not None
            )
    y = norm(conv(x))
    y = y if shortcut is None else y + shortcut
    return y if relu is None else relu(y)
