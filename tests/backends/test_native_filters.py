"""Filters that are kept from call to call, and the digest that detects changed weights."""

from __future__ import annotations

import gc

import numpy as np
import pytest

import minires as mr
from minires import backends

if backends.available()["native"]:
    pytest.skip(backends.available()["native"], allow_module_level=True)

from minires import nn
from minires.backends.native import filters
from minires.backends.native.compiled import instruction_set, native

SETS = [name for name, kernels in native().instruction_sets().items() if kernels is not None]


@pytest.fixture
def arranged(monkeypatch):
    """How often filters were arranged."""
    calls = []

    def counting(kernels, x_shape, w, y_shape, options):
        calls.append(w.shape)
        return original(kernels, x_shape, w, y_shape, options)

    original = filters.arranged
    monkeypatch.setattr(filters, "arranged", counting)
    return calls


CHANGES = {
    "one number": lambda w: w.__setitem__((2, 1, 0, 1), 7),
    "its last number": lambda w: w.__setitem__((-1, -1, -1, -1), 7),
    "the sign of all": lambda w: np.negative(w, out=w),
    "two numbers change places": lambda w: w.__setitem__(0, w[0, :, ::-1].copy()),
    "all scaled": lambda w: np.multiply(w, 2, out=w),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("winograd", [True, False])
@pytest.mark.parametrize("isa", SETS)
def test_changed_weights_are_noticed(rng, arranged, isa, winograd, change):
    with mr.backend("native", isa=isa, winograd=winograd), mr.no_grad():
        layer = nn.Conv2d(8, 16, 3, padding=1)
        fused = nn.Sequential(layer, nn.ReLU()).fuse(training=True)
        x = mr.tensor(rng.standard_normal((2, 8, 12, 12), np.float32))
        for _ in range(3):
            fused(x)
        assert len(arranged) == 1
        CHANGES[change](layer.weight.data)
        found = fused(x).data
        assert len(arranged) == 2
        expected = nn.ReLU()(layer(x)).data  # which keeps nothing
    assert np.array_equal(found, expected)


def test_only_the_fused_convolution_keeps_filters(rng, arranged):
    with mr.backend("native"):
        layer = nn.Conv2d(4, 4, 1, bias=False)
        x = mr.tensor(rng.standard_normal((1, 4, 5, 5), np.float32))
        for _ in range(2):
            layer(x)
    assert arranged == []  # (the counter stands before the kept ones alone)


def test_filters_go_with_their_weights(rng):
    kept = filters.KeptFilters()
    kernels = instruction_set("auto")
    w = rng.standard_normal((4, 3, 1, 1)).astype(np.float32)
    options = ((1, 1), (0, 0), (1, 1), 1, True)
    kept.arranged(kernels, (1, 5, 5, 3), w, (1, 5, 5, 4), options)
    assert len(kept._kept) == 1
    del w
    gc.collect()
    assert not kept._kept


@pytest.mark.parametrize("isa", SETS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [0, 1, 127, 128, 129, 5000])
def test_digest(rng, isa, dtype, size):
    kernels = instruction_set(isa)
    x = rng.standard_normal(size).astype(dtype)
    first = kernels.digest(x)
    assert len(first) == 512
    before = mr.get_num_threads()
    try:
        for threads in (1, 2, 3):
            mr.set_num_threads(threads)
            assert kernels.digest(x) == first
    finally:
        mr.set_num_threads(before)
    for position in {0, size // 2, size - 1} if size else ():
        other = x.copy()
        other[position] = np.nextafter(other[position], np.inf, dtype=dtype)
        assert kernels.digest(other) != first
