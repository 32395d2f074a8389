"""The names of Hugging Face transformers: ResNetForImageClassification, and ResNetModel, which has no classifier."""

from __future__ import annotations

from minires.weights.conventions.rules import Convention, Rule

_BODY = (
    Rule("embedder.embedder.convolution.*", "conv1.*"),
    Rule("embedder.embedder.normalization.*", "bn1.*"),
    Rule("encoder.stages.{s}.layers.{b}.layer.{k}.convolution.*", "layer{s+1}.{b}.conv{k+1}.*"),
    Rule("encoder.stages.{s}.layers.{b}.layer.{k}.normalization.*", "layer{s+1}.{b}.bn{k+1}.*"),
    Rule("encoder.stages.{s}.layers.{b}.shortcut.convolution.*", "layer{s+1}.{b}.downsample.0.*"),
    Rule("encoder.stages.{s}.layers.{b}.shortcut.normalization.*", "layer{s+1}.{b}.downsample.1.*"),
)
_HEAD = Rule("classifier.1.*", "fc.*")

HUGGING_FACE = Convention(
    "Hugging Face transformers", (*(Rule(f"resnet.{rule.theirs}", rule.ours) for rule in _BODY), _HEAD)
)
HUGGING_FACE_BODY = Convention("Hugging Face transformers, without its classifier", _BODY)
