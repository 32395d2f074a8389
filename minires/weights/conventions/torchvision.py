"""torchvision's names, which are minires' own; timm's residual networks have them too."""

from __future__ import annotations

from minires.weights.conventions.rules import Convention, same

RESNET = same(
    "conv1.*",
    "bn1.*",
    "layer{s}.{b}.conv{k}.*",
    "layer{s}.{b}.bn{k}.*",
    "layer{s}.{b}.downsample.{i}.*",
    "fc.*",
)
VGG_FEATURES = same("features.{i}.*")

TORCHVISION = Convention("torchvision", (*RESNET, *VGG_FEATURES, *same("classifier.{i}.*")))
