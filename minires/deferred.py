"""Deferred: an array that a backend has promised and computes when it is wanted, perhaps together with what follows."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np

from minires import _guard


class Deferred:
    """What a backend may answer with instead of an array: it knows its shape and dtype, and computes itself once.

    needs    what it will be computed from.  NumPy arrays among them are read-only until then (or until nobody wants the
             result any more), so that writing into one fails instead of changing the result.  Two limits: a view that
             is taken of such an array meanwhile stays read-only, and writing through a view that was taken before is
             not noticed.
    origin   for errors: the operation that it is the result of

    A subclass defines `compute() -> array`; what else it can do lets the next operation join in: `plus`, a sum.  The
    engine passes a Deferred only to an operation that declares so (`Function.takes_deferred`), and to nobody else ever:
    `Tensor.data` is an array.
    """

    __array_ufunc__ = None  # `array + deferred` asks the deferred

    def __init__(self, shape: tuple[int, ...], dtype: Any, needs: tuple[Any, ...]) -> None:
        self.shape = shape
        self.dtype = np.dtype(dtype)
        self.needs = needs
        self.origin = ""
        self._held = _guard.hold(needs)
        self._array: np.ndarray | None = None
        self._dependents: list[weakref.ref[Deferred]] = []
        for part in needs:
            if isinstance(part, Deferred):
                part._dependents.append(weakref.ref(self))

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
            for dependent in [reference() for reference in self._dependents]:
                resolved(dependent)  # while this one is not yet an array that somebody could write into
        if self._array is None:
            try:
                self._array = self.compute()
            except Exception as error:
                error.add_note(self.origin)
                raise
            self.let_go()
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

    def let_go(self) -> None:
        """Makes what it is computed from writable again."""
        held, self._held = self._held, []
        if held:
            _guard.let_go(held)

    def __del__(self) -> None:
        if getattr(self, "_held", None):
            self.let_go()


def array_if_computed(value: Any) -> Any:
    """The array of a Deferred, None while it waits; anything else as it is."""
    return value._array if isinstance(value, Deferred) else value


def resolved(value: Any) -> Any:
    """A Deferred as the array it stands for; anything else as it is."""
    return value.array() if isinstance(value, Deferred) else value
