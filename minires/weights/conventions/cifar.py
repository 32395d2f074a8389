"""The names of the public CIFAR repositories (akamaster/pytorch_resnet_cifar10, kuangliu/pytorch-cifar)."""

from __future__ import annotations

from minires.weights.conventions.rules import Convention, Rule
from minires.weights.conventions.torchvision import RESNET

CIFAR = Convention(
    "CIFAR, head named linear",
    (
        Rule("linear.*", "fc.*"),
        Rule("layer{s}.{b}.shortcut.{i}.*", "layer{s}.{b}.downsample.{i}.*"),
        *RESNET,
    ),
)
