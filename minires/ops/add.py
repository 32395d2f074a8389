"""Element-wise arithmetic with broadcasting; the skip connection of the paper (equation 1) is Add."""

from __future__ import annotations

from minires.arrays import Array
from minires.autograd import Function
from minires.backends.reference.sums import sum_axes


def sum_to(grad: Array, shape: tuple[int, ...]) -> Array:
    """The gradient of a broadcast: sums over the axes along which `shape` was repeated."""
    if grad.shape == shape:
        return grad
    leading = grad.ndim - len(shape)
    repeated = tuple(range(leading)) + tuple(
        leading + axis for axis, size in enumerate(shape) if size == 1 and grad.shape[leading + axis] != 1
    )
    return sum_axes(grad, repeated, keepdims=True).reshape(shape)


class Add(Function):
    """y = x + other;  ∂x = g, ∂other = g, each summed over the axes along which it was repeated"""

    def forward(self, x: Array, other: Array) -> Array:
        self.saved = x.shape, other.shape
        return self.backend.add_forward(x, other)

    def backward(self, grad_output: Array) -> tuple[Array, Array]:
        x_shape, other_shape = self.saved
        return sum_to(grad_output, x_shape), sum_to(grad_output, other_shape)


class Sub(Function):
    """y = x − other;  ∂x = g, ∂other = −g, summed as in Add"""

    def forward(self, x: Array, other: Array) -> Array:
        self.saved = x.shape, other.shape
        return x - other

    def backward(self, grad_output: Array) -> tuple[Array, Array]:
        x_shape, other_shape = self.saved
        return sum_to(grad_output, x_shape), -sum_to(grad_output, other_shape)


class Mul(Function):
    """y = x · other, element by element;  ∂x = g · other, ∂other = g · x, summed as in Add"""

    def forward(self, x: Array, other: Array) -> Array:
        self.saved = x, other
        return x * other

    def backward(self, grad_output: Array) -> tuple[Array, Array]:
        x, other = self.saved
        return sum_to(grad_output * other, x.shape), sum_to(grad_output * x, other.shape)


class Div(Function):
    """y = x / other, element by element;  ∂x = g / other, ∂other = −g · x / other², summed as in Add"""

    def forward(self, x: Array, other: Array) -> Array:
        self.saved = x, other
        return x / other

    def backward(self, grad_output: Array) -> tuple[Array, Array]:
        x, other = self.saved
        grad_x = grad_output / other
        return sum_to(grad_x, x.shape), sum_to(-grad_x * x / other, other.shape)  # d(x/other)/d(other) = −x/other²


class Neg(Function):
    """y = −x;  ∂x = −g"""

    def forward(self, x: Array) -> Array:
        return -x

    def backward(self, grad_output: Array) -> Array:
        return -grad_output
