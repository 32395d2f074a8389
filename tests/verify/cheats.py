"""Kernels that look computed and are not, after the cheats that KernelBench's authors found in generated kernels."""

from __future__ import annotations

import numpy as np

import minires as mr
from minires.backends import reference

KERNELS = ("conv2d_forward", "conv2d_backward_input", "conv2d_backward_weight")


def zeros(kernel, x, *rest):
    return np.zeros_like(kernel(x, *rest))


def nan(kernel, x, *rest):
    return np.full_like(kernel(x, *rest), np.nan)


def stale(kernel, x, *rest):
    """The output's memory is not written: it holds the result of another batch."""
    return kernel(np.roll(x, 1), *rest)


def one_tile(kernel, x, *rest):
    """Rows beyond the first tile of 16 are skipped."""
    y = np.ascontiguousarray(kernel(x, *rest))
    y.reshape(-1, y.shape[-1])[16:] = 0
    return y


def fours(kernel, x, *rest):
    """Right where the last axis is a multiple of 4; the remainder is skipped."""
    y = np.ascontiguousarray(kernel(x, *rest))
    y[..., y.shape[-1] // 4 * 4 :] = 0
    return y


CHEATS = (zeros, nan, stale, one_tile, fours)


def backend_with(cheat, kernel):
    """The reference backend with one kernel that cheats."""

    def cheating(x, a, b, stride, padding, dilation, groups):
        return cheat(getattr(reference, kernel), x, a, b, stride, padding, dilation, groups)

    return type(f"{cheat.__name__}_{kernel}", (mr.backends.Reference,), {kernel: staticmethod(cheating)})()


def all_cheats():
    return {(cheat.__name__, kernel): backend_with(cheat, kernel) for cheat in CHEATS for kernel in KERNELS}
