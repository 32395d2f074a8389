"""Dropout."""

from __future__ import annotations

from minires import random
from minires.arrays import Array, array_module
from minires.autograd import Function


class Dropout(Function):
    """y = x · mask / (1 − p): each element is kept with probability 1 − p, so that the expectation stays x

    ∂x = g · mask / (1 − p)
    The mask is drawn from `minires.random`, an image after the other: of a part of a batch, that part's.
    """

    def __init__(self, p: float) -> None:
        self.p = p

    def forward(self, x: Array) -> Array:
        keep = 1 - self.p
        kept = array_module(x).asarray(random.uniform(x.shape) < keep)
        scale = kept.astype(x.dtype) * x.dtype.type(1 / keep if keep else 0)  # the shape of x
        self.saved = scale
        return x * scale

    def backward(self, grad_output: Array) -> Array:
        return grad_output * self.saved
