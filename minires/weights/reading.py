"""`read`: which format a file is in, by its content; its name only says what a broken one was meant to be."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from minires import _checks
from minires.weights import foreign, safetensors_file, torch_legacy, torch_zip
from minires.weights.file import WeightFile, WeightsError


def read(path: str | os.PathLike[str]) -> WeightFile:
    """The arrays of a file of safetensors or of `torch.save`; PyTorch is not needed and nothing in it is executed.

    The arrays take at most 8 times the bytes of the file (and 1 MiB).  While reading, the memory holds them and, more,
    one storage as stored (PyTorch), or one tensor as stored where it has to be widened (safetensors).
    Raises FileNotFoundError, another OSError where the file cannot be read, and WeightsError for all that is no
    readable weight file; the message names the file and what is wrong, in one line.
    """
    path = _checks.path(path, "path")
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise FileNotFoundError(f"no weight file at {path}") from None
    if not stat.S_ISREG(mode):
        raise WeightsError(f"{path}: is a folder, not a weight file" if stat.S_ISDIR(mode) else f"{path}: is no file")
    try:
        return _read(path)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from None


def _read(path: Path) -> WeightFile:
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 8))
        tail = file.read(8)
        file.seek(0)
        head = file.read(512)
        file.seek(0)
        if not head:
            raise WeightsError("is empty")
        if head.startswith(b"PK\3\4"):
            arrays, stored, inside = torch_zip.read(file, size)
            return WeightFile(path, "PyTorch zip", arrays, stored, inside=inside)
        # Before pickles: a header of 640 bytes begins like one.
        if head[8:9] == b"{":
            arrays, stored, metadata = safetensors_file.read(path, file, size)
            return WeightFile(path, "safetensors", arrays, stored, metadata)
        if head[0] == 0x80 and len(head) > 1 and 2 <= head[1] <= 5:
            arrays, stored, inside = torch_legacy.read(file, size)
            return WeightFile(path, "PyTorch legacy", arrays, stored, inside=inside)
        what = foreign.describe(head, tail)
        if what is None and path.suffix == ".safetensors":
            what = "no valid safetensors file: it does not begin with the length of a header in JSON"
        raise WeightsError(what or "is no weight file that minires can read: neither of PyTorch nor safetensors")
