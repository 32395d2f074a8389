"""a + b."""

from __future__ import annotations

from minires.arrays import Array


def add_forward(a: Array, b: Array) -> Array:
    """any two shapes that broadcast -> the broadcast shape"""
    return a + b
