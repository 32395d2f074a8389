"""What a node costs: multiply-adds, and memory until backward."""

from __future__ import annotations

import math
from typing import Any

from minires.arrays import Array, is_array
from minires.autograd import Function
from minires.ops import Conv2d, Linear, MatMul


def multiply_adds(node: Function, phase: str = "forward") -> int:
    """Products of one convolution, linear layer or matrix product that has run.

    Every output element is a sum over one filter, of a matrix product over the last axis of the first operand.
    In backward the gradients of the input and of the weight, as far as they are wanted, take as many products each.
    """
    if not isinstance(node, (Conv2d, Linear, MatMul)) or "output_shape" not in node.__dict__:
        return 0
    if node.name == "MatMul":
        rows = node.input_shapes[0]
        assert rows is not None
        return math.prod(node.output_shape) * rows[-1]
    weight = node.input_shapes[1]
    assert weight is not None
    sums = sum(node.needs_input_grad[:2]) if phase == "backward" else 1
    return sums * math.prod(node.output_shape) * math.prod(weight[1:])


def saved_arrays(saved: Any) -> list[Array]:
    """The arrays in a node's `saved` (nested tuples)."""
    if isinstance(saved, tuple):
        return [array for part in saved for array in saved_arrays(part)]
    return [saved] if is_array(saved) else []


def memory_owners(saved: Any) -> list[Array]:
    """The arrays that own the memory of those in a node's `saved`."""
    return [array.base if is_array(array.base) else array for array in saved_arrays(saved)]  # type: ignore[misc]
