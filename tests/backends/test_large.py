"""Sizes beyond what a float counts (2^24), what 32 bits index (2^31) and what any memory holds.

The largest need 20 GB: `pytest -m slow tests/backends/test_large.py`.
"""

from __future__ import annotations

import os

import numpy as np
import pytest

import minires as mr
import minires.functional as F
from minires import backends
from minires.backends.kernels import conv2d as ladder
from minires.backends.kernels import gemm, provider

BACKENDS = [
    pytest.param(name, marks=[pytest.mark.skip(reason=reason)] if reason else [])
    for name, reason in backends.available().items()
    if name in ("reference", "native")
]
MANY = 3 * 2**23  # a float32 that counts ones stands still at two thirds of it


@pytest.fixture(params=BACKENDS)
def backend(request):
    with mr.backend(request.param):
        yield request.param


# -- beyond what a float counts


def test_softmax_over_more_classes_than_a_float_counts(backend):
    x = mr.tensor(np.zeros((1, MANY), np.float32), requires_grad=True)
    y = F.softmax(x)
    assert y.data[0, 0] == pytest.approx(1 / MANY, rel=1e-5)
    assert y.data.sum(dtype=np.float64) == pytest.approx(1, rel=1e-5)
    with mr.no_grad():
        assert F.log_softmax(x).data[0, -1] == pytest.approx(-np.log(MANY), rel=1e-5)


def test_cross_entropy_over_more_classes_than_a_float_counts(backend):
    x = mr.tensor(np.zeros((1, MANY), np.float32), requires_grad=True)
    loss = F.cross_entropy(x, np.array([MANY - 1]), label_smoothing=0.5)
    assert loss.item() == pytest.approx(np.log(MANY), rel=1e-5)
    loss.backward()
    assert x.grad[0, -1] == pytest.approx(-0.5, rel=1e-5)
    assert x.grad.sum(dtype=np.float64) == pytest.approx(0, abs=1e-5)


def test_an_average_of_more_pixels_than_a_float_counts(backend):
    image = mr.tensor(np.broadcast_to(np.float32(1), (1, 1, 2**12, MANY // 2**12)))
    assert F.adaptive_avg_pool2d(image, 1).item() == pytest.approx(1, rel=1e-6)
    if backend == "native":  # the reference backend goes over the taps of a window one by one
        assert F.avg_pool2d(image, image.shape[2:]).item() == pytest.approx(1, rel=1e-6)


@pytest.mark.parametrize("shape", [(MANY,), (MANY, 1), (MANY // 2**10, 2, 2**10)])
def test_sums_and_means_of_more_numbers_than_a_float_counts(shape):
    x = mr.tensor(np.broadcast_to(np.float32(1), shape))
    axis = (0, 2) if len(shape) == 3 else 0
    assert np.ravel(x.sum(axis).data)[0] == MANY
    assert np.ravel(x.mean(axis).data)[0] == 1


# -- beyond what 32 bits index: refused in words where a kernel counts in them


@pytest.mark.parametrize("shape", [(1 << 16, 3, 1 << 12, 1 << 10), (1, 1, 1 << 20, 1 << 20)])
def test_the_cuda_kernels_refuse_more_pixels_than_they_count(shape):
    geometry = ladder.Geometry.of(shape, (8, shape[1], 3, 3), (1, 1), (1, 1), (1, 1), 1)
    for count in ("pixels", "arguments"):
        with pytest.raises(ValueError, match=r"fewer than the kernels' 32-bit integers count, got \d+; use a smaller"):
            getattr(geometry, count)


def test_more_blocks_than_a_gpu_launches_are_refused():
    """A GEMM of the ladder has its rows along y, where a grid ends at 65,535."""
    most = 65_535 * gemm.TILE
    grid, _ = gemm._shape_of_launch("gemm_07_warps", most, 64)
    provider.check_grid("gemm_07_warps", grid)
    grid, _ = gemm._shape_of_launch("gemm_07_warps", most + 1, 64)
    with pytest.raises(ValueError, match=r"gemm_07_warps: a grid of \(1, 65536\) blocks is beyond .*a smaller batch"):
        provider.check_grid("gemm_07_warps", grid)
    with pytest.raises(ValueError, match="gemm_08_split_k: a grid of"):
        provider.check_grid("gemm_08_split_k", (1, 1, 70_000))


@pytest.mark.skipif(bool(backends.available()["emulated"]), reason="the emulator is not built")
def test_the_emulator_refuses_what_a_gpu_would():
    x, w = np.broadcast_to(np.float32(1), (1, 65_535 * 128 + 1, 1)), np.ones((1, 1), np.float32)
    with mr.backend("emulated", gemm="gemm_07_warps"), pytest.raises(ValueError, match="a grid of"):
        F.linear(x, w)


def test_a_pooling_refuses_more_taps_than_it_numbers(backend):
    x = np.ones((1, 1, 4, 4), np.float32)
    with pytest.raises(ValueError, match="max_pool2d: kernel_size must have at most 2147483647 taps"):
        F.max_pool2d(x, 2**16, padding=2**15, stride=2**16)


@pytest.mark.skipif(bool(backends.available()["native"]), reason="the native backend is not built")
def test_sizes_of_buffers_do_not_wrap_around():
    """The products that size a buffer, for shapes that exceed any machine's memory."""
    from minires.backends.native.compiled import instruction_set

    size = instruction_set("auto").conv2d_filters_size
    w = np.broadcast_to(np.float32(0), (2**20, 2**20, 3, 3))  # its strides are 0
    found = size((1, 8, 8, 2**20), w, (1, 6, 6, 2**20), (1, 1), (0, 0), (1, 1), 1, False)
    assert 9 * 2**40 <= found < 10 * 2**40


# -- beyond any memory: said, and nothing is changed


@pytest.mark.parametrize(
    "call",
    [
        lambda: F.conv2d(np.ones((1, 1, 4, 4), np.float32), np.ones((1, 1, 1, 1), np.float32), padding=2**24),
        lambda: F.pad(np.ones(3, np.float32), ((0, 2**45),)),
        lambda: mr.nn.Linear(2**31 - 1, 2**31 - 1),
    ],
)
def test_more_than_any_memory_is_a_clear_error(backend, call):
    with pytest.raises((MemoryError, ValueError)) as failure:
        call()
    assert any(character.isdigit() for character in str(failure.value)), failure.value


# -- as large as this machine's memory allows


def needs(gigabytes):
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    if free < gigabytes:
        pytest.skip(f"needs {gigabytes} GB of free memory, there are {free:.0f}")


@pytest.mark.slow
def test_two_billion_elements_through_relu(backend):
    needs(20)
    x = np.zeros(2**31 + 17, np.float32)
    x[0], x[-1], x[-2] = 3, 5, -7
    y = F.relu(x)
    assert (y.data[0], y.data[-1], y.data[-2], y.data[2**31 - 1]) == (3, 5, 0, 0)


@pytest.mark.slow
def test_two_billion_pixels_through_a_convolution_and_a_pooling(backend):
    """N·C·H·W is above 2^31, the outputs are few: the stride steps over most of x, whose last pixels count."""
    needs(20)
    N, H, W = 2, 2**15 + 1, 2**15 + 1
    x = np.zeros((N, 1, H, W), np.float32)
    x[0, 0, 0, 0], x[-1, 0, -1, -1] = 2, 3
    y = F.conv2d(x, np.ones((1, 1, 1, 1), np.float32), stride=2**15)
    assert y.shape == (2, 1, 2, 2)
    assert (y.data[0, 0, 0, 0], y.data[-1, 0, -1, -1], y.data.sum()) == (2, 3, 5)
    y = F.max_pool2d(x, 1, stride=2**15)
    assert (y.data[0, 0, 0, 0], y.data[-1, 0, -1, -1], y.data.sum()) == (2, 3, 5)
