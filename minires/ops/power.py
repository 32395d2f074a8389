"""Powers."""

from __future__ import annotations

from minires.arrays import Array, array_module, as_array
from minires.autograd import Function
from minires.ops.add import sum_to


class Pow(Function):
    """a ** b, element by element

    A negative a to a fractional b is NaN.  The slope in a is 0 where b is 0, and the slope in b is 0 where a is 0 and
    b is not negative, both as limits of what surrounds them.
    """

    def forward(self, a: Array, b: Array) -> Array:
        y = as_array(a**b)
        self.saved = a, b, y
        return y

    def backward(self, grad_output: Array) -> tuple[Array | None, ...]:
        a, b, y = self.saved
        xp, one = array_module(y), y.dtype.type(1)
        wants_a, wants_b = self.needs_input_grad
        grad_a = grad_b = None
        if wants_a:  # b · a^(b−1)
            grad_a = sum_to(grad_output * b * xp.where(b == 0, one, a) ** (b - 1), a.shape)
        if wants_b:  # a^b · log a
            grad_b = sum_to(grad_output * y * xp.log(xp.where((a == 0) & (b >= 0), one, a)), b.shape)
        return grad_a, grad_b
