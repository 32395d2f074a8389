"""A published network, end to end: from a picture's file to the probabilities of PyTorch and torchvision."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from minires.prediction import of_weights, predict

WEIGHTS = Path(__file__).parents[1] / "weights" / "data" / "resnet20-12fca82f.th"


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [
        (96, 64, {3: 0.546417, 5: 0.266726, 0: 0.160074}),
        (97, 63, {3: 0.562262, 5: 0.283177, 0: 0.131144}),
        (63, 98, {0: 0.453765, 3: 0.280995, 5: 0.174662}),
    ],
)
def test_a_published_network_sees_what_it_saw_elsewhere(tmp_path, width, height, expected):
    """ResNet-20 trained on CIFAR-10 by someone else; expected: torch 2.14 and torchvision 0.29, in float32."""
    y, x = np.mgrid[:height, :width]
    Image.fromarray((np.stack([x * 2 + y, 255 - 3 * y, 128 + x - y], 2) % 256).astype(np.uint8)).save(
        tmp_path / "x.png"
    )
    (found,) = predict(of_weights(WEIGHTS), [tmp_path / "x.png"])
    best = dict(found.top(3))
    assert list(best) == list(expected)
    # Logits of about 10 after 20 layers in float32, summed in another order, and six digits: 1e-5 of a probability.
    assert best == pytest.approx(expected, abs=1e-5)
