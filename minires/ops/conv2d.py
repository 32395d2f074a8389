"""2-D convolution (as every framework has it: cross-correlation)."""

from __future__ import annotations

from minires.arrays import Array
from minires.autograd import Function

Pair = tuple[int, int]


class Conv2d(Function):
    """y[n,o,i,j] = Σ_c,p,q  x[n, c, i·s+p·d−pad, j·s+q·d−pad] · weight[o,c,p,q]  +  bias[o]

    x (N, C, H, W), weight (O, C/groups, KH, KW), bias (O,) or None  ->  y (N, O, OH, OW),
    OH = ⌊(H + 2·pad − d·(KH−1) − 1) / s⌋ + 1, OW alike; stride, padding and dilation are (h, w) pairs.

    Raises ValueError naming the argument when shapes, stride or padding don't fit.
    """

    def __init__(self, stride: Pair, padding: Pair, dilation: Pair, groups: int) -> None:
        self.stride = stride
        self.padding = padding
        self.dilation = dilation
        self.groups = groups

    @property
    def geometry(self) -> tuple[Pair, Pair, Pair, int]:
        return self.stride, self.padding, self.dilation, self.groups

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
        problem = self.problem(x, weight, bias)
        if problem:
            raise ValueError(
                f"conv2d: {problem} (x {x.shape}, weight {weight.shape}, bias {None if bias is None else bias.shape}, "
                f"stride {self.stride}, padding {self.padding}, dilation {self.dilation}, groups {self.groups})"
            )

    def problem(self, x: Array, weight: Array, bias: Array | None) -> str:
        """What does not fit; "" where everything does."""
        O, Cg, *kernel = weight.shape
        if O < 1 or Cg < 1:
            return "weight has no filters or no channels"
        if x.shape[1] != Cg * self.groups:
            return f"x has {x.shape[1]} channels, weight takes {Cg} in each of the groups"
        if O % self.groups:
            return f"weight's {O} filters cannot be divided among the groups"
        if bias is not None and bias.shape != (O,):
            return f"bias must have shape ({O},)"
        for axis, size, taps, pad, spread in zip("HW", x.shape[2:], kernel, self.padding, self.dilation, strict=True):
            span = spread * (taps - 1) + 1
            if taps < 1:
                return "weight has an empty kernel"
            if size + 2 * pad < span:
                return f"the kernel spans {span} along {axis}, more than the padded x with {size + 2 * pad}"
        return ""
