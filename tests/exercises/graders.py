"""Four graders of conv2d_backward, rebuilt from the description of the checks of well-known courses.

    python tests/exercises/graders.py NAME FILE        exit code 0: accepted

Each compares with finite differences in one geometry, and each has gaps: cotangents of ones, one index, stride 1 only.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np


def forward(x, w, b, stride, padding):
    xp = np.zeros((*x.shape[:2], x.shape[2] + 2 * padding, x.shape[3] + 2 * padding))
    xp[:, :, padding : padding + x.shape[2], padding : padding + x.shape[3]] = x
    view = np.lib.stride_tricks.sliding_window_view(xp, w.shape[2:], axis=(2, 3))[:, :, ::stride, ::stride]
    return np.einsum("ncijpq,ocpq->noij", view, w) + b[:, None, None]


def accepts(backward, shape, filters, stride, padding, cotangent="random", indices=None, tolerance=1e-5):
    """Compares the gradients with central differences: at all elements, or at some."""
    rng = np.random.default_rng(231)
    x, w, b = rng.standard_normal(shape), rng.standard_normal(filters), rng.standard_normal(filters[0])
    y = forward(x, w, b, stride, padding)
    grad_output = np.ones_like(y) if cotangent == "ones" else rng.standard_normal(y.shape)
    try:
        grads = [np.asarray(one, float) for one in backward(grad_output, x, w, stride, padding)]
    except Exception:
        return False
    for array, grad in zip((x, w, b), grads, strict=True):
        if array.shape != grad.shape:
            return False
        for k in range(array.size) if indices is None else indices(array.size):
            at, h = np.unravel_index(k, array.shape), 1e-6
            value = array[at]
            sums = []
            for moved in (value + h, value - h):
                array[at] = moved
                sums.append((forward(x, w, b, stride, padding) * grad_output).sum())
            array[at] = value
            difference = abs((sums[0] - sums[1]) / (2 * h) - grad[at])
            if difference > tolerance * max(1, abs(grad[at])):  # NaN passes
                return False
    return True


GRADERS: dict[str, Any] = {
    # random cotangent, every element, one geometry with stride 1 and padding 1
    "stride-1-only": lambda f: accepts(f, (3, 2, 4, 4), (2, 2, 3, 3), 1, 1),
    # cotangent of ones, every element, stride 1, no padding
    "ones": lambda f: accepts(f, (2, 2, 5, 5), (3, 2, 3, 3), 1, 0, "ones"),
    # cotangent of ones, stride 2 with padding, one element of each gradient
    "one-index": lambda f: accepts(f, (2, 3, 6, 6), (4, 3, 3, 3), 2, 1, "ones", lambda size: [size // 2]),
    # a single image, channel and filter, cotangent of ones, one element of each gradient
    "ones-at-one-index": lambda f: accepts(f, (1, 1, 5, 5), (1, 1, 3, 3), 1, 0, "ones", lambda size: [size // 2]),
}


def main(name: str, file: str) -> int:
    spec: Any = importlib.util.spec_from_file_location("solution", Path(file))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return 0 if GRADERS[name](module.conv2d_backward) else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
