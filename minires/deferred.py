"""Deferred: an array that a backend has promised and computes when it is wanted, perhaps together with what follows."""

from __future__ import annotations

from typing import Any

import numpy as np

from minires import _guard


class Deferred:
    """What a backend may answer with instead of an array: it knows its shape and dtype, and computes itself once.

    needs   what it will be computed from.  NumPy arrays among them are read-only until then (or until nobody wants the
            result any more), so that writing into one fails instead of changing the result.

    A subclass defines `compute() -> array`; what else it can do lets the next operation join in: `plus`, a sum.  The
    engine passes a Deferred only to an operation that declares so (`Function.takes_deferred`), and to nobody else ever:
    `Tensor.data` is an array.
    """

    __array_ufunc__ = None  # `array + deferred` asks the deferred

    def __init__(self, shape: tuple[int, ...], dtype: Any, needs: tuple[Any, ...]) -> None:
        self.shape = shape
        self.dtype = np.dtype(dtype)
        self.needs = needs
        self._held = _guard.hold(needs)
        self._array: np.ndarray | None = None

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def waits(self) -> bool:
        """Whether it has not been computed yet: then another operation can still join in."""
        return self._array is None

    def array(self) -> np.ndarray:
        if self._array is None:
            self._array = self.compute()
            self._let_go()
            self.needs = ()
        return self._array

    def compute(self) -> np.ndarray:
        raise NotImplementedError

    def plus(self, other: np.ndarray) -> np.ndarray:
        """The sum with an array of the same shape."""
        total: np.ndarray = self.array() + other
        return total

    def __add__(self, other: Any) -> np.ndarray:
        other = resolved(other)  # which may be this very one: then it waits no longer
        total: np.ndarray = self.plus(other) if self.waits else self.array() + other
        return total

    __radd__ = __add__

    def __repr__(self) -> str:
        state = "to be computed" if self.waits else "computed"
        return f"<{type(self).__name__} of shape {self.shape}, {self.dtype}, {state}>"

    def _let_go(self) -> None:
        held, self._held = self._held, []
        if held:
            _guard.let_go(held)

    def __del__(self) -> None:
        if getattr(self, "_held", None):
            self._let_go()


def computed(value: Any) -> Any:
    """The array of a Deferred, None while it waits; anything else as it is."""
    return value._array if isinstance(value, Deferred) else value


def resolved(value: Any) -> Any:
    """A Deferred as the array it stands for; anything else as it is."""
    return value.array() if isinstance(value, Deferred) else value
