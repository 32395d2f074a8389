"""Writing a file so that it is there complete, or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path


def write_bytes(path: Path, content: bytes | memoryview) -> None:
    """Replaces `path` by a file of this content; whatever goes wrong on the way, there is the old file or the new one.

    Raises OSError that names `path`, such as of a full disk, with nothing else left behind.
    """
    if os.path.isdir(path):
        raise IsADirectoryError(errno.EISDIR, "a folder is in the place of the file", str(path))
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # the bytes are on the disk before the name is
        os.replace(temporary, path)
        sync_folder(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError):
            raise OSError(error.errno, error.strerror, str(path)) from error  # a failed write knows no name
        raise


def write_text(path: Path, text: str) -> None:
    """`write_bytes` of UTF-8."""
    write_bytes(path, text.encode())


def make_folder(path: Path) -> None:
    """Makes a folder, and those above it that are missing, so that they last as what is written into them does."""
    missing = [folder for folder in path.parents if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in (path, *missing):
        sync_folder(folder.parent)


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
