"""Products of matrices by the hand-written kernels."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from minires import backends
from minires.verify.bounds import Arithmetic
from minires.verify.enclosure import matmul
from minires.verify.exact import magnitude
from minires.verify.properties import expect

from .fences import Fence, among_nan
from .rounding import near, rounding, rounding_of_rung, within

SIZES_OF_PRODUCTS = (
    (1, 1, 1), (37, 65, 19), (130, 3, 40), (5, 140, 33), (128, 128, 16), (1, 257, 7), (64, 60, 600),
)  # fmt: skip


def products_of_rung(rung: str, dtype: Any = None) -> None:
    """Every size, transposed operands, gaps between rows and columns.

    dtype   None: the most precise that the rung has
    """
    from minires.backends.kernels.gemm import gemm
    from minires.backends.kernels.provider import Emulator

    dtype = dtype or (np.float32 if rung.endswith(("tf32", "bf16")) else np.float64)
    rng = np.random.default_rng(8)
    fence = Fence()
    for M, N, K in SIZES_OF_PRODUCTS:
        for order, (a_transposed, b_transposed) in enumerate(itertools.product([False, True], repeat=2)):
            a = rng.standard_normal((K, M) if a_transposed else (M, K)).astype(dtype)
            b = rng.standard_normal((N, K) if b_transposed else (K, N)).astype(dtype)
            a, b = (among_nan(m.T if transposed else m) for m, transposed in ((a, a_transposed), (b, b_transposed)))
            out = fence.empty((M, N), dtype)
            gemm(Emulator(order), rung, a, b, out)
            near(out, a.astype(float) @ b, rounding_of_rung(rung, dtype), f"{rung} {M}×{K} · {K}×{N}")
            arithmetic = Arithmetic.of(dtype, "emulated", gemm=rung)
            bound = arithmetic.products(K, magnitude(a, b), arithmetic.multiplied)
            within(out, matmul(a, b), bound, f"{rung} {M}×{K} · {K}×{N}")
    a = rng.standard_normal((80, 70)).astype(dtype)[::2, ::3]
    b = rng.standard_normal((48, 90)).astype(dtype)[::2, 5:55]
    room = fence.empty((40, 60), dtype)
    gemm(Emulator(), rung, a, b, room[:, 5:55])
    near(room[:, 5:55], a.astype(float) @ b, rounding_of_rung(rung, dtype), f"{rung} with gaps")
    expect(bool(np.isnan(room[:, :5]).all() and np.isnan(room[:, 55:]).all()), f"{rung} wrote between the rows of C")
    fence.check()


def native_products(isa: str = "auto") -> None:
    rng = np.random.default_rng(9)
    fence = Fence()
    with backends.backend("native", isa=isa) as backend:
        for (M, N, K), dtype in itertools.product(
            (*SIZES_OF_PRODUCTS, (40, 50, 700), (300, 20, 50), (9, 4, 0)), (np.float32, np.float64)
        ):
            a, b, bias = (rng.standard_normal(shape).astype(dtype) for shape in ((M, K), (K, N), (N,)))
            exact = a.astype(float) @ b
            for transposed, start in itertools.product([False, True], [None, bias]):
                c = fence.empty((M, N), dtype)
                backend.kernels.matmul(a, b.T.copy() if transposed else b, transposed, start, c)
                name = f"matmul {M}×{K} · {K}×{N}"
                near(c, exact + (0 if start is None else bias), rounding(dtype, K), name)
            c = fence.empty((M, N), dtype)
            backend.kernels.matmul_at(a.T.copy(), b, c)
            near(c, exact, rounding(dtype, K), f"matmul_at {M}×{K} · {K}×{N}")
    fence.check()
