"""Networks and their weights in the files of other programs.

onnx_file         a network as an ONNX file
onnx_operations   each operation in ONNX's words
recording         what a network computes, as a list of operations that holds for any number of images
"""

from minires.weights.onnx_file import OnnxMissing, exported

__all__ = ["OnnxMissing", "exported"]
