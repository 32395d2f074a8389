"""Encodes matplotlib figures."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def encoded(figure: Figure, kind: str = "png") -> bytes:
    """The figure as the bytes of a "png" or "svg", without a display and without pyplot's state."""
    out = io.BytesIO()
    figure.savefig(out, format=kind, dpi=150)
    return out.getvalue()
