"""Arrays as small pictures: feature maps, filters and matrices, blue below zero, red above."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

LEVELS = 33  # of colour: few compress well, and this many show shapes
CELL = 28  # pixels of a feature map, at most
MAPS = 16  # feature maps of an array, at most
SIDE = 116  # pixels of a picture that has one map


def maps(array: NDArray[Any]) -> bytes | None:
    """The channels of the first image of (N, C, H, W), the features of (N, C); None for other shapes."""
    if array.ndim == 4:
        channels = array[0]
        if len(channels) == 3 and array.shape[2] > 3:  # an image: its colours
            return _rgb(channels)
        return _encode(_montage([_shrunk(m, CELL) for m in channels[:MAPS]]))
    if array.ndim == 2 and array.shape[1] <= 32:
        return _encode(array[:8])
    if array.ndim == 2:  # the first image's features, folded into a square
        side = math.ceil(math.sqrt(array.shape[1]))
        square = np.full(side * side, np.nan)
        square[: array.shape[1]] = array[0]
        return _encode(_shrunk(square.reshape(side, side), 64))
    return None


def filters(array: NDArray[Any]) -> bytes | None:
    """(O, C, KH, KW): a row of filters for each of the first outputs; a matrix for a 1×1 or linear layer."""
    if array.ndim == 4 and array.shape[2:] != (1, 1):
        if array.shape[1] in (1, 3):  # filters of an image: the mean over its colours
            return _encode(_montage([m.mean(axis=0) for m in array[:64]]))
        O, C = min(8, array.shape[0]), min(8, array.shape[1])
        return _encode(_montage([array[o, c] for o in range(O) for c in range(C)], across=C))
    if array.ndim in (2, 4):
        return _encode(_shrunk(array.reshape(array.shape[:2]), 64))
    return None


def _shrunk(image: NDArray[Any], side: int) -> NDArray[np.float64]:
    """Means of blocks, so that neither axis is longer than `side`."""
    H, W = image.shape
    rows = np.linspace(0, H, min(H, side) + 1).astype(int)
    columns = np.linspace(0, W, min(W, side) + 1).astype(int)
    with np.errstate(over="ignore", invalid="ignore"):
        sums = np.add.reduceat(np.add.reduceat(image.astype(np.float64), rows[:-1], axis=0), columns[:-1], axis=1)
        means: NDArray[np.float64] = sums / np.outer(np.diff(rows), np.diff(columns))
    return means


def _montage(cells: list[NDArray[Any]], across: int | None = None) -> NDArray[np.float64]:
    """The cells in rows, one pixel apart; the gaps are NaN and drawn grey."""
    across = across or math.ceil(math.sqrt(len(cells)))
    down = math.ceil(len(cells) / across)
    H, W = cells[0].shape
    out = np.full((down * (H + 1) - 1, across * (W + 1) - 1), np.nan)
    for i, cell in enumerate(cells):
        r, c = divmod(i, across)
        out[r * (H + 1) : r * (H + 1) + H, c * (W + 1) : c * (W + 1) + W] = np.where(np.isfinite(cell), cell, 0)
    return out


def _encode(values: NDArray[Any]) -> bytes:
    """A PNG whose colours run from −max|v| (blue) over 0 (white) to max|v| (red), equally for all cells."""
    finite = np.isfinite(values)
    largest = float(np.abs(values[finite]).max()) if finite.any() else 0.0
    half = LEVELS // 2
    levels = np.zeros(values.shape)
    if largest > 0:
        np.divide(values, largest, out=levels, where=finite)
    index = np.where(finite, np.rint(levels * half) + half, LEVELS).astype(np.uint8)
    image = Image.fromarray(index)
    image.putpalette(_palette())
    return _png(image)


def _png(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, format="PNG", optimize=True)
    return out.getvalue()


def _palette() -> list[int]:
    white = np.array([250, 250, 250])
    steps = np.linspace(0, 1, LEVELS // 2 + 1)[1:, None] ** 0.8
    red = white + steps * (np.array([165, 15, 21]) - white)
    blue = white + steps * (np.array([8, 69, 148]) - white)
    colours = np.vstack([blue[::-1], white, red, [[225, 228, 232]]])  # the last: grey between the cells
    return [int(v) for v in np.rint(colours).ravel()]


def _rgb(channels: NDArray[Any]) -> bytes:
    """Three channels as a picture, stretched to its own range."""
    shown = np.stack([_shrunk(c, SIDE) for c in channels], axis=-1)
    shown = np.where(np.isfinite(shown), shown, 0)
    low, high = shown.min(), shown.max()
    scaled = (shown - low) / (high - low) if high > low else np.zeros_like(shown)
    return _png(Image.fromarray(np.rint(255 * scaled).astype(np.uint8)).quantize(64))
