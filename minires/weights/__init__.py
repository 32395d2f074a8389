"""Networks and their weights in the files of other programs.

reading           weight files of PyTorch and safetensors, as data: nothing in them is executed
onnx_file         a network as an ONNX file
onnx_operations   each operation in ONNX's words
recording         what a network computes, as a list of operations that holds for any number of images
"""

from minires.weights.file import WeightFile, WeightsError
from minires.weights.onnx_file import OnnxMissing, exported
from minires.weights.reading import read

__all__ = ["OnnxMissing", "WeightFile", "WeightsError", "exported", "read"]
