"""What a node costs: multiply-adds, and memory until backward."""

from __future__ import annotations

import math
from typing import Any

from minires.arrays import Array, is_array
from minires.autograd import Function
from minires.ops import Conv2d, Linear, MatMul


def multiply_adds(node: Function, phase: str = "forward") -> int:
    """Multiply-adds of a convolution, linear layer or matrix product that has run; 0 for other operations.

    Every output element is a sum over one filter; in a matrix product, over the last axis of the first operand.
    In backward, the gradients of the input and of the weight, if needed, take as many multiply-adds each.
    """
    if not isinstance(node, (Conv2d, Linear, MatMul)) or "output_shape" not in node.__dict__:
        return 0
    rows, weight = node.input_shapes[:2]
    if node.name == "MatMul":
        assert rows is not None
        return math.prod(node.output_shape) * rows[-1]
    assert weight is not None
    sums = sum(node.needs_input_grad[:2]) if phase == "backward" else 1
    return sums * math.prod(node.output_shape) * math.prod(weight[1:])


def memory_owners(saved: Any) -> list[Array]:
    """The arrays that own the memory of the arrays in a node's `saved` (nested tuples)."""
    if isinstance(saved, tuple):
        return [owner for part in saved for owner in memory_owners(part)]
    if not is_array(saved):
        return []
    return [saved.base if is_array(saved.base) else saved]
