"""Networks and their weights in the files of other programs.

reading       any weight file becomes a `WeightFile`, without executing anything in it
torch_file    the files of `torch.save`, and `pickles`, which reads their pickles as data
weight_file   the content of a weight file, and its data types
recognition   the network that a weight file holds, read off names and shapes
hints         what names and shapes don't reveal: metadata, and configurations beside the file
loading       weight files to networks and back
onnx_file     a network as an ONNX file
onnx_trace    the operations of a network, for any number of images
"""

from minires._lazy import directory
from minires.weights.loading import Loaded, convert, impossible, load, save
from minires.weights.onnx_file import OnnxMissing, exported
from minires.weights.reading import read, read_any
from minires.weights.recognition import Match, WeightsMismatch, recognise
from minires.weights.weight_file import WeightFile, WeightsError

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
