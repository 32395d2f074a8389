"""timm's VGG: its hidden linear layers stand as convolutions, the first one 7×7."""

from __future__ import annotations

from minires.weights.conventions.rules import Convention, Rule
from minires.weights.conventions.torchvision import VGG_FEATURES

TIMM = Convention(
    "timm",
    (
        *VGG_FEATURES,
        Rule("pre_logits.fc1.*", "classifier.0.*"),
        Rule("pre_logits.fc2.*", "classifier.3.*"),
        Rule("head.fc.*", "classifier.6.*"),
    ),
    flattened=frozenset({"classifier.0.weight", "classifier.3.weight"}),
)
