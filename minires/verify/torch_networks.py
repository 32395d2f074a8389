"""A second, independent definition of the networks, in PyTorch, for tests and benchmarks.

It follows the paper and torchvision's naming and shares no code with minires.models.  Needs PyTorch.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F


class OptionA(nn.Module):
    """Stride-2 subsampling; zero channels at the end or on both sides."""

    def __init__(self, new: int, stride: int, both: bool) -> None:
        super().__init__()
        self.front = new // 2 if both else 0
        self.back = new - self.front
        self.stride = stride

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.pad(x[..., :: self.stride, :: self.stride], (0, 0, 0, 0, self.front, self.back))


class Block(nn.Module):
    """A basic block or a bottleneck; `convs` lists (kernel, stride, filters) of its convolutions."""

    def __init__(self, c: int, convs: list[tuple[int, int, int]], shortcut: nn.Module | None, bn: bool) -> None:
        super().__init__()
        self.depth = len(convs)
        for i, (k, s, o) in enumerate(convs, 1):
            self.add_module(f"conv{i}", nn.Conv2d(c, o, k, s, k // 2, bias=False))
            self.add_module(f"bn{i}", nn.BatchNorm2d(o) if bn else nn.Identity())
            c = o
        if shortcut is not None:
            self.downsample = shortcut

    def forward(self, x: torch.Tensor, residual: bool) -> torch.Tensor:
        y = x
        for i in range(1, self.depth + 1):
            y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(y))
            if i < self.depth:
                y = torch.relu(y)
        if residual:
            y = y + (self.downsample(x) if hasattr(self, "downsample") else x)
        return torch.relu(y)


class Residual(nn.Module):
    def __init__(
        self,
        depth: int,
        plain: bool,
        num_classes: int,
        in_channels: int,
        width: int,
        shortcut: str,
        stride_in: str,
        zero_channels: str,
        batch_norm: bool,
    ) -> None:
        super().__init__()
        imagenet = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
        self.cifar = depth not in imagenet
        counts = (depth // 6,) * 3 if self.cifar else imagenet[depth]
        bottleneck = depth in (50, 101, 152)
        self.residual = not plain
        if self.cifar:
            self.conv1 = nn.Conv2d(in_channels, width, 3, 1, 1, bias=False)
        else:
            self.conv1 = nn.Conv2d(in_channels, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width) if batch_norm else nn.Identity()
        c = width
        for stage, count in enumerate(counts):
            w = width << stage
            out = 4 * w if bottleneck else w
            blocks = []
            for i in range(count):
                s = 2 if stage and not i else 1
                if bottleneck:
                    convs = [
                        (1, s if stride_in == "1x1" else 1, w),
                        (3, s if stride_in == "3x3" else 1, w),
                        (1, 1, out),
                    ]
                else:
                    convs = [(3, s, w), (3, 1, w)]
                path: nn.Module | None = None
                if not plain and (shortcut == "C" or s > 1 or c != out):
                    path = (
                        OptionA(out - c, s, zero_channels == "both")
                        if shortcut == "A"
                        else nn.Sequential(
                            nn.Conv2d(c, out, 1, s, bias=False), nn.BatchNorm2d(out) if batch_norm else nn.Identity()
                        )
                    )
                blocks.append(Block(c, convs, path, batch_norm))
                c = out
            self.add_module(f"layer{stage + 1}", nn.ModuleList(blocks))
        self.stages = len(counts)
        self.fc = nn.Linear(c, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.bn1(self.conv1(x)))
        if not self.cifar:
            x = F.max_pool2d(x, 3, 2, 1)
        for stage in range(1, self.stages + 1):
            for block in getattr(self, f"layer{stage}"):
                x = block(x, self.residual)
        return self.fc(x.mean((2, 3)))


class VGG(nn.Module):
    def __init__(
        self, depth: int, num_classes: int, in_channels: int, width: int, hidden: int, batch_norm: bool
    ) -> None:
        super().__init__()
        plan = {
            16: "1 1 M 2 2 M 4 4 4 M 8 8 8 M 8 8 8 M",
            19: "1 1 M 2 2 M 4 4 4 4 M 8 8 8 8 M 8 8 8 8 M",
        }[depth]
        layers: list[nn.Module] = []
        c = in_channels
        for word in plan.split():
            if word == "M":
                layers.append(nn.MaxPool2d(2))
                continue
            layers.append(nn.Conv2d(c, width * int(word), 3, 1, 1))
            c = width * int(word)
            layers += [nn.BatchNorm2d(c), nn.ReLU()] if batch_norm else [nn.ReLU()]
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Linear(49 * c, hidden), nn.ReLU(), nn.Dropout(0.0),
            nn.Linear(hidden, hidden), nn.ReLU(), nn.Dropout(0.0),
            nn.Linear(hidden, num_classes),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(F.adaptive_avg_pool2d(self.features(x), 7).flatten(1))


def create(
    name: str,
    *,
    num_classes: int | None = None,
    in_channels: int = 3,
    width: int | None = None,
    shortcut: str | None = None,
    stride_in: str = "1x1",
    zero_channels: str = "end",
    batch_norm: bool | None = None,
    hidden: int = 4096,
) -> Any:
    """The PyTorch network for a minires name and options; VGG without dropout."""
    family, depth = name.rstrip("0123456789"), int(name.lstrip("abcdefghijklmnopqrstuvwxyz"))
    if family == "vgg":
        return VGG(depth, num_classes or 1000, in_channels, width or 64, hidden, bool(batch_norm))
    cifar = depth not in (18, 34, 50, 101, 152)
    return Residual(
        depth,
        family == "plain",
        num_classes or (10 if cifar else 1000),
        in_channels,
        width or (16 if cifar else 64),
        shortcut or ("A" if cifar else "B"),
        stride_in,
        zero_channels,
        batch_norm is not False,
    )
