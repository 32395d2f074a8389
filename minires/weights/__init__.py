"""Networks and their weights in the files of other programs.

reading           weight files of PyTorch and safetensors, as data: nothing in them is executed
conventions       whose names: a table for each program
recognise         which network a weight file holds, and how far it fits
loading, saving, converting   weight files into networks and back
onnx_file         a network as an ONNX file
onnx_operations   each operation in ONNX's words
recording         what a network computes, as a list of operations that holds for any number of images
"""

from minires._lazy import directory
from minires.weights.converting import convert
from minires.weights.file import WeightFile, WeightsError
from minires.weights.loading import Loaded, load, read_any
from minires.weights.match import Match, WeightsMismatch
from minires.weights.onnx_file import OnnxMissing, exported
from minires.weights.reading import read
from minires.weights.recognise import recognise
from minires.weights.saving import save
from minires.weights.values import impossible

__all__ = [
    "Loaded",
    "Match",
    "OnnxMissing",
    "WeightFile",
    "WeightsError",
    "WeightsMismatch",
    "convert",
    "exported",
    "impossible",
    "load",
    "read",
    "read_any",
    "recognise",
    "save",
]
__dir__ = directory(globals())
