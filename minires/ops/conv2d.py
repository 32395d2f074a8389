"""2-D convolution (as every framework has it: cross-correlation)."""

from __future__ import annotations

from minires.arrays import Array
from minires.autograd import Function

Pair = tuple[int, int]


class Conv2d(Function):
    """y[n,o,i,j] = Σ_c,p,q  x[n, c, i·s+p·d−pad, j·s+q·d−pad] · w[o,c,p,q]  +  b[o]

    x (N, C, H, W), w (O, C/groups, KH, KW), b (O,) or None  ->  y (N, O, OH, OW),
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

    def forward(self, x: Array, w: Array, b: Array | None) -> Array:
        self.check(x, w, b)
        self.saved = x, w
        return self.backend.conv2d_forward(x, w, b, *self.geometry)

    def backward(self, grad_output: Array) -> tuple[Array | None, ...]:
        x, w = self.saved
        return self.gradients(grad_output, x, w)

    def gradients(self, grad_output: Array, x: Array, w: Array) -> tuple[Array | None, Array | None, Array | None]:
        wants_x, wants_w, wants_b = self.needs_input_grad[:3]
        return (
            self.backend.conv2d_backward_input(grad_output, w, x.shape, *self.geometry) if wants_x else None,
            self.backend.conv2d_backward_weight(grad_output, x, w.shape, *self.geometry) if wants_w else None,
            self.backend.conv2d_backward_bias(grad_output) if wants_b else None,
        )

    def check(self, x: Array, w: Array, b: Array | None) -> None:
        def complain(problem: str) -> None:
            raise ValueError(
                f"conv2d: {problem} (x {x.shape}, weight {w.shape}, bias {None if b is None else b.shape}, "
                f"stride {self.stride}, padding {self.padding}, dilation {self.dilation}, groups {self.groups})"
            )

        O, Cg, *kernel = w.shape
        if O < 1 or Cg < 1:
            complain("weight has no filters or no channels")
        if x.shape[1] != Cg * self.groups:
            complain(f"x has {x.shape[1]} channels, weight takes {Cg} in each of the groups")
        if O % self.groups:
            complain(f"weight's {O} filters cannot be divided among the groups")
        if b is not None and b.shape != (O,):
            complain(f"bias must have shape ({O},)")
        for axis, size, k, p, d in zip("HW", x.shape[2:], kernel, self.padding, self.dilation, strict=True):
            if k < 1:
                complain("weight has an empty kernel")
            if size + 2 * p < d * (k - 1) + 1:
                complain(f"the kernel spans {d * (k - 1) + 1} along {axis}, more than the padded x with {size + 2 * p}")
