"""The convolutions of a network, and the three directions of one beside PyTorch."""

from __future__ import annotations

import numpy as np
import pytest

from minires import backends
from minires.bench import layers
from minires.bench.layers import Convolution, convolutions


def test_convolutions_are_those_of_the_networks():
    found = convolutions(["resnet20", "resnet32"])
    assert len(found) == 6
    assert found[Convolution((3, 32, 32), (16, 3, 3, 3), (1, 1), (1, 1))] == ["resnet20", "resnet32"]
    assert [str(c) for c in found][:3] == ["3×32×32 → 16, 3×3", "16×32×32 → 16, 3×3", "16×32×32 → 32, 3×3/2"]
    strided = list(found)[2]
    assert strided.y == (32, 16, 16)
    assert strided.operations(4) == 2 * 4 * 32 * 16 * 16 * 16 * 9


def test_table_1_has_the_stem_and_the_projections():
    found = convolutions(["resnet18", "resnet34"])
    assert len(found) == 11
    assert {c.w[2:] for c in found} == {(7, 7), (3, 3), (1, 1)}
    assert all(having == ["resnet18", "resnet34"] for having in found.values())


@pytest.mark.parametrize("channels_last", [False, True])
def test_both_sides_compute_the_same(channels_last):
    pytest.importorskip("torch")
    convolution = Convolution((5, 9, 8), (6, 5, 3, 3), (2, 2), (1, 1))
    with backends.backend("reference"):
        ours = layers.Ours(backends.get_num_threads())
    import torch

    peer = layers.Torch(torch.get_num_threads(), channels_last)
    try:
        for side in (ours, peer):
            side.take(convolution, 2)
        for direction in layers.DIRECTIONS:
            for side in (ours, peer):
                getattr(side, direction)()
            found, expected = ours.result(direction), peer.result(direction)
            assert found.shape == expected.shape
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    finally:
        torch.set_grad_enabled(True)
