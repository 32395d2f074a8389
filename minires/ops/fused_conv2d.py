"""A convolution and what follows it, as one operation: batch norm in evaluation, the skip-add, ReLU.

`Module.fuse()` makes the networks use it.  The convolution's sums are normalised, added to and rectified while they are
still in registers.  The bits are those of the operations one by one.
"""

from __future__ import annotations

from minires.arrays import Array
from minires.backends import fused
from minires.ops.conv2d import Conv2d, Pair


class FusedConv2d(Conv2d):
    """y = relu?( (x ⋆ w + b − mean) / √(var + eps) · gamma + beta  + shortcut )

    x (N, C, H, W), w (O, C/groups, KH, KW), b (O,), gamma and beta (O,), shortcut (N, O, OH, OW)  ->  y (N, O, OH, OW)
    All but x and w may be None.  Without the running statistics (O,) there is no batch norm; `relu` says whether there
    is a ReLU.

    backward computes the convolution a second time where batch norm needs its output, instead of keeping it.
    """

    def __init__(
        self,
        stride: Pair,
        padding: Pair,
        dilation: Pair,
        groups: int,
        running_mean: Array | None,
        running_var: Array | None,
        eps: float,
        relu: bool,
    ) -> None:
        super().__init__(stride, padding, dilation, groups)
        self.running_mean = running_mean
        self.running_var = running_var
        self.eps = eps
        self.relu = relu

    def forward(  # type: ignore[override]
        self, x: Array, w: Array, b: Array | None, gamma: Array | None, beta: Array | None, shortcut: Array | None
    ) -> Array:  # fmt: skip
        self.check(x, w, b)
        OH, OW = (
            (n + 2 * p - d * (k - 1) - 1) // s + 1
            for n, k, s, p, d in zip(x.shape[2:], w.shape[2:], *self.geometry[:3], strict=True)
        )
        if shortcut is not None and shortcut.shape != (x.shape[0], w.shape[0], OH, OW):
            raise ValueError(f"shortcut must have shape {(x.shape[0], w.shape[0], OH, OW)}, got {shortcut.shape}")
        norm = None
        if self.running_mean is not None and self.running_var is not None:
            norm = self.running_mean.copy(), self.running_var.copy(), gamma, beta, self.eps
        y = fused(self.backend, "fused_conv2d_forward")(x, w, b, norm, shortcut, self.relu, *self.geometry)
        self.saved = x, w, b, norm, y
        return y

    def backward(self, grad_output: Array) -> tuple[Array | None, ...]:
        x, w, b, norm, y = self.saved
        grad = self.backend.relu_backward(grad_output, y) if self.relu else grad_output  # of the sum
        grad_conv, grad_gamma, grad_beta = grad, None, None
        if norm is not None:
            mean, var, gamma, _, eps = norm
            conv = self.backend.conv2d_forward(x, w, b, *self.geometry)
            grad_conv, grad_gamma, grad_beta = self.backend.batch_norm_eval_backward(grad, conv, mean, var, gamma, eps)
        return *self.gradients(grad_conv, x, w), grad_gamma, grad_beta, grad
