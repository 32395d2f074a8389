"""The paper's unit of cost."""

from __future__ import annotations

import math

from minires.autograd import Function


def multiply_adds(node: Function) -> int:
    """Products of one convolution or linear layer that has run: every output element is a sum over one filter."""
    if node.name not in ("Conv2d", "Linear") or "output_shape" not in node.__dict__:
        return 0
    weight = node.input_shapes[1]
    assert weight is not None
    return math.prod(node.output_shape) * math.prod(weight[1:])
