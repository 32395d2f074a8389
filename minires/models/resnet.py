"""The residual and plain networks: Table 1 for ImageNet, section 4.2 for CIFAR-10."""

from __future__ import annotations

from minires import functional as F
from minires._checks import LARGEST_SIZE, choice, flag, integer
from minires._repr import shown
from minires.models.blocks import BasicBlock, Bottleneck, make_shortcut, norm
from minires.nn import AdaptiveAvgPool2d, Conv2d, Linear, MaxPool2d, Module, ReLU, Sequential
from minires.nn.layers import conv_norm_relu
from minires.tensor import Tensor, as_tensor


class ResNet(Module):
    """Stem, stages of blocks, global average pooling, one linear layer: (N, in_channels, H, W) -> (N, num_classes).

    block           BasicBlock or Bottleneck
    layers          number of blocks in each stage; every stage but the first halves H and W and doubles the width
    stem            "imagenet": 7×7 convolution of stride 2 and 3×3 max pooling of stride 2; "cifar": 3×3 convolution
    width           filters of the stem and of the first stage's blocks (64 for ImageNet, 16 for CIFAR)
    num_classes     outputs of the last layer
    in_channels     channels of the images
    residual        False: a plain network, the same blocks without shortcuts
    shortcut        "A", "B" or "C" (section 3.3)
    stride_in       "1x1" or "3x3": which convolution of a bottleneck has the stride
    zero_channels   "end" or "both": where option A puts its zero channels
    batch_norm      False leaves out every batch normalisation (to study gradients without it)

    State-dict names are torchvision's: conv1, bn1, layer1.0.conv1, layer2.0.downsample.0, fc.
    """

    normed = (("conv1", "bn1"),)

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        layers: tuple[int, ...],
        *,
        stem: str,
        width: int,
        num_classes: int,
        in_channels: int = 3,
        residual: bool = True,
        shortcut: str = "B",
        stride_in: str = "1x1",
        zero_channels: str = "end",
        batch_norm: bool = True,
    ) -> None:
        super().__init__()
        integer(width, "width", 1, LARGEST_SIZE)
        integer(num_classes, "num_classes", 1, LARGEST_SIZE)
        integer(in_channels, "in_channels", 1, LARGEST_SIZE)
        choice(shortcut, "shortcut", ("A", "B", "C"))
        choice(stride_in, "stride_in", ("1x1", "3x3"))
        choice(zero_channels, "zero_channels", ("end", "both"))
        residual, batch_norm = flag(residual, "residual"), flag(batch_norm, "batch_norm")
        if block not in (BasicBlock, Bottleneck):
            raise TypeError(f"block must be BasicBlock or Bottleneck, got {shown(block)}")
        if not isinstance(layers, (tuple, list)) or not 1 <= len(layers) <= 8:
            raise TypeError(f"layers must be a tuple of 1 to 8 numbers of blocks, got {shown(layers)}")
        layers = tuple(integer(n, "layers", 1, 1000) for n in layers)
        self.stem = choice(stem, "stem", ("imagenet", "cifar"))
        self.in_channels = in_channels

        if stem == "imagenet":
            self.conv1 = Conv2d(in_channels, width, 7, stride=2, padding=3, bias=False)
        else:
            self.conv1 = Conv2d(in_channels, width, 3, padding=1, bias=False)
        self.bn1 = norm(width, batch_norm)
        self.relu = ReLU()
        if stem == "imagenet":
            self.maxpool = MaxPool2d(3, stride=2, padding=1)

        channels = width
        self.stages = []
        for stage, blocks in enumerate(layers):
            stage_width = width * 2**stage
            out_channels = stage_width * block.expansion
            modules = []
            for number in range(blocks):
                stride = 2 if stage > 0 and number == 0 else 1
                downsample = None
                if residual:
                    downsample = make_shortcut(shortcut, channels, out_channels, stride, zero_channels, batch_norm)
                options = {"stride_in": stride_in} if block is Bottleneck else {}
                modules.append(block(channels, stage_width, stride, downsample, residual, batch_norm, **options))
                channels = out_channels
            name = f"layer{stage + 1}"
            setattr(self, name, Sequential(*modules))
            self.stages.append(name)

        self.avgpool = AdaptiveAvgPool2d(1)
        self.fc = Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self._after_stem(self.relu(self.bn1(self.conv1(self._images(x)))))

    def forward_fused(self, x: Tensor) -> Tensor:
        return self._after_stem(conv_norm_relu(self._images(x), self.conv1, self.bn1, self.relu))

    def _images(self, x: Tensor) -> Tensor:
        x = x if isinstance(x, Tensor) else as_tensor(x, "x")
        if x.ndim != 4 or x.shape[1] != self.in_channels:
            raise ValueError(f"x must be (N, {self.in_channels}, H, W), got shape {x.shape}")
        return x

    def _after_stem(self, x: Tensor) -> Tensor:
        if self.stem == "imagenet":
            x = self.maxpool(x)
        for name in self.stages:
            x = getattr(self, name)(x)
        return self.fc(F.flatten(self.avgpool(x)))
