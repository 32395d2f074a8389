"""Launching the rungs of the convolution ladder, and the gradients."""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd

from minires.arrays import Array
from minires.backends.kernels.gemm import MULTIPROCESSORS, TILE, add_parts, gemm, split
from minires.backends.kernels.own_rung import GemmRung
from minires.backends.kernels.provider import Provider, ceil_div, check_count
from minires.backends.reference.windows import output_size

Pair = tuple[int, int]


@dataclass(frozen=True)
class Geometry:
    """A convolution's sizes, in the words of csrc/cuda/conv.cuh; C and O are those of one group."""

    N: int
    H: int
    W: int
    C: int
    O: int
    OH: int
    OW: int
    kernel: Pair
    stride: Pair
    padding: Pair
    dilation: Pair
    groups: int

    @classmethod
    def of(
        cls,
        x_shape: tuple[int, ...],
        w_shape: tuple[int, ...],
        stride: Pair,
        padding: Pair,
        dilation: Pair,
        groups: int,
    ) -> Geometry:
        N, _, H, W = x_shape
        O, C, KH, KW = w_shape
        OH, OW = output_size((H, W), (KH, KW), stride, padding, dilation)
        return cls(N, H, W, C, O // groups, OH, OW, (KH, KW), stride, padding, dilation, groups)

    @property
    def arguments(self) -> tuple[int, ...]:
        """CONV_ARGUMENTS of csrc/cuda/conv.cuh."""
        check_count("the pixels of x", self.N * self.H * self.W)
        check_count("the outputs of a convolution", self.N * self.OH * self.OW)
        x = (self.N, self.H, self.W, self.C, self.C * self.groups)
        y = (self.O, self.OH, self.OW, self.O * self.groups)
        return (*x, *y, *self.kernel, *self.stride, *self.padding, *self.dilation)

    @property
    def pixels(self) -> int:
        return check_count("the outputs of a convolution", self.N * self.OH * self.OW)

    @property
    def depth(self) -> int:
        return check_count("the products of an output", self.kernel[0] * self.kernel[1] * self.C)

    @property
    def is_1x1(self) -> bool:
        return self.kernel == (1, 1) and self.stride == (1, 1) and self.padding == (0, 0)

    @property
    def suits_winograd(self) -> bool:
        return self.kernel == (3, 3) and self.stride == (1, 1) and self.dilation == (1, 1)


def choose(rung: str, geometry: Geometry) -> str:
    """The rung itself, or for "auto" the one for this geometry; ValueError where the named one cannot do it."""
    if rung == "auto":
        if geometry.is_1x1:
            return "conv_03_1x1"
        tiles = ceil_div(geometry.pixels, TILE) * ceil_div(geometry.O, TILE)
        return "conv_10_split_k" if tiles <= MULTIPROCESSORS // 2 and geometry.depth >= 512 else "conv_06_async"
    if rung == "conv_03_1x1" and not geometry.is_1x1:
        raise ValueError(f"conv_03_1x1 needs a 1×1 kernel with stride 1 and no padding, got {_told(geometry)}")
    if rung == "conv_08_winograd" and not geometry.suits_winograd:
        raise ValueError(f"conv_08_winograd needs a 3×3 kernel with stride 1 and dilation 1, got {_told(geometry)}")
    return rung


def _told(g: Geometry) -> str:
    return f"kernel {g.kernel}, stride {g.stride}, padding {g.padding}, dilation {g.dilation}"


def forward(device: Provider, rung: str, gemm_rung: GemmRung, x: Array, w: Array, y: Array, geometry: Geometry) -> None:
    """y (N, OH, OW, G·O) of x (N, H, W, G·C) and w (G·O, KH, KW, C), all contiguous."""
    rung = choose(rung, geometry)
    for g in range(geometry.groups):
        xs, ws, ys = _of_group(g, geometry, x, w, y)
        _forward_group(device, rung, gemm_rung, xs, ws, ys, geometry)


def _of_group(g: int, geometry: Geometry, x: Array, w: Array, y: Array) -> tuple[Array, Array, Array]:
    C, O = geometry.C, geometry.O
    return x[..., g * C : (g + 1) * C], w[g * O : (g + 1) * O], y[..., g * O : (g + 1) * O]


def _forward_group(
    device: Provider, rung: str, gemm_rung: GemmRung, x: Array, w: Array, y: Array, geometry: Geometry
) -> None:
    arguments, dtype = geometry.arguments, y.dtype
    pixels, O = geometry.pixels, geometry.O
    if rung == "conv_01_direct":
        device.launch(rung, dtype, (ceil_div(pixels, 8), ceil_div(O, 32)), (32, 8), x, w, y, *arguments)
    elif rung in ("conv_02_im2col", "conv_02_im2col_atomic"):
        columns = im2col(device, x, geometry)
        gemm(device, gemm_rung, columns, w.reshape(O, -1).T, _matrix(y, pixels))
    elif rung == "conv_03_1x1":
        gemm(device, gemm_rung, _matrix(x, pixels), w.reshape(O, -1).T, _matrix(y, pixels))
    elif rung == "conv_08_winograd":
        _winograd(device, gemm_rung, x, w, y, geometry)
    elif rung == "conv_10_split_k":
        _split_k(device, x, w, y, geometry)
    elif rung == "conv_06_async" and O <= 64:
        device.launch("conv_06_async_64", dtype, (ceil_div(pixels, TILE), 1), (256,), x, w, y, *arguments)
    else:
        device.launch(rung, dtype, (ceil_div(pixels, TILE), ceil_div(O, TILE)), (256,), x, w, y, *arguments)


def _matrix(x: Array, pixels: int) -> Array:
    """(N, H, W, C) -> (N·H·W, C): a view, also of one group's channels, as the pixels are evenly spaced."""
    return x.reshape(pixels, x.shape[3])


def im2col(device: Provider, x: Array, geometry: Geometry) -> Array:
    """(N·OH·OW, KH·KW·C): a window a row."""
    columns = device.module.empty((geometry.pixels, geometry.depth), x.dtype)
    grid = (ceil_div(geometry.pixels, 8), ceil_div(geometry.depth, 32))
    device.launch("conv_02_im2col", x.dtype, grid, (32, 8), x, columns, *geometry.arguments)
    return columns


def _winograd(device: Provider, gemm_rung: GemmRung, x: Array, w: Array, y: Array, geometry: Geometry) -> None:
    xp, dtype, C, O = device.module, y.dtype, geometry.C, geometry.O
    TH, TW = ceil_div(geometry.OH, 2), ceil_div(geometry.OW, 2)
    T = geometry.N * TH * TW
    filters, patches = xp.empty((16, O, C), dtype), xp.empty((16, T, C), dtype)
    products = xp.empty((16, T, O), dtype)
    arguments = (TH, TW, *geometry.arguments)
    device.launch("conv_08_filters", dtype, (ceil_div(O, 8), ceil_div(C, 32)), (32, 8), w, filters, O, C)
    device.launch("conv_08_patches", dtype, (ceil_div(T, 8), ceil_div(C, 32)), (32, 8), x, patches, *arguments)
    if gemm_rung == "auto":
        grid = (ceil_div(T, TILE), ceil_div(O, TILE), 16)
        device.launch("conv_08_products", dtype, grid, (256,), patches, filters, products, T, C, O)
    else:
        for patch, filter_, product in zip(patches, filters, products, strict=True):
            gemm(device, gemm_rung, patch, filter_.T, product)
    device.launch("conv_08_outputs", dtype, (ceil_div(T, 8), ceil_div(O, 32)), (32, 8), products, y, *arguments)


def _split_k(device: Provider, x: Array, w: Array, y: Array, geometry: Geometry) -> None:
    grid = (ceil_div(geometry.pixels, TILE), ceil_div(geometry.O, TILE))
    part, parts = split(geometry.depth, grid[0] * grid[1])
    workspace = device.module.empty((parts, geometry.pixels, geometry.O), y.dtype)
    device.launch("conv_10_split_k", y.dtype, (*grid, parts), (256,), x, w, workspace, part, *geometry.arguments)
    add_parts(device, workspace, _matrix(y, geometry.pixels), y.strides[2] // y.itemsize)


def fused(
    device: Provider, x: Array, w: Array, y: Array, scale: Array, shift: Array, residual: Array | None, relu: bool,
    geometry: Geometry,
) -> None:  # fmt: skip
    """conv_09: y = max(conv(x) · scale + shift + residual, 0), scale and shift (O,); for one group."""
    if geometry.groups != 1:
        raise ValueError(f"conv_09_fused computes one group, got groups {geometry.groups}")
    floor = 0.0 if relu else float("-inf")
    grid = (ceil_div(geometry.pixels, TILE), ceil_div(geometry.O, TILE))
    arguments = (x, w, y, scale, shift, residual, floor, *geometry.arguments)
    device.launch("conv_09_fused", y.dtype, grid, (256,), *arguments)


def backward_input(
    device: Provider, rung: str, gemm_rung: GemmRung, grad_y: Array, w: Array, grad_x: Array, geometry: Geometry
) -> None:
    """grad_x (N, H, W, G·C) of grad_y (N, OH, OW, G·O) and w (G·O, KH, KW, C)."""
    for g in range(geometry.groups):
        gx, ws, gy = _of_group(g, geometry, grad_x, w, grad_y)
        if rung.startswith("conv_02"):
            _col2im(device, rung, gemm_rung, gy, ws, gx, geometry)
        else:
            for part in parity_classes(geometry):
                _, rows, _, columns = part[:4]
                grid = (ceil_div(geometry.N * rows * columns, TILE), ceil_div(geometry.C, TILE))
                device.launch(
                    "conv_backward_data", grad_x.dtype, grid, (256,), gy, ws, gx, *part, *geometry.arguments
                )  # fmt: skip


def parity_classes(geometry: Geometry) -> list[tuple[int, ...]]:
    """(row0, rows, column0, columns, p0, p_step, ps, q0, q_step, qs) of every class of pixels: see conv_backward.cu."""
    vertical, horizontal = (
        [
            (first, ceil_div(size - first, s), *_taps(first, k, s, p, d))
            for first in range(min(s, size))
        ]
        for size, k, s, p, d in zip(
            (geometry.H, geometry.W), geometry.kernel, geometry.stride, geometry.padding, geometry.dilation, strict=True
        )
    )  # fmt: skip
    return [(*v[:2], *h[:2], *v[2:], *h[2:]) for v in vertical for h in horizontal]


def _taps(first: int, kernel: int, stride: int, padding: int, dilation: int) -> tuple[int, int, int]:
    """(first tap, step, number) of the taps by which pixels ≡ first (mod stride) meet an output."""
    meeting = [tap for tap in range(kernel) if (first + padding - tap * dilation) % stride == 0]
    return (meeting[0] if meeting else 0), stride // gcd(stride, dilation), len(meeting)


def _col2im(
    device: Provider, rung: str, gemm_rung: GemmRung, grad_y: Array, w: Array, grad_x: Array, geometry: Geometry
) -> None:
    columns = device.module.empty((geometry.pixels, geometry.depth), grad_x.dtype)
    gemm(device, gemm_rung, _matrix(grad_y, geometry.pixels), w.reshape(geometry.O, -1), columns)
    if rung == "conv_02_im2col_atomic":
        grad_x[...] = 0
        grid = (ceil_div(geometry.pixels, 8), ceil_div(geometry.depth, 32))
        device.launch("conv_02_col2im_atomic", grad_x.dtype, grid, (32, 8), columns, grad_x, *geometry.arguments)
    else:
        grid = (ceil_div(geometry.N * geometry.H * geometry.W, 8), ceil_div(geometry.C, 32))
        device.launch("conv_02_col2im", grad_x.dtype, grid, (32, 8), columns, grad_x, *geometry.arguments)


def backward_weight(
    device: Provider, rung: str, gemm_rung: GemmRung, grad_y: Array, x: Array, grad_w: Array, geometry: Geometry
) -> None:
    """grad_w (G·O, KH, KW, C) of grad_y (N, OH, OW, G·O) and x (N, H, W, G·C)."""
    for g in range(geometry.groups):
        xs, gw, gy = _of_group(g, geometry, x, grad_w, grad_y)
        out = gw.reshape(geometry.O, geometry.depth)
        if geometry.pixels == 0:
            out[...] = 0
        elif rung.startswith("conv_02"):
            gemm(device, gemm_rung, _matrix(gy, geometry.pixels).T, im2col(device, xs, geometry), out)
        else:
            grid = (ceil_div(geometry.depth, TILE), ceil_div(geometry.O, TILE))
            part, parts = split(geometry.pixels, grid[0] * grid[1])
            workspace = device.module.empty((parts, geometry.O, geometry.depth), grad_w.dtype)
            arguments = (gy, xs, workspace, part, *geometry.arguments)
            device.launch("conv_backward_weight", grad_w.dtype, (*grid, parts), (256,), *arguments)
            add_parts(device, workspace, out, geometry.depth)
