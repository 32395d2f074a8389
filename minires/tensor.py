"""Tensor: an array, its gradient, and the tape node that made it."""

from __future__ import annotations

from collections.abc import Iterator
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import numpy as np

from minires._checks import flag
from minires.arrays import Array, is_array, on_cpu, plain_array
from minires.statistics import Statistics, html_table

if TYPE_CHECKING:
    from minires.autograd import Function

FLOATS = np.dtype(np.float32), np.dtype(np.float64)  # what operations take: sums of squares leave float16
SHOWN = 6  # values of a large tensor in its repr


class Tensor:
    """An array that can be differentiated.

    data            the plain array (NumPy or CuPy), any shape, any strides
    grad            d(output)/d(data) after `output.backward()`: a plain array like `data`, or None; only leaves get one
    requires_grad   whether gradients are wanted; true for whatever is computed from such a tensor
    node            the `Function` that made this tensor; None for a leaf
    """

    __slots__ = ("__weakref__", "_data", "grad", "node", "requires_grad")
    __array_ufunc__ = None  # `array + tensor` asks the tensor
    __hash__ = object.__hash__  # by identity, though == compares elements: the tape keeps leaves in dictionaries

    def __init__(self, data: Array, requires_grad: bool = False, node: Function | None = None) -> None:
        self.data = data
        self.grad: Array | None = None
        self.requires_grad = requires_grad
        self.node = node

    def _set_data(self, array: Array) -> None:
        self._data = array if type(array) is np.ndarray else plain_array(array, "data")

    # `attrgetter` runs no line of Python: a debugger that steps does not stop in it.
    data = property(attrgetter("_data"), _set_data)
    shape: tuple[int, ...] = property(attrgetter("_data.shape"))  # type: ignore[assignment]
    ndim: int = property(attrgetter("_data.ndim"))  # type: ignore[assignment]
    size: int = property(attrgetter("_data.size"))  # type: ignore[assignment]
    dtype: np.dtype[Any] = property(attrgetter("_data.dtype"))  # type: ignore[assignment]

    @property
    def is_leaf(self) -> bool:
        return self.node is None

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("a tensor of shape () has no length")
        return self.shape[0]

    def __bool__(self) -> bool:
        if self.size != 1:
            raise ValueError(f"only a tensor of one element is true or false, this one has shape {self.shape}")
        return bool(self.data)

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __format__(self, spec: str) -> str:
        """Of one element, as the number is formatted: f"{loss:.3f}"."""
        return format(self.item(), spec) if spec and self.size == 1 else format(repr(self), spec)

    def __iter__(self) -> Iterator[Tensor]:
        """Along the first axis; each part is differentiable."""
        if not self.shape:
            raise TypeError("a tensor of shape () has no axis to iterate over")
        return (self[i] for i in range(len(self)))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        """The values, for NumPy and whatever takes arrays: np.asarray(x), plt.plot(x).

        Raises TypeError for a tensor that requires a gradient, which would be lost on the way, and on the GPU, where
        CuPy refuses a copy that was not asked for.
        """
        if self.requires_grad:
            raise TypeError(
                "a tensor that requires a gradient is not converted to an array, which would lose the gradient; "
                "write x.data, or x.detach() for a tensor without history"
            )
        return np.array(self.data, dtype, copy=copy)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        """np.stack, np.shape and others take the values; TypeError where NumPy would call a method of the tensor."""
        if (name := function.__name__.removeprefix("a")) in ("sum", "mean", "max", "reshape"):  # np.amax is np.max
            raise TypeError(f"np.{name} takes no tensor: write tensor.{name}(...) or np.{name}(tensor.data, ...)")
        return function._implementation(*args, **kwargs)

    def __repr__(self) -> str:
        """All values of a small tensor, the first ones of a large tensor: debuggers call this at every stop."""
        origin = f", node={self.node!r}" if self.node else ", requires_grad=True" if self.requires_grad else ""
        small = self.size <= 20
        part = self if small else Tensor(self.data[(0,) * (self.ndim - 1)][:SHOWN])
        text = np.array2string(part.numpy(), separator=", ", prefix="tensor(")
        text = text if small else f"first row {text[:-1]}, ...]"
        return f"tensor({text}, shape={self.shape}, dtype={self.dtype}{origin})"

    def _repr_html_(self) -> str:
        rows = [("data", Statistics.of(self.data))]
        rows += [("grad", Statistics.of(self.grad))] if self.grad is not None else []
        return html_table(rows, f"tensor made by {self.node!r}" if self.node else "tensor, a leaf")

    def item(self) -> float:
        """The only element as a Python number."""
        if self.size != 1:
            raise ValueError(f"item() needs a tensor of one element, this one has shape {self.shape}")
        return self.data.item()

    def numpy(self) -> Array:
        """The values as a NumPy array: the array itself on the CPU, a copy from the GPU."""
        return on_cpu(self.data)

    def detach(self) -> Tensor:
        """The same array without its history."""
        return Tensor(self.data)

    def zero_grad(self) -> None:
        """Forgets the gradient."""
        self.grad = None

    if TYPE_CHECKING:  # bound to their operations in minires/operators.py

        def backward(self, grad_output: Any = None) -> None: ...
        def __add__(self, other: Any) -> Tensor: ...
        def __radd__(self, other: Any) -> Tensor: ...
        def __sub__(self, other: Any) -> Tensor: ...
        def __rsub__(self, other: Any) -> Tensor: ...
        def __mul__(self, other: Any) -> Tensor: ...
        def __rmul__(self, other: Any) -> Tensor: ...
        def __truediv__(self, other: Any) -> Tensor: ...
        def __rtruediv__(self, other: Any) -> Tensor: ...
        def __pow__(self, other: Any) -> Tensor: ...
        def __rpow__(self, other: Any) -> Tensor: ...
        def __matmul__(self, other: Any) -> Tensor: ...
        def __rmatmul__(self, other: Any) -> Tensor: ...
        def __neg__(self) -> Tensor: ...
        def __lt__(self, other: Any) -> Tensor: ...
        def __le__(self, other: Any) -> Tensor: ...
        def __gt__(self, other: Any) -> Tensor: ...
        def __ge__(self, other: Any) -> Tensor: ...
        def __eq__(self, other: Any) -> Tensor: ...  # type: ignore[override]
        def __ne__(self, other: Any) -> Tensor: ...  # type: ignore[override]
        def __getitem__(self, index: Any) -> Tensor: ...
        def sum(self, axis: Any = None, keepdims: bool = False) -> Tensor: ...
        def mean(self, axis: Any = None, keepdims: bool = False) -> Tensor: ...
        def max(self, axis: Any = None, keepdims: bool = False) -> Tensor: ...
        def reshape(self, *shape: Any) -> Tensor: ...
        def transpose(self, *axes: Any) -> Tensor: ...
        def exp(self) -> Tensor: ...
        def log(self) -> Tensor: ...
        def sqrt(self) -> Tensor: ...
        def tanh(self) -> Tensor: ...
        def sigmoid(self) -> Tensor: ...
        @property
        def T(self) -> Tensor: ...


def tensor(array: Any, requires_grad: bool = False) -> Tensor:
    """A leaf Tensor around `array`.

    A floating NumPy or CuPy array is taken as it is, not copied, and keeps its dtype; integer and boolean arrays keep
    their dtype too, but cannot require a gradient.  Python numbers and nested lists become float32.
    """
    requires_grad = flag(requires_grad, "requires_grad")
    if isinstance(array, Tensor):
        array = array.data
    if not is_array(array) and not isinstance(array, np.generic):
        try:
            array = np.asarray(array)
        except ValueError as error:
            raise ValueError(f"array cannot be made from this nested list: {error}") from None
        if array.dtype.kind in "fiub":
            array = array.astype(np.float32)
    array = plain_array(np.asarray(array) if isinstance(array, np.generic) else array, "array")
    if array.dtype.kind not in "fiub":
        raise TypeError(f"array must hold real numbers, got dtype {array.dtype}")
    if requires_grad and array.dtype.kind != "f":
        raise TypeError(f"only a floating array can require a gradient, got dtype {array.dtype}")
    return Tensor(array, requires_grad=requires_grad)


def as_tensor(
    value: Any,
    argument: str,
    ndim: int | None = None,
    shape: str = "",
    *,
    like: Tensor | None = None,
    integers: bool = False,
) -> Tensor:
    """`value` as a floating Tensor, for an operation's argument.

    shape      what is expected, for the error
    like       the Tensor x, whose dtype it must have
    integers   whether an operation without a gradient takes these too
    """
    usual = isinstance(value, Tensor) and value.dtype in FLOATS and ndim in (None, value.ndim)
    if usual and (like is None or value.dtype is like.dtype):
        return value  # few lines for a debugger that steps
    if not isinstance(value, Tensor):
        value = Tensor(plain_array(value, argument, "a Tensor or an array"))
    if value.dtype not in FLOATS and not (integers and value.dtype.kind in "iu" and value.dtype.isnative):
        raise TypeError(f"{argument} must have dtype float32 or float64, got {value.dtype}")
    if ndim is not None and value.ndim != ndim:
        raise ValueError(f"{argument} must be {shape or f'{ndim}-dimensional'}, got shape {value.shape}")
    if like is not None and value.dtype != like.dtype:
        raise TypeError(f"{argument} must have x's dtype {like.dtype}, got {value.dtype}; convert one of them")
    return value
