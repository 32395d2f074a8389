"""Arrays that a live tape depends on are read-only: writing into one fails at the line that does it.

Without this the write would pass, and backward would compute a wrong gradient from it, silently.  NumPy's arrays only:
CuPy's have no such flag.  A view is frozen together with the array that owns its memory; other views of that memory,
made before, are not.  An array over the memory of another framework is left alone: NumPy could not thaw it.

A `Frozen` stands for one read-only array.  The nodes that need the array share it, and CPython drops it with the last
of them.  A weak reference then calls `array.setflags`, a C function: no line of Python runs that Ctrl-C, another thread
or the garbage collector could interrupt, so no array stays read-only without a tape.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

REMEDY = (
    "a tape that has not been walked depends on it: compute under no_grad(), or delete what was computed from it "
    "(a loss, or the traceback of the last error: sys.last_exc = sys.last_value = sys.last_traceback = None)"
)


class Frozen:
    """One array, read-only while this object lives.  Its views are thawed after it: NumPy demands that order."""

    __slots__ = ("__weakref__", "views")

    def __init__(self) -> None:
        self.views: set[Frozen] = set()


# id of an array -> its Frozen; the reference keeps the array alive, so that no other array gets this id meanwhile
_frozen: dict[int, weakref.ref[Frozen]] = {}
_sweep_at = 1024  # entries, dead ones included
_lock = threading.RLock()  # reentrant: the garbage collector may run code that calls an operation
if hasattr(os, "register_at_fork"):  # another thread's lock would stay locked in the child
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)


def freeze(saved: Any) -> list[Frozen]:
    """Makes the arrays in `saved` (nested tuples) read-only; each is writable again when its last Frozen is dropped."""
    frozen: list[Frozen] = []
    with _lock:
        _walk(saved, frozen)
        if len(_frozen) > _sweep_at:
            _sweep()
    return frozen


@contextmanager
def writable(array: np.ndarray) -> Iterator[None]:
    """Within it the array can be written although a tape depends on it: for code that restores what it changed."""
    frozen = [a for a in (array.base, array) if isinstance(a, np.ndarray) and _found(a)]  # the owner first
    for a in frozen:
        a.setflags(write=True)
    try:
        yield
    finally:
        for a in frozen:
            a.setflags(write=False)


def _walk(saved: Any, frozen: list[Frozen]) -> None:
    if isinstance(saved, np.ndarray):
        owner = saved.base
        if not isinstance(owner, np.ndarray):
            frozen += filter(None, [_freeze(saved)])
        elif owned := _freeze(owner):  # else the view could not be thawed either
            view = _freeze(saved)
            owned.views |= {view} if view else set()
            frozen += filter(None, [owned, view])
    elif isinstance(saved, tuple):
        for part in saved:
            _walk(part, frozen)


def _found(array: np.ndarray) -> Frozen | None:
    reference = _frozen.get(id(array))
    return reference() if reference else None


def _freeze(array: np.ndarray) -> Frozen | None:
    """None for an array that was read-only already, or that NumPy could not thaw."""
    found = _found(array)
    if found is None and array.flags.writeable and _can_be_thawed(array):
        found = Frozen()
        # Called with the dead reference, which setflags takes for its argument `write`: any object counts as true.
        _frozen[id(array)] = weakref.ref(found, array.setflags)  # type: ignore[arg-type]
        array.setflags(write=False)
    return found


def _can_be_thawed(array: np.ndarray) -> bool:
    """Not so where the memory is a foreign object's, such as another framework's, that NumPy may not ask."""
    if array.base is None or isinstance(array.base, np.ndarray):
        return True
    try:
        array.setflags(write=True)  # as it is: but NumPy checks now what it would check then
    except ValueError:
        return False
    return True


def _sweep() -> None:
    """Removes the entries of arrays that were thawed."""
    global _frozen, _sweep_at
    _frozen = {key: reference for key, reference in list(_frozen.items()) if reference() is not None}
    _sweep_at = max(1024, 2 * len(_frozen))
