"""A run folder belongs to one process at a time.

The lock is the operating system's, on the file .lock in the folder: it ends with the process, however that ends, so
nothing is ever stale.  It holds between the threads of a process too, and a child made by fork does not keep it.
A link, or a file with a second name, is refused: the owner's number would overwrite a file elsewhere.
Windows has no such lock (no fcntl): there, two processes in one run folder do not notice each other.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # pragma: no cover
    fcntl = None  # type: ignore[assignment]

NAME = ".lock"

_held: set[int] = set()  # file descriptors


class RunFolderError(OSError):
    """A run folder that cannot be used: another process trains in it, or it is full or cannot be written."""


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Within it the folder is this run's alone.

    Raises RunFolderError when another run, of this process or another, has it.
    """
    if fcntl is None:  # pragma: no cover
        yield
        return
    path = folder / NAME
    descriptor = _acquire(path)
    _held.add(descriptor)
    try:
        with contextlib.suppress(OSError):  # a full disk is told of where it matters
            os.ftruncate(descriptor, 0)
            os.write(descriptor, b"%d\n" % os.getpid())
        yield
    finally:
        if descriptor in _held:  # not in a forked child that leaves this block
            with contextlib.suppress(OSError):
                path.unlink()  # while it is still locked: who opened it before sees that it is gone
            _held.remove(descriptor)
            os.close(descriptor)


def _acquire(path: Path) -> int:
    """A descriptor of the lock file, locked."""
    while True:
        try:
            # Programs that this one starts do not inherit it.
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
        except OSError as error:
            if path.is_symlink() or error.errno == errno.ENXIO:  # a socket, or a FIFO
                raise _foreign(path) from None
            raise RunFolderError(f"nothing can be written in {path.parent}: {error.strerror}") from None
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
            os.close(descriptor)
            raise _foreign(path)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(descriptor).st_nlink:  # else its owner ended just now, and took the file along
                return descriptor
        except BlockingIOError:
            holder = os.read(descriptor, 32).decode(errors="replace").strip()
            os.close(descriptor)
            raise RunFolderError(f"{path.parent} is in use: {_named(holder)} trains in it") from None
        except OSError as error:
            os.close(descriptor)
            raise RunFolderError(f"{path.parent} cannot be locked: {error.strerror}") from None
        os.close(descriptor)


def _foreign(path: Path) -> RunFolderError:
    return RunFolderError(f"{path}: not the lock file of a run, but a link or no regular file; remove it")


def _named(holder: str) -> str:
    if holder == str(os.getpid()):
        return f"this very process ({holder})"
    return f"process {holder}" if holder.isdigit() else "another process"


def _leave_to_parent() -> None:
    """What a forked child has of the lock would outlive its parent."""
    for descriptor in _held:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)
