"""Atomic writes that follow no link, and reads of regular files only.

A file is written under a temporary name and renamed, so a reader finds the old or the new content.  Neither step
follows a link at one of these names.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO


def write_bytes(path: Path, content: bytes | memoryview) -> None:
    """Replaces `path` atomically: after any failure there is the old file or the new one.

    Raises OSError that names `path`, for example if the disk is full; no other file is left behind.
    """
    if os.path.isdir(path):
        raise IsADirectoryError(errno.EISDIR, "a folder is in the place of the file", str(path))
    written = temporary(path)
    try:
        written.unlink(missing_ok=True)  # of a killed process, or a hostile link
        with open(written, "xb") as file:  # "x" follows no link
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # the content must reach the disk before the name
        os.replace(written, path)
        sync_folder(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            written.unlink()
        if isinstance(error, OSError):
            raise OSError(error.errno, error.strerror, str(path)) from error  # the original lacks the name
        raise


def temporary(path: Path) -> Path:
    """The temporary name of a file that is being written."""
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def write_text(path: Path, text: str) -> None:
    """`write_bytes` of UTF-8."""
    write_bytes(path, text.encode())


class NotRegularError(OSError):
    """A FIFO, a socket, a device or a folder in place of a file."""


def open_regular(path: Path) -> BinaryIO:
    """Opens a regular file, or a link to one, for reading.

    Raises OSError; NotRegularError for other kinds of files, because a FIFO blocks and a device may be endless.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        kinds = ((stat.S_ISDIR, "folder"), (stat.S_ISFIFO, "FIFO"), (stat.S_ISSOCK, "socket"))
        kind = next((name for test, name in kinds if test(mode)), "device")
        raise NotRegularError(errno.EINVAL, f"is a {kind}, not a regular file", str(path))
    return os.fdopen(descriptor, "rb")


def read_bytes(path: Path, limit: int) -> bytes:
    """The content of a regular file.  Raises as `open_regular`, and ValueError for more than `limit` bytes."""
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise ValueError(f"the file has {size:,} bytes; at most {limit:,} are read")
        return file.read(size)


def make_folder(path: Path) -> None:
    """Makes a folder and its missing parents; their names survive a power failure."""
    missing = [folder for folder in path.parents if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in (path, *missing):
        sync_folder(folder.parent)


def refuse_link(folder: Path) -> None:
    """Raises OSError if a link is in place of the folder, because files would be written elsewhere."""
    if folder.is_symlink():
        raise OSError(errno.ELOOP, f"{folder} is a link; replace it by a folder", str(folder))


def sweep(folder: Path, *patterns: str) -> None:
    """Removes the temporary files of killed processes, for files of such names."""
    for pattern in patterns:
        for file in folder.glob(f".{pattern}.*.tmp"):
            file.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder survive a power failure, where the system supports that."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except PermissionError:  # an unreadable folder cannot be synced
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EBADF, errno.ENOTSUP):  # file systems without fsync of folders
            raise
    finally:
        os.close(descriptor)
