"""The one door to the disk: whole files, never through a link, and no reading from a device.

A file is written under a temporary name and renamed, so that a reader finds the old content or the new one.  Neither
step follows a link that stands at one of these names.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO


def write_bytes(path: Path, content: bytes | memoryview) -> None:
    """Replaces `path` by a file of this content; whatever goes wrong on the way, there is the old file or the new one.

    Raises OSError that names `path`, such as of a full disk, with nothing else left behind.
    """
    if os.path.isdir(path):
        raise IsADirectoryError(errno.EISDIR, "a folder is in the place of the file", str(path))
    written = temporary(path)
    try:
        written.unlink(missing_ok=True)  # left by a killed process, or a link planted there
        with open(written, "xb") as file:  # creates the file itself
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # the bytes are on the disk before the name is
        os.replace(written, path)
        sync_folder(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            written.unlink()
        if isinstance(error, OSError):
            raise OSError(error.errno, error.strerror, str(path)) from error  # a failed write knows no name
        raise


def temporary(path: Path) -> Path:
    """The name under which a file is written, before it gets its own."""
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def write_text(path: Path, text: str) -> None:
    """`write_bytes` of UTF-8."""
    write_bytes(path, text.encode())


class NotRegularError(OSError):
    """A FIFO, a socket, a device or a folder in the place of a file."""


def open_regular(path: Path) -> BinaryIO:
    """A file open for reading, or the file that a link leads to.

    Raises OSError, which is NotRegularError for what is no regular file: a FIFO would wait for a writer, a device may
    have no end.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        kinds = ((stat.S_ISDIR, "folder"), (stat.S_ISFIFO, "FIFO"), (stat.S_ISSOCK, "socket"))
        kind = next((name for test, name in kinds if test(mode)), "device")
        raise NotRegularError(errno.EINVAL, f"is a {kind}, not a regular file", str(path))
    return os.fdopen(descriptor, "rb")


def read_bytes(path: Path, most: int) -> bytes:
    """The content of a regular file.  Raises what `open_regular` does, and ValueError for more than `most` bytes."""
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise ValueError(f"the file has {size:,} bytes; at most {most:,} are read")
        return file.read(size)


def make_folder(path: Path) -> None:
    """Makes a folder, and those above it that are missing, so that they last as what is written into them does."""
    missing = [folder for folder in path.parents if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in (path, *missing):
        sync_folder(folder.parent)


def refuse_link(folder: Path) -> None:
    """Raises OSError where a link stands in the place of a folder: what is written into it would end up elsewhere."""
    if folder.is_symlink():
        raise OSError(errno.ELOOP, f"{folder} is a link; replace it by a folder", str(folder))


def sweep(folder: Path, *patterns: str) -> None:
    """Removes what was left behind where a process was killed while it wrote files of such names."""
    for pattern in patterns:
        for file in folder.glob(f".{pattern}.*.tmp"):
            file.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder last through a power failure, where the system can do that."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except PermissionError:  # what may not be read cannot be synced
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EBADF, errno.ENOTSUP):  # of file systems that have no such thing
            raise
    finally:
        os.close(descriptor)
