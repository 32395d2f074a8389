"""A lock on a run folder: one process trains in a folder at a time.

The operating system locks the file .lock in the folder and releases it when the process ends, even after a crash.  The
lock also excludes other threads of the process; a forked child doesn't inherit it.  A link, or a file with a second
name, is refused, because writing the process number would overwrite a file elsewhere.
Windows has no fcntl and therefore no lock.

The package filelock would not do: it keeps its file after release, names no holder and accepts a second hard link.
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

_descriptors: set[int] = set()  # of this process's locks


class RunFolderError(OSError):
    """An unusable run folder: another process trains in it, it is full, or it is not writable."""


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Locks the folder.  Raises RunFolderError when another run, of this process or another, holds the lock."""
    if fcntl is None:  # pragma: no cover
        yield
        return
    path = folder / NAME
    descriptor = _acquire(path)
    _descriptors.add(descriptor)
    try:
        with contextlib.suppress(OSError):  # the next write to the folder reports a full disk
            os.ftruncate(descriptor, 0)
            os.write(descriptor, b"%d\n" % os.getpid())
        yield
    finally:
        if descriptor in _descriptors:  # not in a forked child that leaves this block
            with contextlib.suppress(OSError):
                path.unlink()  # before the release, so that a process that opened it earlier notices
            _descriptors.remove(descriptor)
            os.close(descriptor)


def _acquire(path: Path) -> int:
    """A descriptor of the lock file, locked.  Programs that this process starts don't inherit it."""
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
        except OSError as error:
            if path.is_symlink() or error.errno == errno.ENXIO:  # a socket, or a FIFO
                raise _foreign(path) from None
            raise RunFolderError(f"nothing can be written in {path.parent}: {error.strerror}") from None
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
                raise _foreign(path)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.read(descriptor, 32).decode(errors="replace").strip()
                raise RunFolderError(f"{path.parent} is in use: {_process(holder)} trains in it") from None
            except OSError as error:
                raise RunFolderError(f"{path.parent} cannot be locked: {error.strerror}") from None
            if os.fstat(descriptor).st_nlink:  # 0: the previous holder has just released and removed the file
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _foreign(path: Path) -> RunFolderError:
    return RunFolderError(f"{path}: not the lock file of a run, but a link or no regular file; remove it")


def _process(holder: str) -> str:
    if holder == str(os.getpid()):
        return f"this very process ({holder})"
    return f"process {holder}" if holder.isdigit() else "another process"


def _close_in_child() -> None:
    """Closes a forked child's copies of the locks, which would outlive the parent's locks."""
    while _descriptors:
        with contextlib.suppress(OSError):
            os.close(_descriptors.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)
