"""An own backend: a convolution of yours, in lockstep with the reference.

    python tests/examples/own_backend.py
    minires lockstep resnet20 --backends reference,own_backend:Taps          (in this folder)
    minires train resnet20 --backend own_backend:Taps

The contract, `minires/backends/contract.py`, lists every function that a backend may define.
"""

from __future__ import annotations

import numpy as np

import minires as mr
from minires.verify.lockstep import lockstep


class Taps(mr.backends.Reference):
    """The convolution as a sum over the taps of its filter; everything else is the reference backend's."""

    def conv2d_forward(self, x, w, b, stride, padding, dilation, groups):
        """x (N, C, H, W), w (O, C/groups, KH, KW), b (O,) or None -> y (N, O, OH, OW)"""
        N, C, H, W = x.shape
        O, _, KH, KW = w.shape
        (SH, SW), (PH, PW), (DH, DW) = stride, padding, dilation
        OH = (H + 2 * PH - DH * (KH - 1) - 1) // SH + 1
        OW = (W + 2 * PW - DW * (KW - 1) - 1) // SW + 1
        padded = np.pad(x, ((0, 0), (0, 0), (PH, PH), (PW, PW))).reshape(N, groups, C // groups, H + 2 * PH, W + 2 * PW)
        filters = w.reshape(groups, O // groups, C // groups, KH, KW)
        y = np.zeros((N, groups, O // groups, OH, OW), x.dtype)
        for p in range(KH):
            for q in range(KW):
                rows = slice(p * DH, p * DH + (OH - 1) * SH + 1, SH)
                columns = slice(q * DW, q * DW + (OW - 1) * SW + 1, SW)
                y += np.einsum("ngchw,goc->ngohw", padded[..., rows, columns], filters[..., p, q], optimize=True)
        y = y.reshape(N, O, OH, OW)
        return y if b is None else y + b[:, None, None]


class LastColumnForgotten(Taps):
    """A mistake to find: the last output of a row is not computed where the stride is 2."""

    def conv2d_forward(self, x, w, b, stride, padding, dilation, groups):
        y = super().conv2d_forward(x, w, b, stride, padding, dilation, groups)
        if stride == (2, 2):
            y[..., -1] = 0
        return y


def compare(backend):
    """One forward and backward of ResNet-20 by the reference backend and by this one, operation by operation."""
    mr.manual_seed(0)
    model = mr.models.create("resnet20", width=4)
    rng = np.random.default_rng(0)
    images, labels = rng.standard_normal((2, 3, 16, 16), np.float32), rng.integers(0, 10, 2)
    return lockstep(model, images, labels, backends=("reference", backend))


if __name__ == "__main__":
    for backend in (Taps(), LastColumnForgotten()):
        fault = compare(backend).fault
        if fault is None:
            print(f"{backend.name}: in step")
        else:
            place = f"{fault.phase} of {fault.operation} of {fault.module}, {fault.array} at index {fault.index}"
            print(f"{backend.name}: {place}: {fault.numbers[1]:g} instead of {fault.numbers[0]:g}")
