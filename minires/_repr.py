"""Values in error messages: on one line, short, for any value."""

from __future__ import annotations

import textwrap
from typing import Any

_LENGTH = 80  # characters


def shown(value: Any) -> str:
    """`repr`, or a description of a long value: an array of shape (64, 3, 7, 7) and dtype float32."""
    kind, shape = type(value), getattr(value, "shape", None)
    if isinstance(shape, tuple) and shape and hasattr(value, "dtype"):
        return f"{_article(kind.__name__)} of shape {shape} and dtype {value.dtype}"
    if isinstance(value, int) and value.bit_length() > 256:  # Python cannot print the largest
        return f"an integer of {value.bit_length()} bits"
    if kind in (list, tuple, dict, set, frozenset) and len(value) > 16:
        return f"{_article(kind.__name__)} of {len(value):,}"
    if isinstance(value, (str, bytes)) and len(value) > _LENGTH:
        return f"{value[: _LENGTH - 20]!r}… of {len(value):,} {'bytes' if isinstance(value, bytes) else 'characters'}"
    try:
        text = " ".join(repr(value).split())
    except Exception:  # a nested integer too large to print, or a faulty __repr__
        return _article(kind.__name__)
    return text if len(text) <= _LENGTH else f"{text[: _LENGTH - 1]}…"


def _article(name: str) -> str:
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"


def printable(text: str) -> str:
    """Untrusted text (the name of a file or class) on one line: ? in place of control characters."""
    return "".join(c if c.isprintable() else "?" for c in text)


def wrapped(text: str, width: int, indent: int = 0) -> list[str]:
    """The text in lines of at most `width` characters, broken between words; only a longer word exceeds it.

    indent   spaces before every line but the first
    """
    lines = textwrap.wrap(
        text, width, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False
    )  # fmt: skip
    return lines or [""]
