"""The operations, one file each: forward directly above backward.

In the docstrings g is `grad_output`, the gradient of y, and ∂x the gradient of x that backward returns.
"""

from minires.ops.add import Add, Div, Mul, Neg, Sub
from minires.ops.batch_norm import BatchNorm
from minires.ops.batch_norm_add_relu import BatchNormAddReLU, BatchNormReLU
from minires.ops.conv2d import Conv2d
from minires.ops.cross_entropy import CrossEntropy, NLLLoss
from minires.ops.dropout import Dropout
from minires.ops.elementary import Exp, Log, Sigmoid, Sqrt, Tanh
from minires.ops.fused_conv2d import FusedConv2d
from minires.ops.linear import Linear
from minires.ops.matmul import MatMul
from minires.ops.pad import Pad
from minires.ops.pool import AdaptiveAvgPool2d, AvgPool2d, MaxPool2d
from minires.ops.power import Pow
from minires.ops.reduce import Max, Mean, Sum
from minires.ops.relu import ReLU
from minires.ops.reshape import Reshape
from minires.ops.slice import Slice
from minires.ops.softmax import LogSoftmax, Softmax
from minires.ops.transpose import Transpose

__all__ = [
    "AdaptiveAvgPool2d",
    "Add",
    "AvgPool2d",
    "BatchNorm",
    "BatchNormAddReLU",
    "BatchNormReLU",
    "Conv2d",
    "CrossEntropy",
    "Div",
    "Dropout",
    "Exp",
    "FusedConv2d",
    "Linear",
    "Log",
    "LogSoftmax",
    "MatMul",
    "Max",
    "MaxPool2d",
    "Mean",
    "Mul",
    "NLLLoss",
    "Neg",
    "Pad",
    "Pow",
    "ReLU",
    "Reshape",
    "Sigmoid",
    "Slice",
    "Softmax",
    "Sqrt",
    "Sub",
    "Sum",
    "Tanh",
    "Transpose",
]
