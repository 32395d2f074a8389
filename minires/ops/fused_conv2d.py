"""A convolution and what follows it, as one operation: batch norm in evaluation, the skip-add, ReLU.

`Module.fuse()` makes the networks use it.  The convolution's sums are normalised, added to and rectified while they are
still in registers.  The bits are those of the operations one by one.
"""

from __future__ import annotations

from minires.arrays import Array
from minires.backends import optional
from minires.backends.reference.windows import output_size
from minires.ops.batch_norm import unmoved
from minires.ops.conv2d import Conv2d, Pair


class FusedConv2d(Conv2d):
    """y = relu?( (x ⋆ weight + bias − mean) / √(var + eps) · gamma + beta  + shortcut )

    x (N, C, H, W), weight (O, C/groups, KH, KW), bias, gamma and beta (O,), shortcut (N, O, OH, OW)
    ->  y (N, O, OH, OW)

    All but x and weight may be None.  Without the running statistics (O,) there is no batch norm; `relu` is true where
    a ReLU follows.

    ∂shortcut = g where y > 0 (without relu: g).  ∂gamma, ∂beta and the convolution's gradient are BatchNorm's in
    evaluation, for ∂shortcut in place of g; ∂x, ∂weight, ∂bias are Conv2d's, for the convolution's gradient.
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
        self, x: Array, weight: Array, bias: Array | None, gamma: Array | None, beta: Array | None,
        shortcut: Array | None,
    ) -> Array:  # fmt: skip
        self.check(x, weight, bias)
        norm = None
        if self.running_mean is not None and self.running_var is not None:
            norm = *unmoved(self, self.running_mean, self.running_var), gamma, beta, self.eps
        output = output_size(x.shape[2:], weight.shape[2:], self.stride, self.padding, self.dilation)
        y_shape = x.shape[0], weight.shape[0], *output
        if shortcut is not None and shortcut.shape != y_shape:
            raise ValueError(f"shortcut must have the output's shape {y_shape}, got {shortcut.shape}")
        y = optional(self.backend, "fused_conv2d_forward")(x, weight, bias, norm, shortcut, self.relu, *self.geometry)
        self.saved = x, weight, bias, norm, y
        return y

    def backward(self, grad_output: Array) -> tuple[Array | None, ...]:
        x, weight, bias, norm, y = self.saved
        grad = self.backend.relu_backward(grad_output, y) if self.relu else grad_output  # of the sum
        grad_conv, grad_gamma, grad_beta = grad, None, None
        if norm is not None:
            mean, var, gamma, _, eps = norm
            conv = self.backend.conv2d_forward(x, weight, bias, *self.geometry)
            grad_conv, grad_gamma, grad_beta = self.backend.batch_norm_eval_backward(grad, conv, mean, var, gamma, eps)
        wants_x, wants_weight, wants_bias = self.needs_input_grad[:3]
        return (
            self.backend.conv2d_backward_input(grad_conv, weight, x.shape, *self.geometry) if wants_x else None,
            self.backend.conv2d_backward_weight(grad_conv, x, weight.shape, *self.geometry) if wants_weight else None,
            self.backend.conv2d_backward_bias(grad_conv) if wants_bias else None,
            grad_gamma,
            grad_beta,
            grad,
        )
