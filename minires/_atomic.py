"""Writing a file so that it is there complete, or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path


def write_bytes(path: Path, content: bytes | memoryview) -> None:
    """Replaces `path` by a file of this content; whatever goes wrong on the way, there is the old file or the new one.

    Raises OSError, such as of a full disk, with nothing else left behind.
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
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    sync_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    """`write_bytes` of UTF-8."""
    write_bytes(path, text.encode())


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder last through a power failure, where the system can do that."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
