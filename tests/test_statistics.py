"""The statistics of an array in one line, against sums by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from minires.statistics import Statistics


def test_of_the_finite_elements():
    message = Statistics.of(np.array([[1.0, 3.0, np.nan, np.inf], [0.0, -np.inf, 0.0, 0.0]]))
    assert (message.shape, message.dtype, message.size) == ((2, 4), "float64", 8)
    assert (message.zeros, message.nans, message.infs) == (3, 1, 2)
    assert (message.mean, message.min, message.max) == (0.8, 0.0, 3.0)
    assert message.std == pytest.approx(math.sqrt(10 / 5 - 0.8**2), rel=1e-15)  # of the numbers, not of a sample
    assert message.norm == pytest.approx(math.sqrt(10), rel=1e-15)
    assert str(message) == ("(2, 4) float64: mean 0.8, std 1.166, min 0, max 3, norm 3.162, zeros 38 %, NaN 1, Inf 2")


@pytest.mark.parametrize(
    ("array", "norm"),
    [(np.full(4, 3e38, np.float32), 2 * float(np.float32(3e38))), (np.full(100, 255, np.uint8), 2550.0)],
)
def test_squares_that_leave_the_arrays_own_type(array, norm):
    assert Statistics.of(array).norm == pytest.approx(norm, rel=1e-15)


def test_of_nothing_finite():
    for array in (np.empty(0), np.full(3, np.nan)):
        message = Statistics.of(array)
        assert math.isnan(message.mean)
        assert math.isnan(message.norm)
        assert (message.nans, message.infs, message.zeros) == (array.size, 0, 0)
