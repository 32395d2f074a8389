"""The networks of the paper."""

from minires._lazy import directory
from minires.models.blocks import BasicBlock, Bottleneck, ZeroPadShortcut
from minires.models.registry import create, input_shape, names, options, shapes, stages
from minires.models.resnet import ResNet
from minires.models.vgg import VGG

__all__ = [
    "VGG",
    "BasicBlock",
    "Bottleneck",
    "ResNet",
    "ZeroPadShortcut",
    "create",
    "input_shape",
    "names",
    "options",
    "shapes",
    "stages",
]
__dir__ = directory(globals())
