"""Check a PyTorch network of your own against minires: the same weights, then outputs and gradients.

The network below is ResNet-20 with one mistake: batch norm adds 1e-3 to the variance, where PyTorch's default and the
network of minires add 1e-5.  The parameters have torchvision's names, as those of minires have.  Needs PyTorch.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional as TF

import minires as mr
from minires.verify.network import against_torch


class Block(nn.Module):
    def __init__(self, channels: int, filters: int, stride: int, eps: float) -> None:
        super().__init__()
        self.stride, self.new = stride, filters - channels
        self.conv1 = nn.Conv2d(channels, filters, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(filters, eps)
        self.conv2 = nn.Conv2d(filters, filters, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(filters, eps)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = TF.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.new))  # option A
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(y + shortcut)


class ResNet20(nn.Module):
    def __init__(self, eps: float = 1e-3) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16, eps)
        channels = [16, 16, 32, 64]
        for stage in (1, 2, 3):
            first = Block(channels[stage - 1], channels[stage], 1 if stage == 1 else 2, eps)
            rest = [Block(channels[stage], channels[stage], 1, eps) for _ in range(2)]
            setattr(self, f"layer{stage}", nn.Sequential(first, *rest))
        self.fc = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layer3(self.layer2(self.layer1(torch.relu(self.bn1(self.conv1(x))))))
        return self.fc(x.mean((2, 3)))


def main() -> None:
    images = np.random.default_rng(0).standard_normal((4, 3, 32, 32))
    model = mr.models.create("resnet20").astype("float64")
    for name, peer in (("eps 1e-3", ResNet20()), ("eps 1e-5", ResNet20(eps=1e-5))):
        found = against_torch(model, peer, images)  # logits, running statistics and all gradients
        worst = max(found, key=lambda difference: difference.relative)
        agree = sum(difference.agrees for difference in found)
        print(f"{name}: {agree} of {len(found)} arrays agree; worst {worst.name}: {worst.relative:.1e}")


if __name__ == "__main__":
    main()
