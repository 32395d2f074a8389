"""Arrays that a live tape depends on are read-only: writing into one fails at the line that does it.

Without this the write would pass, and backward would compute a wrong gradient from it, silently.  NumPy's arrays only:
CuPy's have no such flag.  An array that several nodes keep becomes writable when the last of them lets go.  A view is
guarded together with the array that owns its memory; other views of that memory, made before, are not.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass
class _Hold:
    """An array made read-only here, how many nodes want it so, and views that wait for it to become writable."""

    array: np.ndarray
    count: int = 1
    views: list[np.ndarray] = field(default_factory=list)


_holds: dict[int, _Hold] = {}
_lock = threading.Lock()
_dropped: deque[tuple[np.ndarray, ...]] = deque()


def hold(saved: Any) -> tuple[np.ndarray, ...]:
    """Makes the arrays in `saved` (nested tuples) read-only; returns those to `let_go` of later."""
    held: list[np.ndarray] = []
    arrays: list[np.ndarray] = []
    _collect(saved, arrays)
    with _lock:
        for array in arrays:
            if isinstance(array.base, np.ndarray):  # the owner first: the flag of a view depends on it
                _hold(array.base, held)
            _hold(array, held)
    _settle()
    return tuple(held)


def let_go(held: tuple[np.ndarray, ...]) -> None:
    """Makes them writable again, where no other node holds them.

    A node that nobody walked backward is let go of by the garbage collector, which may come in the middle of `hold` in
    this very thread: then it is left to that call.
    """
    _dropped.append(held)
    _settle()


def _settle() -> None:
    while _dropped and _lock.acquire(blocking=False):
        try:
            while _dropped:
                for array in _dropped.popleft():
                    _release(array)
        finally:
            _lock.release()


def _collect(saved: Any, arrays: list[np.ndarray]) -> None:
    if isinstance(saved, np.ndarray):
        arrays.append(saved)
    elif isinstance(saved, tuple):
        for part in saved:
            _collect(part, arrays)


def _hold(array: np.ndarray, held: list[np.ndarray]) -> None:
    hold = _holds.get(id(array))
    if hold is not None:
        hold.count += 1
    elif array.flags.writeable:
        array.flags.writeable = False
        _holds[id(array)] = _Hold(array)
    else:  # somebody else's decision, and not ours to undo
        return
    held.append(array)


def _release(array: np.ndarray) -> None:
    hold = _holds[id(array)]
    hold.count -= 1
    if hold.count:
        return
    del _holds[id(array)]
    owner = _holds.get(id(array.base))
    if owner is not None:  # NumPy refuses a writable view of a read-only array
        owner.views.append(array)
        return
    array.flags.writeable = True
    for view in hold.views:
        if id(view) not in _holds:
            view.flags.writeable = True
