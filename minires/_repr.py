"""A value as an error message shows it: on one line and short, whatever somebody passed."""

from __future__ import annotations

from typing import Any

_MOST = 80  # characters


def shown(value: Any) -> str:
    """`repr`, or what the value is where that would be long: an array of shape (64, 3, 7, 7) and dtype float32."""
    kind, shape = type(value), getattr(value, "shape", None)
    if isinstance(shape, tuple) and shape and hasattr(value, "dtype"):
        return f"{_article(kind.__name__)} of shape {shape} and dtype {value.dtype}"
    if isinstance(value, int) and value.bit_length() > 256:  # Python refuses to write out the largest
        return f"an integer of {value.bit_length()} bits"
    if kind in (list, tuple, dict, set, frozenset) and len(value) > 16:
        return f"{_article(kind.__name__)} of {len(value):,}"
    if isinstance(value, (str, bytes)) and len(value) > _MOST:
        return f"{value[: _MOST - 20]!r}… of {len(value):,} {'bytes' if isinstance(value, bytes) else 'characters'}"
    try:
        text = " ".join(repr(value).split())
    except Exception:  # a nested integer too large to write out, or somebody's own __repr__
        return _article(kind.__name__)
    return text if len(text) <= _MOST else f"{text[: _MOST - 1]}…"


def _article(name: str) -> str:
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"


def printable(text: str) -> str:
    """Foreign text (a file's name, a class, a message about them) on one line: a ? for whatever a terminal obeys."""
    return "".join(c if c.isprintable() else "?" for c in text)
