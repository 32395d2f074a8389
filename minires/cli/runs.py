"""Paths on the command line that hold a trained network: a run folder, a checkpoint, or a weight file."""

from __future__ import annotations

from pathlib import Path

from minires.cli.common import UsageError
from minires.training import find_checkpoint
from minires.training.checkpoint import is_checkpoint


def checkpoint(path: str, argument: str) -> Path:
    """The checkpoint at `path`; `argument` is the argument that named it, such as RUN or --weights."""
    if Path(path).is_file() and not is_checkpoint(Path(path)):
        raise UsageError(f"{argument}: {path} is no checkpoint: weight files are for evaluate, predict and convert")
    try:
        return find_checkpoint(Path(path))
    except (FileNotFoundError, ValueError) as error:
        raise UsageError(f"{argument}: {error}") from None


def is_run(path: str) -> bool:
    """Whether the path is a run folder or a checkpoint of minires, rather than a weight file."""
    return Path(path).is_dir() or is_checkpoint(Path(path))


def weight_file(path: str, argument: str = "--weights") -> Path:
    """The weight file, run or checkpoint at `path`; RUN/best becomes the checkpoint that it refers to."""
    found = Path(path)
    if not found.exists():
        if is_checkpoint(found):
            return checkpoint(path, argument)
        raise UsageError(f"{argument}: no such file or folder: {path}")
    if found.is_dir() and not is_checkpoint(found):
        raise UsageError(f"{argument}: {path} is a folder without a checkpoint: name a weight file or a run")
    return found
