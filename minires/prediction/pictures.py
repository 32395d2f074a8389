"""Finds picture files."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from minires import _checks
from minires.data import DataPathError
from minires.data.decode import SUFFIXES


def find_pictures(paths: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """Each file, with any suffix; for each folder, all pictures in it and below, sorted, without hidden ones.

    Raises DataPathError for a path that is neither file nor folder, and for a folder without a picture.
    """
    found: list[Path] = []
    for path in (_checks.path(path, "paths") for path in _checks.iterable(paths, "paths", "paths")):
        if os.path.isdir(path):
            inside = sorted(_below(path))
            if not inside:
                raise DataPathError(f"{path}: no pictures (of {', '.join(SUFFIXES)}) in this folder or below")
            found += inside
        elif os.path.isfile(path):
            found.append(path)
        else:
            raise DataPathError(f"{path}: no such file or folder")
    return found


def _below(folder: Path) -> Iterable[Path]:
    def unreadable(error: OSError) -> None:
        raise DataPathError(f"{error.filename}: {error.strerror}") from None

    for place, folders, files in os.walk(folder, onerror=unreadable):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if not name.startswith(".") and name.lower().endswith(SUFFIXES):
                yield Path(place, name)
