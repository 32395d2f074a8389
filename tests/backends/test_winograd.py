"""Winograd's algorithm computes whole tiles: how far a huge pixel, a NaN or an infinity reaches, and the rounding."""

from __future__ import annotations

import numpy as np
import pytest

import minires as mr
import minires.functional as F
from minires import backends
from minires.verify.bounds import FACTORS, WINOGRAD, Arithmetic, winograd_terms

F4, F2 = WINOGRAD["F4"], WINOGRAD["F2"]
KINDS = [
    pytest.param(
        name, options, matrices, id=name, marks=pytest.mark.skipif(bool(backends.available()[name]), reason=name)
    )
    for name, options, matrices in (
        ("native", {"winograd": True}, F4),
        ("emulated", {"conv2d": "conv_08_winograd"}, F2),
    )
]
N, C, O, H, W = 2, 8, 9, 13, 15
SPOT = (1, 3, 6, 7)  # image, channel, row, column


def patches(x, size, step):
    """(N, C, H, W), padded by 1 -> (N, TH, TW, C, size, size): what each tile of step × step outputs sees"""
    rows, columns = -(-H // step), -(-W // step)
    padded = np.pad(x, ((0, 0), (0, 0), (1, size), (1, size)))
    return np.array(
        [
            [[padded[n, :, i * step :][:, :size, j * step :][:, :, :size] for j in range(columns)] for i in range(rows)]
            for n in range(N)
        ]
    )


def images(tiles):
    """(N, TH, TW, O, step, step) -> (N, O, H, W)"""
    n, th, tw, o, step, _ = tiles.shape
    return tiles.transpose(0, 3, 1, 4, 2, 5).reshape(n, o, th * step, tw * step)[:, :, :H, :W]


def winograd(x, w, matrices):
    """Yᵀ = Aᵀ [ (G g Gᵀ) ⊙ (Bᵀ d B) ] A of each tile"""
    B_T, G, A_T = (np.array(m, np.float64) for m in matrices)
    d = patches(x, len(B_T), len(A_T))
    products = np.einsum("nhwcpq,ocpq->nhwopq", B_T @ d @ B_T.T, G @ w @ G.T)
    return images(A_T @ products @ A_T.T)


def computed(name, options, x, w):
    with mr.backend(name, **options):
        return F.conv2d(x, w, None, 1, 1).data.copy()


def absolute(matrices):
    return [np.abs(m) for m in matrices]


@pytest.mark.parametrize(("name", "options", "matrices"), KINDS)
def test_rounding_of_a_huge_pixel_stays_in_its_tiles_and_below_the_bound(rng, name, options, matrices):
    x, w = rng.standard_normal((N, C, H, W)).astype(np.float32), rng.standard_normal((O, C, 3, 3)).astype(np.float32)
    usual = computed(name, options, x, w)
    x[SPOT] = 3e4
    found = computed(name, options, x, w)
    wide = x.astype(np.float64), w.astype(np.float64)
    exact = winograd(*wide, matrices)
    direct = winograd(*wide, F2 if matrices is F4 else F4)
    assert abs(exact - direct).max() <= 1e-9  # the formula is that of the convolution
    which = "F4" if matrices is F4 else "F2"
    terms = winograd(abs(wide[0]), abs(wide[1]), absolute(matrices))
    assert np.allclose(terms, winograd_terms(x, w, (1, 1), (H, W), which), rtol=1e-12)
    assert (abs(found - exact) <= Arithmetic.of(np.float32).gamma(C + FACTORS[which]) * terms).all()
    indicator = np.zeros(x.shape)
    indicator[SPOT] = 1
    apart = winograd(indicator, np.ones(w.shape), absolute(matrices)) == 0
    assert apart.mean() > 0.8
    assert np.array_equal(found[apart], usual[apart])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(("name", "options", "matrices"), KINDS)
def test_a_number_that_is_not_finite_reaches_its_tiles_alone(rng, name, options, matrices, value):
    x, w = rng.standard_normal((N, C, H, W)).astype(np.float32), rng.standard_normal((O, C, 3, 3)).astype(np.float32)
    usual = computed(name, options, x, w)
    x[SPOT] = value
    found = computed(name, options, x, w)
    indicator = np.zeros(x.shape)
    indicator[SPOT] = 1
    reached = winograd(indicator, np.ones(w.shape), absolute(matrices)) != 0
    seen = np.zeros(found.shape, bool)
    n, _, row, column = SPOT
    seen[n, :, row - 1 : row + 2, column - 1 : column + 2] = True
    assert (reached & seen).sum() == seen.sum()
    assert (reached.sum() > seen.sum()) == (matrices is F4)  # where points are not 0 and ±1, others are reached too
    assert np.array_equal(~np.isfinite(found), reached)
    assert np.array_equal(found[~reached], usual[~reached])
    plain = computed(name, {"winograd": False} if name == "native" else {}, x, w)
    assert np.array_equal(~np.isfinite(plain), seen)
