"""The exercises, in a path from easy to hard."""

from __future__ import annotations

from minires.exercises.task import Exercise
from minires.exercises.tasks import batch_norm, block, columns, conv2d, pointwise, pool, training

_ALL = {
    one.name: one
    for module in (pointwise, pool, conv2d, batch_norm, training, block, columns)
    for one in module.EXERCISES
}
PATH = (
    *("relu_backward", "linear_backward", "skip_add_backward", "softmax_cross_entropy_backward", "sgd_momentum"),
    *("he_init", "avg_pool2d_backward", "max_pool2d_backward", "conv2d_forward", "im2col", "col2im"),
    *("conv2d_backward", "batch_norm_forward", "batch_norm_backward", "residual_block"),
    *("avg_pool2d_backward_ceil", "conv2d_backward_grouped"),
)
EXERCISES: dict[str, Exercise] = {name: _ALL[name] for name in PATH}
