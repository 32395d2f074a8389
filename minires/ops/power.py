"""Powers."""

from __future__ import annotations

from minires.arrays import Array, array_module, as_array
from minires.autograd import Function
from minires.ops.add import sum_to


class Pow(Function):
    """y = x ** other, element by element;  ∂x = g · other · x^(other−1),  ∂other = g · y · log x, summed as in Add

    A negative x to a fractional power is NaN.  The slope in x is 0 where other is 0, and the slope in other is 0 where
    x is 0 and other is not negative, both as limits of what surrounds them.
    """

    def forward(self, x: Array, other: Array) -> Array:
        y = as_array(x**other)
        self.saved = x, other, y
        return y

    def backward(self, grad_output: Array) -> tuple[Array | None, ...]:
        x, other, y = self.saved
        xp, one = array_module(y), y.dtype.type(1)
        wants_x, wants_other = self.needs_input_grad
        grad_x = grad_other = None
        if wants_x:  # other · x^(other−1)
            grad_x = sum_to(grad_output * other * xp.where(other == 0, one, x) ** (other - 1), x.shape)
        if wants_other:  # x^other · log x
            grad_other = sum_to(grad_output * y * xp.log(xp.where((x == 0) & (other >= 0), one, x)), other.shape)
        return grad_x, grad_other
