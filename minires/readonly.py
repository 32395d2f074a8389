"""Arrays that a live tape depends on are read-only: writing into one fails at the line that does it.

Without this the write would pass, and backward would compute a wrong gradient from it, silently.  NumPy's arrays only:
CuPy's have no such flag.  A view is frozen together with the array that owns its memory; other views of that memory,
made before, are not.  An array over the memory of another framework is left alone: NumPy could not thaw it.

A `Frozen` stands for an array that owns its memory, and for the views of it that a tape needs.  The nodes that need
them share it, and CPython drops it with the last of these nodes.  Weak references then call `array.setflags`, a C
function: no line of Python runs that Ctrl-C, another thread or the garbage collector could interrupt, so no array stays
read-only without a tape.
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
    """The memory of one array, read-only while this object lives.

    holders   references to what holds it and can release it, beside tapes: captures (see `unpin`)
    """

    __slots__ = ("__weakref__", "holders")

    def __init__(self) -> None:
        self.holders: list[weakref.ref[Any]] = []


# id of an array that owns its memory -> references to its Frozen: one for each frozen view, last the owner's own.
# Their callbacks keep the arrays alive, so that no other array gets this id meanwhile.
_frozen: dict[int, list[weakref.ref[Frozen]]] = {}
_sweep_at = 1024  # entries
lock = threading.RLock()  # guards leaves' gradients too (autograd.py); reentrant: a collection may run an operation
if hasattr(os, "register_at_fork"):  # another thread's lock would stay locked in the child
    os.register_at_fork(before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release)


def freeze(saved: Any) -> list[Frozen]:
    """Makes the arrays in `saved` (nested tuples, lists and so on) read-only, until their last Frozen is dropped."""
    frozen: list[Frozen] = []
    with lock:
        _walk(saved, frozen)
        if len(_frozen) > _sweep_at:
            sweep()
    return frozen


def sweep() -> None:
    """Removes the entries of arrays that have been thawed: after each walk, and between tapes that are not walked."""
    global _sweep_at
    with lock:
        for key, references in list(_frozen.items()):  # a copy, because a signal's handler may come here meanwhile
            if references[-1]() is None and _frozen.get(key) is references:
                del _frozen[key]
        _sweep_at = 1024 + 2 * len(_frozen)


def pin(arrays: list[np.ndarray], holder: Any) -> list[Frozen]:
    """Makes arrays read-only for a holder whose method `unpinned` drops what is returned here."""
    frozen = freeze(arrays)
    for f in frozen:
        f.holders.append(weakref.ref(holder))
    return frozen


def unpin(array: Any) -> None:
    """Lets the array be written unless a tape depends on it: for what moves parameters and statistics in place."""
    if isinstance(array, np.ndarray) and not array.flags.writeable:
        found = _found(_owner(array))
        for reference in found.holders if found is not None else ():
            holder = reference()
            if holder is not None:
                holder.unpinned()


@contextmanager
def writable(array: np.ndarray) -> Iterator[None]:
    """Within it the array can be written although a tape depends on it: for code that restores what it changed."""
    owner = _owner(array)
    frozen = [a for a in (owner, array) if _found(owner) and not a.flags.writeable]  # NumPy demands this order
    for a in frozen:
        a.setflags(write=True)
    try:
        yield
    finally:
        for a in frozen:
            a.setflags(write=False)


def _walk(saved: Any, frozen: list[Frozen]) -> None:
    if isinstance(saved, np.ndarray):
        found = _freeze(saved)
        if found is not None:
            frozen.append(found)
    elif isinstance(saved, (tuple, list)):
        for part in saved:
            _walk(part, frozen)
    elif isinstance(saved, dict):
        _walk(tuple(saved.values()), frozen)


def _owner(array: np.ndarray) -> np.ndarray:
    return array.base if isinstance(array.base, np.ndarray) else array


def _found(owner: np.ndarray) -> Frozen | None:
    references = _frozen.get(id(owner))
    return references[-1]() if references else None


def _freeze(array: np.ndarray) -> Frozen | None:
    """None where the memory was read-only already, or where NumPy could not thaw it."""
    owner = _owner(array)
    found = _found(owner)
    if found is None:
        if not owner.flags.writeable or not _can_be_thawed(owner):
            return None
        found = Frozen()
        _frozen[id(owner)] = [_thaw(owner, found)]
        owner.setflags(write=False)
    if array is not owner and array.flags.writeable:
        # The newest reference is called first.  That must be the owner's: no view of read-only memory can be thawed.
        _frozen[id(owner)].insert(0, _thaw(array, found))
        _frozen[id(owner)][-1] = _thaw(owner, found)
        array.setflags(write=False)
    return found


def _thaw(array: np.ndarray, frozen: Frozen) -> weakref.ref[Frozen]:
    """Called with the dead reference, which setflags takes for its argument `write`: any object counts as true."""
    return weakref.ref(frozen, array.setflags)  # type: ignore[arg-type]


def _can_be_thawed(array: np.ndarray) -> bool:
    """Not so where the memory is a foreign object's, such as another framework's, that NumPy may not ask."""
    if array.base is None:
        return True
    try:
        array.setflags(write=True)  # as it is: but NumPy checks now what it would check then
    except ValueError:
        return False
    return True
