"""What is read out of a weight file, and how a file fails."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from minires.arrays import Array


class WeightsError(RuntimeError):
    """A file that is no readable weight file: broken, foreign or unsafe."""


@dataclass(frozen=True, eq=False)
class WeightFile:
    """The arrays of a weight file under the names that the file gives them.

    path       where it was read
    format     "safetensors", "PyTorch zip" or "PyTorch legacy"
    arrays     in the file's order: contiguous NumPy arrays in this machine's byte order, none of them part of another.
               float16, bfloat16 and float8 are widened to float32, which holds each of their values exactly; integers,
               booleans, float32 and float64 are as stored
    stored     the data type of each in the file, in PyTorch's words: "bfloat16"
    metadata   the text that a safetensors file carries with it
    inside     the key under which the state dict stood in a checkpoint; "" where it is the whole file
    """

    path: Path
    format: str
    arrays: dict[str, Array]
    stored: dict[str, str]
    metadata: dict[str, str] = field(default_factory=dict)
    inside: str = ""

    def __repr__(self) -> str:
        numbers = sum(array.size for array in self.arrays.values())
        return f"<{self.format} file {self.path}: {len(self.arrays)} arrays, {numbers:,} numbers>"


LONGEST = 100  # characters of a file's own text in an error


def quoted(value: object) -> str:
    """A value out of a file, fit for an error of one line: escaped, and never long."""
    text = ascii(value[:LONGEST] if isinstance(value, str | bytes) else value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def plain(value: object) -> str:
    """The same without quotation marks: the name of a class, the message of another error."""
    text = ascii(" ".join(str(value).split()))[1:-1]
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
