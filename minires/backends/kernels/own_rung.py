"""A kernel of your own in the place of a rung: what `mr.backend("emulated", gemm="mine.cu")` computes products with."""

from __future__ import annotations

import os
from functools import cached_property
from typing import Any

import numpy as np

from minires.arrays import Array
from minires.backends.kernels import own_build
from minires.backends.kernels.launch_line import shown
from minires.backends.kernels.own import ARRAYS, SIZES, OwnKernel, read
from minires.backends.kernels.provider import Device, Emulator, Provider, check_count, compile_options

Pair = tuple[int, int]
LARGEST_SHARED = 48 << 10  # bytes of dynamic shared memory that a launch may have before its function allows more
UNWRITTEN = {
    4: 0x7FC0D1CE,
    8: 0x7FF8_0000_7FC0_D1CE,
}  # the bits of a NaN that no arithmetic gives, by the bytes of a number


class OwnRung:
    """A kernel of your own, compiled for a device when it is made.

    Raises ValueError, with file and line, for a file of another form or that doesn't compile.
    """

    def __init__(self, kernel: OwnKernel, device: Provider) -> None:
        self.kernel = kernel
        self.device = device
        self._float = self._compiled(double=False)

    @cached_property
    def _double(self) -> Any:
        return self._compiled(double=True)

    def gemm(self, a: Array, b: Array, out: Array) -> None:
        """out (M, N) = a (M, K) @ b (K, N), any strides: the kernel gets contiguous copies."""
        (M, K), N = a.shape, b.shape[1]
        C = out if out.flags.c_contiguous else self.device.module.empty(out.shape, out.dtype)
        self._launch(a, b, C, M=M, N=N, K=K)
        if C is not out:
            out[...] = C

    def conv2d(self, x: Array, w: Array, stride: Pair, padding: Pair, dilation: Pair, groups: int, y: Array) -> None:
        """y (N, O, OH, OW), contiguous, of x (N, C, H, W) and w (O, C, KH, KW).

        Raises ValueError for a convolution that the kernel's arguments don't describe.
        """
        if len({*stride}) > 1 or len({*padding}) > 1 or dilation != (1, 1) or groups != 1:
            raise ValueError(
                f"{self.kernel.path}: stride, padding, dilation and groups must be one stride, one padding, dilation 1 "
                f"and groups 1 for a conv2d kernel of your own, got {stride}, {padding}, {dilation} and {groups}; "
                "compute this network with a rung or another backend"
            )
        (N, C, H, W), (O, _, KH, KW) = x.shape, w.shape
        self._launch(x, w, y, N=N, C=C, H=H, W=W, O=O, KH=KH, KW=KW, stride=stride[0], padding=padding[0])

    def _launch(self, left: Array, right: Array, out: Array, **sizes: int) -> None:
        if out.dtype == np.float64 and not self.kernel.real:
            raise TypeError(
                f"{self.kernel.path} computes in float32, got float64; for both write real in place of float, and "
                '#include "common.cuh"'
            )
        if not out.size:
            return
        if not left.size:
            out[...] = 0  # a sum of no terms
            return
        xp = self.device.module
        arrays = xp.ascontiguousarray(left), xp.ascontiguousarray(right), out
        integers = [check_count(name, sizes[name]) for name in SIZES[self.kernel.kind]]
        grid, block = self.kernel.launch_of(**sizes)
        shared = self.kernel.shared_of(**sizes)
        compiled = self._double if out.dtype == np.float64 else self._float
        if not isinstance(self.device, Emulator):
            if shared > LARGEST_SHARED:
                compiled.max_dynamic_shared_size_bytes = shared
            compiled(grid, block, (*arrays, *map(np.int32, integers)), shared_mem=shared)
            return
        bits = out.view(f"u{out.itemsize}")
        bits.fill(UNWRITTEN[out.itemsize])
        own_build.launch(compiled, grid, block, shared, arrays, integers, self.device.seed)
        missing = np.argwhere(bits == UNWRITTEN[out.itemsize])
        if len(missing):
            name, place = ARRAYS[self.kernel.kind][2], [*map(int, missing[0])]
            which = f"{name}{place} of shape {out.shape}, and {len(missing) - 1} more elements"
            raise RuntimeError(f"{self.kernel.path}: the kernel does not write {which}, for {shown(sizes)}")

    def _compiled(self, double: bool) -> Any:
        kernel, device = self.kernel, self.device
        if isinstance(device, Emulator):
            return own_build.library(kernel, double)
        assert isinstance(device, Device)
        cupy = device.module
        # The digest of the own folder's files beside the ladders': CuPy's cache ignores the text of included files.
        included = f"-DMINIRES_INCLUDED=0x{own_build.digest_of_included(kernel)}"
        options = (f"-I{kernel.path.resolve().parent}", included, *compile_options(double))
        try:
            module: Any = cupy.RawModule(code=kernel.text, options=options)
            module.compile()
        except cupy.cuda.compiler.CompileException as error:
            raise ValueError(f"{kernel.path}: NVRTC refuses the kernel: {str(error).strip().splitlines()[0]}") from None
        return module.get_function(kernel.name)


GemmRung = str | OwnRung


def plugged(device: Provider, chosen: Any, kind: str) -> OwnRung | None:
    """The rung of a .cu file, a Path or text that ends in .cu; None for a rung's name."""
    if isinstance(chosen, os.PathLike) or (isinstance(chosen, str) and chosen.endswith(".cu")):
        return OwnRung(read(os.fspath(chosen), kind), device)
    return None
