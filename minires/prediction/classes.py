"""Reads the names of classes from a file."""

from __future__ import annotations

import json
import os
from typing import Any

from minires import _checks
from minires.data import DataFileError

_MAX_BYTES = 2**24  # the names of 21,841 classes take one megabyte


def read_classes(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """The names in the order of the network's outputs, from one of these files:

        one name a line
        JSON  ["tench", ...]
        JSON  {"0": "tench", ...}  or  {"0": ["n01440764", "tench"], ...}, where the last word is the name
        JSON  with such an object under "id2label", as in the config.json of a published model

    Raises OSError if the file cannot be read, DataFileError for any other content.
    """
    path = _checks.path(path, "path")
    with path.open("rb") as file:
        content = file.read(_MAX_BYTES + 1)
    if len(content) > _MAX_BYTES:
        raise DataFileError(f"{path}: a file of class names has at most {_MAX_BYTES:,} bytes")
    try:
        text = content.decode("utf-8-sig")
        names = _of_json(json.loads(text)) if text.lstrip()[:1] in ("{", "[") else _of_lines(text)
        return tuple(map(_name, range(len(names)), names))
    except (ValueError, RecursionError) as error:
        raise DataFileError(f"{path}: not a file of class names: {error}") from None


def _of_lines(text: str) -> list[Any]:
    lines = [line.strip() for line in text.rstrip().split("\n")]
    if "" in lines:
        raise ValueError("the file is empty" if len(lines) == 1 else f"line {lines.index('') + 1} is empty")
    return lines


def _of_json(content: Any) -> list[Any]:
    if isinstance(content, dict) and "id2label" in content:
        content = content["id2label"]
    if isinstance(content, dict):
        numbers = [str(number) for number in range(len(content))]
        missing = [number for number in numbers if number not in content]
        if missing:
            raise ValueError(f"key {missing[0]!r} is missing; the {len(content)} keys must be the numbers from 0")
        content = [content[number] for number in numbers]
    if not isinstance(content, list) or not content:
        raise ValueError("the file must hold a list of names, or an object of numbers and names")
    return content


def _name(number: int, value: Any) -> str:
    if isinstance(value, list) and value:
        value = value[-1]
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"class {number} has no name, got {ascii(value)[:80]}")
    if not value.isprintable():  # names are printed on a terminal
        raise ValueError(f"the name of class {number} holds control characters: {ascii(value)[:80]}")
    return value.strip()
