"""The one place where Tensor's operators meet their operations."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from minires import _checks
from minires import functional as F
from minires._checks import flag, real
from minires._repr import shown
from minires.arrays import Array, array_module, as_array, is_array, plain_array
from minires.autograd import Function, backward
from minires.ops import Add, Div, Max, Mean, Mul, Neg, Pow, Slice, Sub, Sum, Transpose
from minires.tensor import Tensor, as_tensor


def _operand(value: Any, other: Tensor) -> Tensor:
    """A Python number takes the other operand's dtype and device, an array stays as it is."""
    if isinstance(value, Tensor):
        return value
    if is_array(value):
        return Tensor(plain_array(value, "operand"))
    _number(value)
    return Tensor(array_module(other.data).asarray(value, other.dtype))


def _number(value: Any) -> None:
    try:
        real(value, "operand")
    except TypeError:
        message = f"a Tensor can be combined with Tensors, arrays and numbers, not with {type(value).__name__}"
        raise TypeError(message) from None
    except OverflowError:
        raise ValueError("operand must fit a float, got a larger integer") from None


def _counted(mask: Tensor, other: Tensor) -> Tensor:
    """A boolean operand as zeros and ones of the other operand's dtype; any other operand unchanged."""
    return Tensor(mask.data.astype(other.dtype)) if mask.dtype == bool and other.dtype.kind == "f" else mask


def _check_shapes(name: str, a: tuple[int, ...], b: tuple[int, ...]) -> None:
    try:
        np.broadcast_shapes(a, b)
    except ValueError:
        raise ValueError(f"{name}: shapes {a} and {b} cannot be broadcast together") from None


def _broadcast(name: str, a: Tensor, b: Tensor) -> None:
    _check_shapes(name, a.shape, b.shape)
    if a.dtype != b.dtype:
        raise TypeError(f"{name}: operands have dtypes {a.dtype} and {b.dtype}; convert one of them")
    if a.dtype.kind != "f":
        raise TypeError(f"{name}: operands must have a floating dtype, got {a.dtype}")


def _binary(name: str, operation: type[Function], swapped: bool = False) -> Any:
    def method(self: Tensor, other: Any) -> Tensor:
        b = _operand(other, self)
        a, b = _counted(self, b), _counted(b, self)
        if swapped:
            a, b = b, a
        _broadcast(name, a, b)
        return operation()(a, b)

    return method


def _comparison(name: str, compare: Callable[[Any, Any], Any]) -> Any:
    """A boolean Tensor, without a gradient.  Operands of two dtypes are compared as NumPy does."""

    def method(self: Tensor, other: Any) -> Tensor:
        value = other.data if isinstance(other, Tensor) else other
        if is_array(value):
            plain_array(value, "operand")
            if value.dtype.kind not in "fiub":
                raise TypeError(f"{name}: operand must hold real numbers, got dtype {value.dtype}")
            _check_shapes(name, self.shape, value.shape)
        elif not isinstance(value, (bool, np.bool_)):
            _number(value)
        return Tensor(as_array(compare(self.data, value)))

    return method


def _equality(name: str, compare: Callable[[Any, Any], Any]) -> Any:
    """As `_comparison`; what is neither tensor, array nor number is unequal, as everywhere in Python."""
    comparison = _comparison(name, compare)

    def method(self: Tensor, other: Any) -> Any:
        known = isinstance(other, (Tensor, float, int, np.generic)) or is_array(other)
        return comparison(self, other) if known else NotImplemented

    return method


def _matmul(self: Tensor, other: Any) -> Tensor:
    return F.matmul(self, as_tensor(_operand(other, self), "operand"))


def _rmatmul(self: Tensor, other: Any) -> Tensor:
    return F.matmul(as_tensor(_operand(other, self), "operand"), self)


def _neg(self: Tensor) -> Tensor:
    return Neg()(self)


def _getitem(self: Tensor, index: Any) -> Tensor:
    parts = index if isinstance(index, tuple) else (index,)
    for part in parts:
        if isinstance(part, (bool, np.bool_)) or not (
            part is None or part is Ellipsis or isinstance(part, (int, np.integer, slice))
        ):
            raise TypeError(f"index must be made of integers, slices, None and Ellipsis, got {shown(part)}")
    try:
        return Slice(index)(self)
    except OverflowError:
        raise IndexError(f"index {shown(index)} does not fit shape {self.shape}") from None
    except (IndexError, TypeError, ValueError) as error:
        raise type(error)(f"index {shown(index)} does not fit shape {self.shape}: {error}") from None


def _sum(self: Tensor, axis: Any = None, keepdims: bool = False) -> Tensor:
    """Σ over `axis` (None: over all; an int or a tuple)."""
    return Sum(_checks.axes(axis, "axis", self.ndim), flag(keepdims, "keepdims"))(self)


def _mean(self: Tensor, axis: Any = None, keepdims: bool = False) -> Tensor:
    """Mean over `axis` (None: over all; an int or a tuple)."""
    summed = _checks.axes(axis, "axis", self.ndim)
    if self.dtype.kind != "f":
        raise TypeError(f"mean: the tensor must have a floating dtype, got {self.dtype}")
    if any(self.shape[i] == 0 for i in summed):
        raise ValueError(f"mean over an empty axis: axis {shown(axis)} of shape {self.shape}")
    return Mean(summed, flag(keepdims, "keepdims"))(self)


def _max(self: Tensor, axis: Any = None, keepdims: bool = False) -> Tensor:
    """Maximum over `axis` (None: over all; an int or a tuple); equal maxima share the gradient, as PyTorch's amax."""
    over = _checks.axes(axis, "axis", self.ndim)
    if any(self.shape[i] == 0 for i in over):
        raise ValueError(f"max over an empty axis: axis {shown(axis)} of shape {self.shape}")
    return Max(over, flag(keepdims, "keepdims"))(self)


def _transpose(self: Tensor, *axes: Any) -> Tensor:
    """The axes in another order, as in NumPy (PyTorch's permute): x.transpose(0, 2, 1); without any, backwards."""
    order = axes[0] if len(axes) == 1 and (axes[0] is None or isinstance(axes[0], (tuple, list))) else axes
    if order is None or not axes:
        return Transpose(tuple(reversed(range(self.ndim))))(self)
    if len(order) != self.ndim:
        raise ValueError(f"axes must name each of the {self.ndim} axes once, got {shown(order)}")
    return Transpose(_checks.axes(order, "axes", self.ndim))(self)


def _elementwise(function: Callable[[Tensor], Tensor]) -> Any:
    def method(self: Tensor) -> Tensor:
        return function(self)

    method.__doc__ = function.__doc__
    return method


def _reshape(self: Tensor, *shape: Any) -> Tensor:
    """The same elements in another shape: x.reshape((2, -1)) or x.reshape(2, -1)."""
    return F.reshape(self, shape[0] if len(shape) == 1 else shape)


def _backward(self: Tensor, grad_output: Any = None) -> None:
    """Adds to the `.grad` of each leaf the gradient of sum(self · grad_output).

    grad_output   cotangent of this tensor's shape, an array or a Tensor; None only for a scalar, where it is 1.

    The tape is used up: its arrays are freed on the way, and a second call raises RuntimeError.
    """
    if not self.requires_grad:
        raise RuntimeError("backward() of a tensor that depends on no tensor with requires_grad=True")
    backward(self, _cotangent(self, grad_output))


def _cotangent(output: Tensor, grad_output: Any) -> Array:
    """An array of the output's shape, dtype and module."""
    xp = array_module(output.data)
    if grad_output is None:
        if output.size != 1:
            raise ValueError(f"grad_output may be left out for a scalar only; this tensor has shape {output.shape}")
        ones: Array = xp.ones_like(output.data)
        return ones
    cotangent = grad_output.data if isinstance(grad_output, Tensor) else grad_output
    if is_array(cotangent):
        plain_array(cotangent, "grad_output")
    else:
        try:
            cotangent = xp.asarray(cotangent)
        except ValueError as error:
            raise ValueError(f"grad_output cannot be made from this nested list: {error}") from None
    if cotangent.shape != output.shape:
        raise ValueError(f"grad_output must have the tensor's shape {output.shape}, got {cotangent.shape}")
    if cotangent.dtype.kind not in "fiu":
        raise TypeError(f"grad_output must hold real numbers, got dtype {cotangent.dtype}")
    if array_module(cotangent) is not xp:
        raise TypeError(f"grad_output is not an array of {xp.__name__}, which holds the tensor")
    array: Array = cotangent.astype(output.dtype, copy=False)
    return array


def bind() -> None:
    """Gives Tensor its operators."""
    methods = {
        "backward": _backward,
        "__add__": _binary("add", Add),
        "__radd__": _binary("add", Add, swapped=True),
        "__sub__": _binary("sub", Sub),
        "__rsub__": _binary("sub", Sub, swapped=True),
        "__mul__": _binary("mul", Mul),
        "__rmul__": _binary("mul", Mul, swapped=True),
        "__truediv__": _binary("div", Div),
        "__rtruediv__": _binary("div", Div, swapped=True),
        "__pow__": _binary("pow", Pow),
        "__rpow__": _binary("pow", Pow, swapped=True),
        "__matmul__": _matmul,
        "__rmatmul__": _rmatmul,
        "__neg__": _neg,
        **{f"__{name}__": _comparison(name, getattr(operator, name)) for name in ("lt", "le", "gt", "ge")},
        **{f"__{name}__": _equality(name, getattr(operator, name)) for name in ("eq", "ne")},
        "__getitem__": _getitem,
        "sum": _sum,
        "mean": _mean,
        "max": _max,
        "transpose": _transpose,
        **{function.__name__: _elementwise(function) for function in (F.exp, F.log, F.sqrt, F.tanh, F.sigmoid)},
        "reshape": _reshape,
    }
    for name, method in methods.items():
        method.__name__ = name
        method.__qualname__ = f"Tensor.{name}"
        setattr(Tensor, name, method)
    Tensor.T = property(_transpose, doc="The axes backwards: x.transpose().")  # type: ignore[assignment, method-assign]
