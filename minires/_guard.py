"""Arrays that a live tape depends on are read-only: writing into one fails at the line that does it.

Without this the write would pass, and backward would compute a wrong gradient from it, silently.  NumPy's arrays only:
CuPy's have no such flag.  An array that several nodes keep becomes writable when the last of them lets go.  A view is
guarded together with the array that owns its memory; other views of that memory, made before, are not.  Nor is an array
over the memory of another framework, which NumPy could not make writable again.

This runs once for every node, so it is written for speed: a list where a class would read better.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

Held = list[np.ndarray]

# id of an array that was made read-only here -> [how many nodes hold it, views of it that wait to become writable]
_holds: dict[int, list[Any]] = {}
# Reentrant, because the garbage collector may come at any line, and let go of a tape that nobody walked backward in the
# very thread that is inside here: what it finds half done (`_busy`) it leaves to the caller below it (`_dropped`).
_lock = threading.RLock()
_busy = False
_dropped: deque[Held] = deque()
if hasattr(os, "register_at_fork"):  # another thread's lock would stay locked in the child
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)


def hold(saved: Any) -> Held:
    """Makes the arrays in `saved` (nested tuples) read-only; returns those to `let_go` of later."""
    global _busy
    held: Held = []
    with _lock:
        _busy = True
        try:
            _walk(saved, held)
        finally:
            _busy = False
            if _dropped:
                _settle()
    return held


def let_go(held: Held) -> None:
    """Makes them writable again, where no other node holds them, before it returns."""
    with _lock:
        _dropped.append(held)
        if not _busy:
            _settle()


def _settle() -> None:
    global _busy
    while _dropped:
        _busy = True
        try:
            for array in _dropped.popleft():
                _release(array)
        finally:
            _busy = False


@contextmanager
def lifted(array: np.ndarray) -> Iterator[None]:
    """Within it the array can be written though a tape holds it: for whoever puts back what they had changed."""
    held = [a for a in (array.base, array) if isinstance(a, np.ndarray) and id(a) in _holds]  # the owner first
    for a in held:
        a.setflags(write=True)
    try:
        yield
    finally:
        for a in held:
            a.setflags(write=False)


def _walk(saved: Any, held: Held) -> None:
    if isinstance(saved, np.ndarray):
        owner = saved.base
        if isinstance(owner, np.ndarray):  # the owner first: the flag of a view depends on it
            _hold(owner, held)
        _hold(saved, held)
    elif isinstance(saved, tuple):
        for part in saved:
            _walk(part, held)


def _hold(array: np.ndarray, held: Held) -> None:
    hold = _holds.get(id(array))
    if hold is not None:
        hold[0] += 1
    elif array.flags.writeable and _can_be_writable_again(array):
        array.setflags(write=False)
        _holds[id(array)] = [1, None]
    else:  # somebody else's decision, and not ours to undo
        return
    held.append(array)


def _can_be_writable_again(array: np.ndarray) -> bool:
    """Not so where the memory is a foreign object's, such as another framework's, that NumPy may not ask."""
    base = array.base
    if base is None or isinstance(base, np.ndarray):
        return True
    try:
        array.setflags(write=True)  # as it is: but NumPy checks now what it would check then
    except ValueError:
        return False
    return True


def _release(array: np.ndarray) -> None:
    hold = _holds[id(array)]
    if hold[0] > 1:
        hold[0] -= 1
        return
    del _holds[id(array)]
    if array.base is not None:
        owner = _holds.get(id(array.base))
        if owner is not None:  # NumPy refuses a writable view of a read-only array
            owner[1] = [*(owner[1] or ()), array]
            return
    array.setflags(write=True)
    if hold[1]:
        for view in hold[1]:
            if id(view) not in _holds:
                view.setflags(write=True)
