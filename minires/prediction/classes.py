"""Names of classes out of a file."""

from __future__ import annotations

import json
import os
from typing import Any

from minires import _checks
from minires.data import DataFileError

_MOST_BYTES = 2**24  # the names of 21,841 classes are one megabyte


def read_classes(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """The names in the order of the network's outputs.  The file is one of

        one name a line
        JSON  ["tench", ...]
        JSON  {"0": "tench", ...}  or  {"0": ["n01440764", "tench"], ...}, of which the last word is the name
        JSON  with such an object under "id2label", as in the config.json of a published model

    Raises OSError when it cannot be read, DataFileError when it is none of these.
    """
    path = _checks.path(path, "path")
    with path.open("rb") as file:
        content = file.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise DataFileError(f"{path}: more than {_MOST_BYTES:,} bytes are no names of classes")
    try:
        text = content.decode("utf-8-sig")
        names = _of_json(json.loads(text)) if text.lstrip()[:1] in ("{", "[") else _of_lines(text)
        return tuple(map(_name, range(len(names)), names))
    except (ValueError, RecursionError) as error:
        raise DataFileError(f"{path}: no names of classes: {error}") from None


def _of_lines(text: str) -> list[Any]:
    lines = [line.strip() for line in text.rstrip().split("\n")]
    if "" in lines:
        raise ValueError("the file is empty" if len(lines) == 1 else f"line {lines.index('') + 1} is empty")
    return lines


def _of_json(told: Any) -> list[Any]:
    if isinstance(told, dict) and "id2label" in told:
        told = told["id2label"]
    if isinstance(told, dict):
        numbers = [str(number) for number in range(len(told))]
        missing = [number for number in numbers if number not in told]
        if missing:
            raise ValueError(
                f"of its {len(told)} keys none is {missing[0]!r}; they must be the classes' numbers from 0"
            )
        told = [told[number] for number in numbers]
    if not isinstance(told, list) or not told:
        raise ValueError("a list of names or an object of numbers and names is needed")
    return told


def _name(number: int, value: Any) -> str:
    if isinstance(value, list) and value:
        value = value[-1]
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"class {number} has no name, got {ascii(value)[:80]}")
    if not value.isprintable():  # it goes to a terminal
        raise ValueError(f"the name of class {number} holds control characters: {ascii(value)[:80]}")
    return value.strip()
