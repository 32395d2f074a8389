"""Element-wise arithmetic with broadcasting; the skip connection of the paper (equation 1) is Add."""

from __future__ import annotations

from minires.arrays import Array
from minires.autograd import Function


def sum_to(grad: Array, shape: tuple[int, ...]) -> Array:
    """The gradient of a broadcast: sums over the axes along which `shape` was repeated."""
    if grad.shape == shape:
        return grad
    leading = grad.ndim - len(shape)
    repeated = tuple(range(leading)) + tuple(
        leading + axis for axis, size in enumerate(shape) if size == 1 and grad.shape[leading + axis] != 1
    )
    return grad.sum(axis=repeated, keepdims=True).reshape(shape)


class Add(Function):
    """a + b"""

    takes_deferred = "always"

    def forward(self, a: Array, b: Array) -> Array:
        self.saved = a.shape, b.shape
        return self.backend.add_forward(a, b)

    def backward(self, grad_output: Array) -> tuple[Array, Array]:
        a_shape, b_shape = self.saved
        return sum_to(grad_output, a_shape), sum_to(grad_output, b_shape)


class Sub(Function):
    """a − b"""

    def forward(self, a: Array, b: Array) -> Array:
        self.saved = a.shape, b.shape
        return a - b

    def backward(self, grad_output: Array) -> tuple[Array, Array]:
        a_shape, b_shape = self.saved
        return sum_to(grad_output, a_shape), -sum_to(grad_output, b_shape)


class Mul(Function):
    """a · b, element by element"""

    def forward(self, a: Array, b: Array) -> Array:
        self.saved = a, b
        return a * b

    def backward(self, grad_output: Array) -> tuple[Array, Array]:
        a, b = self.saved
        return sum_to(grad_output * b, a.shape), sum_to(grad_output * a, b.shape)


class Div(Function):
    """a / b, element by element"""

    def forward(self, a: Array, b: Array) -> Array:
        self.saved = a, b
        return a / b

    def backward(self, grad_output: Array) -> tuple[Array, Array]:
        a, b = self.saved
        grad_a = grad_output / b
        return sum_to(grad_a, a.shape), sum_to(-grad_a * a / b, b.shape)  # d(a/b)/db = −a/b²


class Neg(Function):
    """−a"""

    def forward(self, a: Array) -> Array:
        return -a

    def backward(self, grad_output: Array) -> Array:
        return -grad_output
