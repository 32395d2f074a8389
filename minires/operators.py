"""The one place where Tensor's operators meet their operations."""

from __future__ import annotations

from typing import Any

import numpy as np

from minires import functional as F
from minires._checks import axes, flag, real
from minires._shown import shown
from minires.arrays import Array, array_module, is_array, plain_array
from minires.autograd import backward
from minires.ops import Add, Mean, Mul, Neg, Slice, Sub, Sum
from minires.tensor import Tensor


def _operand(value: Any, other: Tensor) -> Tensor:
    """A Python number takes the other operand's dtype and device, an array stays as it is."""
    if isinstance(value, Tensor):
        return value
    if is_array(value):
        return Tensor(plain_array(value, "operand"))
    try:
        real(value, "operand")
    except TypeError:
        told = f"a Tensor can be combined with Tensors, arrays and numbers, not with {type(value).__name__}"
        raise TypeError(told) from None
    except OverflowError:
        raise ValueError("operand must fit a float, got a larger integer") from None
    return Tensor(array_module(other.data).asarray(value, other.dtype))


def _broadcast(name: str, a: Tensor, b: Tensor) -> None:
    try:
        np.broadcast_shapes(a.shape, b.shape)
    except ValueError:
        raise ValueError(f"{name}: shapes {a.shape} and {b.shape} cannot be broadcast together") from None
    if a.dtype != b.dtype:
        raise TypeError(f"{name}: operands have dtypes {a.dtype} and {b.dtype}; convert one of them")
    if a.dtype.kind != "f":
        raise TypeError(f"{name}: operands must have a floating dtype, got {a.dtype}")


def _binary(name: str, operation: type[Add] | type[Sub] | type[Mul], swapped: bool = False) -> Any:
    def method(self: Tensor, other: Any) -> Tensor:
        a, b = self, _operand(other, self)
        if swapped:
            a, b = b, a
        _broadcast(name, a, b)
        return operation()(a, b)

    return method


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
    return Sum(axes(axis, "axis", self.ndim), flag(keepdims, "keepdims"))(self)


def _mean(self: Tensor, axis: Any = None, keepdims: bool = False) -> Tensor:
    """Mean over `axis` (None: over all; an int or a tuple)."""
    summed = axes(axis, "axis", self.ndim)
    if self.dtype.kind != "f":
        raise TypeError(f"mean: the tensor must have a floating dtype, got {self.dtype}")
    if any(self.shape[i] == 0 for i in summed):
        raise ValueError(f"mean over an empty axis: axis {shown(axis)} of shape {self.shape}")
    return Mean(summed, flag(keepdims, "keepdims"))(self)


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
        "__neg__": _neg,
        "__getitem__": _getitem,
        "sum": _sum,
        "mean": _mean,
        "reshape": _reshape,
    }
    for name, method in methods.items():
        method.__name__ = name
        method.__qualname__ = f"Tensor.{name}"
        setattr(Tensor, name, method)
