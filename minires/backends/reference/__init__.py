"""The reference backend: readable array code for NumPy and CuPy alike, the specification of every other backend.

Arrays are logical (N, C, H, W).  In memory the results lie channels-last (N, H, W, C): then a convolution is one matrix
product of pixels × channels, a 1×1 convolution needs no copy at all, and a per-channel vector runs along the rows.
"""

from minires.backends.reference.add import add_forward
from minires.backends.reference.batch_norm import (
    batch_norm_backward,
    batch_norm_eval_backward,
    batch_norm_eval_forward,
    batch_norm_forward,
)
from minires.backends.reference.conv2d import (
    conv2d_backward_bias,
    conv2d_backward_input,
    conv2d_backward_weight,
    conv2d_forward,
)
from minires.backends.reference.linear import linear_backward_input, linear_backward_weight, linear_forward
from minires.backends.reference.pool import (
    adaptive_avg_pool2d_backward,
    adaptive_avg_pool2d_forward,
    avg_pool2d_backward,
    avg_pool2d_forward,
    max_pool2d_backward,
    max_pool2d_forward,
)
from minires.backends.reference.relu import relu_backward, relu_forward
from minires.backends.reference.softmax import (
    cross_entropy_backward,
    cross_entropy_forward,
    log_softmax_backward,
    log_softmax_forward,
    softmax_backward,
    softmax_forward,
)

name = "reference"

__all__ = [
    "adaptive_avg_pool2d_backward",
    "adaptive_avg_pool2d_forward",
    "add_forward",
    "avg_pool2d_backward",
    "avg_pool2d_forward",
    "batch_norm_backward",
    "batch_norm_eval_backward",
    "batch_norm_eval_forward",
    "batch_norm_forward",
    "conv2d_backward_bias",
    "conv2d_backward_input",
    "conv2d_backward_weight",
    "conv2d_forward",
    "cross_entropy_backward",
    "cross_entropy_forward",
    "linear_backward_input",
    "linear_backward_weight",
    "linear_forward",
    "log_softmax_backward",
    "log_softmax_forward",
    "max_pool2d_backward",
    "max_pool2d_forward",
    "relu_backward",
    "relu_forward",
    "softmax_backward",
    "softmax_forward",
]
