"""VGG-16 and VGG-19 (Simonyan and Zisserman, arXiv:1409.1556): the left column of the paper's Figure 3."""

from __future__ import annotations

from minires._checks import LARGEST_SIZE, flag, integer, number
from minires._repr import shown
from minires.nn import (
    AdaptiveAvgPool2d,
    BatchNorm2d,
    Conv2d,
    Dropout,
    Flatten,
    Linear,
    MaxPool2d,
    Module,
    ReLU,
    Sequential,
)
from minires.tensor import Tensor, as_tensor


class VGG(Module):
    """3×3 convolutions in five stages, each closed by 2×2 max pooling, then three linear layers.

    (N, in_channels, H, W) -> (N, num_classes), H and W at least 32

    layers       convolutions in each stage
    width        filters of the first stage (64), doubled up to eightfold
    hidden       units of the two hidden linear layers
    batch_norm   True adds batch normalisation after each convolution (not in the original)
    dropout      probability in the hidden linear layers

    State-dict names are torchvision's: features.0, ..., classifier.0, classifier.3, classifier.6.
    """

    def __init__(
        self,
        layers: tuple[int, ...],
        *,
        width: int = 64,
        num_classes: int = 1000,
        in_channels: int = 3,
        hidden: int = 4096,
        batch_norm: bool = False,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        integer(width, "width", 1, LARGEST_SIZE)
        integer(num_classes, "num_classes", 1, LARGEST_SIZE)
        integer(hidden, "hidden", 1, LARGEST_SIZE)
        number(dropout, "dropout", 0, 1)
        batch_norm = flag(batch_norm, "batch_norm")
        if not isinstance(layers, (tuple, list)) or not 1 <= len(layers) <= 8:
            raise TypeError(f"layers must be a tuple of 1 to 8 numbers of convolutions, got {shown(layers)}")
        layers = tuple(integer(n, "layers", 1, 1000) for n in layers)
        self.in_channels = integer(in_channels, "in_channels", 1, LARGEST_SIZE)
        features: list[Module] = []
        channels = in_channels
        for stage, convolutions in enumerate(layers):
            stage_width = width * min(2**stage, 8)
            for _ in range(convolutions):
                features.append(Conv2d(channels, stage_width, 3, padding=1))
                if batch_norm:
                    features.append(BatchNorm2d(stage_width))
                features.append(ReLU())
                channels = stage_width
            features.append(MaxPool2d(2))
        self.features = Sequential(*features)
        self.avgpool = AdaptiveAvgPool2d(7)  # 7×7 already for images of 224×224
        self.flatten = Flatten()
        self.classifier = Sequential(
            Linear(channels * 7 * 7, hidden),
            ReLU(),
            Dropout(dropout),
            Linear(hidden, hidden),
            ReLU(),
            Dropout(dropout),
            Linear(hidden, num_classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = as_tensor(x, "x")
        if x.ndim != 4 or x.shape[1] != self.in_channels:
            raise ValueError(f"x must be (N, {self.in_channels}, H, W), got shape {x.shape}")
        if min(x.shape[2:]) < 32:
            raise ValueError(f"x must be at least 32×32 for five poolings, got shape {x.shape}")
        return self.classifier(self.flatten(self.avgpool(self.features(x))))
