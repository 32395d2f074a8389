"""Three bugs for test_planted_kernels: one that a check catches, one that crashes, and one that changes nothing."""

from __future__ import annotations

from functools import partial

from minires.verify import agreement
from minires.verify.planted.mutant import within

CHECKS = [partial(agreement.agree_with_reference, "native", "relu")]
MUTANTS = tuple(
    within("relu_forward", "cpu/elementwise.h", "void relu_forward(", CHECKS, [
        ("y[i] = ‹rectified(x[i])›", "x[i]"),
        ("y[i] = ‹rectified(x[i])›", "*static_cast<T*>(nullptr)"),
        ("y[i] = ‹rectified(x[i])›", "rectified(x[i]) + T(0)"),
    ])
)  # fmt: skip
