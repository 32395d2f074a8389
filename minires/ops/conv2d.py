"""2-D convolution (as every framework has it: cross-correlation)."""

from __future__ import annotations

from operator import attrgetter
from typing import Any

from minires.arrays import Array
from minires.autograd import Function

Pair = tuple[int, int]


class Conv2d(Function):
    """y[n,o,i,j] = Σ_c,p,q  x[n, c, i·s+p·d−pad, j·s+q·d−pad] · weight[o,c,p,q]  +  bias[o]

    ∂x[n,c,h,w] = Σ_o,p,q  g[n,o,i,j] · weight[o,c,p,q]  over all i, j with i·s+p·d−pad = h, j·s+q·d−pad = w
    ∂weight[o,c,p,q] = Σ_n,i,j  g[n,o,i,j] · x[n, c, i·s+p·d−pad, j·s+q·d−pad];  ∂bias[o] = Σ_n,i,j  g[n,o,i,j]

    x (N, C, H, W), weight (O, C/groups, KH, KW), bias (O,) or None  ->  y (N, O, OH, OW),
    OH = ⌊(H + 2·pad − d·(KH−1) − 1) / s⌋ + 1, OW alike; stride, padding and dilation are (h, w) pairs.

    Raises ValueError naming the argument when shapes, stride or padding don't fit.
    """

    def __init__(self, stride: Pair, padding: Pair, dilation: Pair, groups: int) -> None:
        self.stride, self.padding, self.dilation, self.groups = stride, padding, dilation, groups

    geometry: Any = property(attrgetter("stride", "padding", "dilation", "groups"))

    def forward(self, x: Array, weight: Array, bias: Array | None) -> Array:
        self.check(x, weight, bias)
        self.saved = x, weight  # (N, C, H, W), (O, C/groups, KH, KW)
        return self.backend.conv2d_forward(x, weight, bias, *self.geometry)  # (N, O, OH, OW)

    def backward(self, grad_output: Array) -> tuple[Array | None, ...]:
        x, weight = self.saved  # (N, C, H, W), (O, C/groups, KH, KW)
        wants_x, wants_weight, wants_bias = self.needs_input_grad
        return (
            self.backend.conv2d_backward_input(grad_output, weight, x.shape, *self.geometry) if wants_x else None,
            self.backend.conv2d_backward_weight(grad_output, x, weight.shape, *self.geometry) if wants_weight else None,
            self.backend.conv2d_backward_bias(grad_output) if wants_bias else None,
        )

    def check(self, x: Array, weight: Array, bias: Array | None) -> None:
        """Raises ValueError naming what does not fit."""
        O, Cg, KH, KW = weight.shape
        H, W = x.shape[2] + 2 * self.padding[0], x.shape[3] + 2 * self.padding[1]
        span_h, span_w = self.dilation[0] * (KH - 1) + 1, self.dilation[1] * (KW - 1) + 1
        if O < 1 or Cg < 1:
            problem = "weight has no filters or no channels"
        elif x.shape[1] != Cg * self.groups:
            problem = f"x has {x.shape[1]} channels, weight takes {Cg} in each of the groups"
        elif O % self.groups:
            problem = f"weight's {O} filters cannot be divided among the groups"
        elif bias is not None and bias.shape != (O,):
            problem = f"bias must have shape ({O},)"
        elif KH < 1 or KW < 1:
            problem = "weight has an empty kernel"
        elif span_h > H:
            problem = f"the kernel spans {span_h} along H, more than the padded x with {H}"
        elif span_w > W:
            problem = f"the kernel spans {span_w} along W, more than the padded x with {W}"
        else:
            return
        raise ValueError(
            f"conv2d: {problem} (x {x.shape}, weight {weight.shape}, bias {None if bias is None else bias.shape}, "
            f"stride {self.stride}, padding {self.padding}, dilation {self.dilation}, groups {self.groups})"
        )
