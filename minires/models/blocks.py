"""The building block and the bottleneck (Figure 5 of the paper), and what their shortcuts do.

A block computes y = relu(F(x) + shortcut(x))   (equations 1 and 2).
A plain network is made of the same blocks with the shortcut left out: y = relu(F(x)).
"""

from __future__ import annotations

from minires import functional as F
from minires._checks import LARGEST_SIZE, choice, flag, instance, integer
from minires.nn import BatchNorm2d, Conv2d, Identity, Module, ReLU, Sequential
from minires.nn.layers import conv_norm_relu
from minires.tensor import Tensor, as_tensor


def conv3x3(in_channels: int, out_channels: int, stride: int = 1) -> Conv2d:
    return Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)


def conv1x1(in_channels: int, out_channels: int, stride: int = 1) -> Conv2d:
    return Conv2d(in_channels, out_channels, 1, stride, bias=False)


class BasicBlock(Module):
    """Figure 5, left: two 3×3 convolutions.  (N, in_channels, H, W) -> (N, width, H/stride, W/stride)

    The first convolution has the stride.  `downsample` stands on the shortcut (None: identity); with residual=False
    there is no shortcut at all.
    """

    expansion = 1
    normed = (("conv1", "bn1"), ("conv2", "bn2"))

    def __init__(
        self,
        in_channels: int,
        width: int,
        stride: int = 1,
        downsample: Module | None = None,
        residual: bool = True,
        batch_norm: bool = True,
    ) -> None:
        super().__init__()
        _check(in_channels, width, stride, downsample)
        batch_norm = flag(batch_norm, "batch_norm")
        self.conv1 = conv3x3(in_channels, width, stride)
        self.bn1 = norm(width, batch_norm)
        self.relu = ReLU()
        self.conv2 = conv3x3(width, width)
        self.bn2 = norm(width, batch_norm)
        self.downsample = downsample
        self.residual = flag(residual, "residual")

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        if self.residual:
            y = y + (x if self.downsample is None else self.downsample(x))
        return self.relu(y)

    def forward_fused(self, x: Tensor) -> Tensor:
        y = conv_norm_relu(x, self.conv1, self.bn1, self.relu)
        return conv_norm_relu(y, self.conv2, self.bn2, self.relu, shortcut_of(self, x))


class Bottleneck(Module):
    """Figure 5, right: 1×1 reduces, 3×3, 1×1 restores.  (N, in_channels, H, W) -> (N, 4·width, H/stride, W/stride)

    stride_in="1x1" puts the stride into the first 1×1 convolution (the paper), "3x3" into the 3×3 one (the network that
    torchvision's weights were trained with).
    """

    expansion = 4
    normed = (("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3"))

    def __init__(
        self,
        in_channels: int,
        width: int,
        stride: int = 1,
        downsample: Module | None = None,
        residual: bool = True,
        batch_norm: bool = True,
        stride_in: str = "1x1",
    ) -> None:
        super().__init__()
        _check(in_channels, width, stride, downsample)
        batch_norm = flag(batch_norm, "batch_norm")
        choice(stride_in, "stride_in", ("1x1", "3x3"))
        self.conv1 = conv1x1(in_channels, width, stride if stride_in == "1x1" else 1)
        self.bn1 = norm(width, batch_norm)
        self.conv2 = conv3x3(width, width, stride if stride_in == "3x3" else 1)
        self.bn2 = norm(width, batch_norm)
        self.conv3 = conv1x1(width, width * self.expansion)
        self.bn3 = norm(width * self.expansion, batch_norm)
        self.relu = ReLU()
        self.downsample = downsample
        self.residual = flag(residual, "residual")

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        if self.residual:
            y = y + (x if self.downsample is None else self.downsample(x))
        return self.relu(y)

    def forward_fused(self, x: Tensor) -> Tensor:
        y = conv_norm_relu(x, self.conv1, self.bn1, self.relu)
        y = conv_norm_relu(y, self.conv2, self.bn2, self.relu)
        return conv_norm_relu(y, self.conv3, self.bn3, self.relu, shortcut_of(self, x))


def shortcut_of(block: BasicBlock | Bottleneck, x: Tensor) -> Tensor | None:
    """What is added to F(x); None in a plain network."""
    if not block.residual:
        return None
    return x if block.downsample is None else block.downsample(x)


class ZeroPadShortcut(Module):
    """Option A: every `stride`-th pixel, and zeros for the channels that are new.  No parameters.

    zero_channels="end" appends all zeros behind x's channels; "both" puts one half before and one half behind, as one
    public version of the CIFAR networks does: weights trained one way don't fit the other.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, zero_channels: str = "end") -> None:
        super().__init__()
        integer(in_channels, "in_channels", 1, LARGEST_SIZE)
        new = integer(out_channels, "out_channels", in_channels, LARGEST_SIZE) - in_channels
        integer(stride, "stride", 1, LARGEST_SIZE)
        choice(zero_channels, "zero_channels", ("end", "both"))
        before = new // 2 if zero_channels == "both" else 0
        self.stride = stride
        self.pad = ((0, 0), (before, new - before), (0, 0), (0, 0))

    def forward(self, x: Tensor) -> Tensor:
        x = as_tensor(x, "x", 4, "(N, C, H, W)")
        if self.stride > 1:
            x = x[:, :, :: self.stride, :: self.stride]
        return F.pad(x, self.pad)

    def extra_repr(self) -> str:
        return f"stride={self.stride}, pad={self.pad}"


def _check(in_channels: int, width: int, stride: int, downsample: Module | None) -> None:
    integer(in_channels, "in_channels", 1, LARGEST_SIZE)
    integer(width, "width", 1, LARGEST_SIZE)
    integer(stride, "stride", 1, LARGEST_SIZE)
    if downsample is not None:
        instance(downsample, "downsample", Module)


def norm(channels: int, batch_norm: bool) -> Module:
    return BatchNorm2d(channels) if batch_norm else Identity()


def make_shortcut(
    option: str, in_channels: int, out_channels: int, stride: int, zero_channels: str, batch_norm: bool
) -> Module | None:
    """The shortcut of a block (section 3.3): None is the identity.

    A   identity; zero channels where dimensions increase
    B   identity; projection (1×1 convolution and batch norm) where dimensions increase
    C   projection everywhere
    """
    increases = stride != 1 or in_channels != out_channels
    if option == "C" or (option == "B" and increases):
        return Sequential(conv1x1(in_channels, out_channels, stride), norm(out_channels, batch_norm))
    if increases:
        return ZeroPadShortcut(in_channels, out_channels, stride, zero_channels)
    return None
