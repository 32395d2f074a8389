"""Elementary functions, element by element."""

from __future__ import annotations

from minires.arrays import Array, array_module, as_array
from minires.autograd import Function


class Exp(Function):
    """y = e^x;  ∂x = g · y"""

    def forward(self, x: Array) -> Array:
        self.saved = y = as_array(array_module(x).exp(x))
        return y

    def backward(self, grad_output: Array) -> Array:
        return grad_output * self.saved


class Log(Function):
    """y = log x, the natural logarithm;  ∂x = g / x"""

    def forward(self, x: Array) -> Array:
        self.saved = x
        return array_module(x).log(x)

    def backward(self, grad_output: Array) -> Array:
        return grad_output / self.saved


class Sqrt(Function):
    """y = √x;  ∂x = g / (2·y), infinite at 0"""

    def forward(self, x: Array) -> Array:
        self.saved = y = as_array(array_module(x).sqrt(x))
        return y

    def backward(self, grad_output: Array) -> Array:
        return grad_output / (2 * self.saved)


class Tanh(Function):
    """y = (e^x − e^−x) / (e^x + e^−x);  ∂x = g · (1 − y²)"""

    def forward(self, x: Array) -> Array:
        self.saved = y = as_array(array_module(x).tanh(x))
        return y

    def backward(self, grad_output: Array) -> Array:
        return grad_output * (1 - self.saved * self.saved)


class Sigmoid(Function):
    """y = 1 / (1 + e^−x);  ∂x = g · y · (1 − y)"""

    def forward(self, x: Array) -> Array:
        xp, one = array_module(x), x.dtype.type(1)
        e = xp.exp(-abs(x))  # at most 1, so that nothing overflows
        self.saved = y = as_array(xp.where(x >= 0, one, e) / (one + e))
        return y

    def backward(self, grad_output: Array) -> Array:
        return grad_output * self.saved * (1 - self.saved)
