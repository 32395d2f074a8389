"""Whether a backend computes what the reference backend does, kernel by kernel: sizes that no block divides, every
memory layout, several orders of the threads.

Arrays that a kernel is to fill begin as NaN and have a fence around them: a number left out shows, and so does one that
was written outside.  What it reads lies among NaN.  Every check raises AssertionError.
"""

from .convolutions import (
    check_convolution,
    convolutions_of_rung,
    fused_epilogue,
    native_convolutions,
    what_follows_a_convolution,
)
from .operations import agree_with_reference
from .passes import (
    adds_with_relu,
    batch_norm_fused,
    batch_norm_gradients_behind_relu,
    between_kernels,
    digest_sees_every_change,
    native_sgd,
    sgd_of_kernel,
    small_grids,
    sums_of_pixels,
)
from .products import native_products, products_of_rung

__all__ = [
    "adds_with_relu",
    "agree_with_reference",
    "batch_norm_fused",
    "batch_norm_gradients_behind_relu",
    "between_kernels",
    "check_convolution",
    "convolutions_of_rung",
    "digest_sees_every_change",
    "fused_epilogue",
    "native_convolutions",
    "native_products",
    "native_sgd",
    "products_of_rung",
    "sgd_of_kernel",
    "small_grids",
    "sums_of_pixels",
    "what_follows_a_convolution",
]
