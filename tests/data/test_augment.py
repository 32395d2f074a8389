"""Augmentation: what may happen to an image, and only in training."""

from __future__ import annotations

import numpy as np
import pytest

from minires.data import Augmentation, Dataset, Transform, pixel_mean
from minires.data.augment import COLOUR_VALUES, COLOUR_VECTORS, Part, crop_and_flip, shift_colours, warp


class Fixed:
    """A generator whose every draw is known beforehand."""

    def __init__(self, *draws):
        self.draws = iter(draws)

    def uniform(self, low, high, shape):
        return np.broadcast_to(next(self.draws), shape)


def test_crops_are_windows_of_the_padded_image(rng):
    x = rng.random((200, 5, 4, 2), np.float32)
    y = crop_and_flip(x, 2, True, rng)
    padded = np.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0)))
    flips, places = 0, set()
    for image, out in zip(padded, y, strict=True):
        windows = {
            (top, left, flipped): image[top : top + 5, left : left + 4][:, :: -1 if flipped else 1]
            for top in range(5)
            for left in range(5)
            for flipped in (False, True)
        }
        (found,) = [key for key, window in windows.items() if np.array_equal(window, out)]
        places.add(found[:2])
        flips += found[2]
    assert len(places) == 25
    assert 70 <= flips <= 130  # 200 fair coins: ± 4 standard deviations


def test_without_flip_nothing_is_mirrored(rng):
    x = rng.random((50, 3, 3, 1), np.float32)
    np.testing.assert_array_equal(crop_and_flip(x, 0, False, rng), x)


def test_colours_move_along_the_principal_components(rng):
    x = rng.random((4000, 2, 2, 3), np.float32)
    moved = shift_colours(x, 0.1, rng) - x
    assert np.abs(moved - moved[:, :1, :1]).max() < 1e-6  # the image as a whole
    amounts = moved[:, 0, 0] @ np.linalg.inv(COLOUR_VECTORS.T)
    np.testing.assert_allclose(amounts.std(0), 0.1 * COLOUR_VALUES, rtol=0.06)  # 4000 draws: ± 5 · 1/√8000
    with pytest.raises(ValueError, match="3 channels, got 1"):
        shift_colours(x[..., :1], 0.1, rng)


def test_warp_by_nothing(rng):
    x = rng.random((3, 7, 9, 2), np.float32)
    np.testing.assert_allclose(warp(x, 0, 0, 0, rng), x, rtol=0, atol=1e-6)


def test_warp_by_a_quarter_turn(rng):
    x = rng.random((3, 7, 7, 2), np.float32)
    np.testing.assert_allclose(warp(x, 90, 0, 0, Fixed(90, 0, 0)), np.rot90(x, -1, (1, 2)), rtol=0, atol=1e-6)


def test_warp_by_a_whole_pixel_brings_in_black(rng):
    x = rng.random((3, 7, 9, 2), np.float32)
    moved = warp(x, 0, 0, 1, Fixed(0, 0, 1))
    np.testing.assert_allclose(moved[:, :-1, :-1], x[:, 1:, 1:], rtol=0, atol=1e-6)
    assert np.abs(moved[:, -1]).max() <= 2e-3  # the border's last thousandth
    moved = warp(x, 0, 0, 1, Fixed(0, 0, -1))
    np.testing.assert_allclose(moved[:, 1:, 1:], x[:, :-1, :-1], rtol=0, atol=1e-6)
    assert np.abs(moved[:, 0]).max() <= 1e-6
    assert np.abs(moved[:, :, 0]).max() <= 1e-6


def warped_ramps(rng, **how):
    """Of 2,000 warped images whose pixels hold their own (row, column): the centre's move, and the change of the source
    from one output row, and from one output column, to the next; each (N, 2)."""
    H, W = 21, 25
    x = np.stack(np.mgrid[:H, :W], -1).astype(np.float32)
    y = warp(np.broadcast_to(x, (2000, H, W, 2)), **{"rotate": 0, "zoom": 0, "shift": 0, **how}, rng=rng)
    centre = y[:, 10, 12]
    return centre - x[10, 12], y[:, 11, 12] - centre, y[:, 10, 13] - centre


# Of 2,000 independent uniform numbers in [−1, 1] the mean is 5 deviations from 0 at 0.065, their correlation at 0.11.


def test_warp_turns_either_way(rng):
    _, down, right = warped_ramps(rng, rotate=30)
    for angle in (np.degrees(np.arctan2(down[:, 1], down[:, 0])), np.degrees(np.arctan2(-right[:, 0], right[:, 1]))):
        assert -30.01 <= angle.min() < -29
        assert 29 < angle.max() <= 30.01


def test_warp_stretches_height_and_width_independently_and_as_often_as_it_shrinks(rng):
    _, down, right = warped_ramps(rng, zoom=1)
    stretch = np.log2(np.stack([down[:, 0], right[:, 1]]))  # 1/2 to 2
    assert np.abs(stretch).max() <= 1.001
    assert np.abs(stretch.mean(axis=1)).max() < 0.065
    assert abs(np.corrcoef(stretch)[0, 1]) < 0.11


def test_warp_moves_rows_and_columns_independently_and_either_way(rng):
    move, _, _ = warped_ramps(rng, shift=2)
    assert np.abs(move).max() <= 2.001
    assert np.abs(move.mean(axis=0)).max() < 2 * 0.065
    assert abs(np.corrcoef(move.T)[0, 1]) < 0.11


def test_warp_stays_within_the_range(rng):
    y = warp(rng.random((50, 6, 5, 1), np.float32), 180, 3, 50, rng)
    assert y.dtype == np.float32
    assert y.min() >= 0
    assert y.max() <= 1


def test_transform(rng):
    images = rng.integers(0, 256, (4, 5, 6, 3)).astype(np.uint8)
    mean = rng.random((5, 6, 3), np.float32)
    x = Transform(mean, Augmentation(pad=2, flip=True, colour=0.1, rotate=5))(images)
    np.testing.assert_allclose(x, (images / 255 - mean).transpose(0, 3, 1, 2), atol=1e-6)
    assert x.dtype == np.float32
    assert x.transpose(0, 2, 3, 1).flags.c_contiguous


@pytest.mark.parametrize(
    "augmentation",
    [
        Augmentation(pad=1),
        Augmentation(flip=True),
        Augmentation(colour=0.5),
        Augmentation(rotate=20),
        Augmentation(zoom=0.5),
        Augmentation(shift=1.5),
    ],
)
def test_augmentation_requires_a_generator(rng, augmentation):
    images = rng.integers(0, 256, (20, 5, 6, 3)).astype(np.uint8)
    transform = Transform(None, augmentation)
    np.testing.assert_array_equal(transform(images), Transform()(images))
    assert np.abs(transform(images, rng) - transform(images)).max() > 0.01


@pytest.mark.parametrize(
    "augmentation",
    [Augmentation(pad=2), Augmentation(flip=True), Augmentation(colour=0.5), Augmentation(rotate=20, zoom=1, shift=2)],
)
def test_a_part_of_a_batch_is_changed_as_in_the_whole(rng, augmentation):
    images = rng.integers(0, 256, (12, 5, 6, 3)).astype(np.uint8)
    transform, places = Transform(None, augmentation), np.array([7, 2, 11])
    whole = transform(images, np.random.default_rng(3))
    part = transform(images[places], np.random.default_rng(3), Part(places, 12))
    np.testing.assert_array_equal(part, whole[places])


def test_pixel_mean(rng):
    images = rng.integers(0, 256, (9, 5, 6, 3)).astype(np.uint8)
    dataset = Dataset("x", "train", images, np.zeros(9, int), ("a",))
    np.testing.assert_allclose(pixel_mean(dataset), images.mean(0) / 255, rtol=1e-6)


@pytest.mark.parametrize(
    "wrong", [{"pad": -1}, {"pad": 1.5}, {"colour": -0.1}, {"rotate": 181}, {"zoom": -1}, {"shift": "a"}]
)
def test_wrong_arguments(wrong):
    with pytest.raises((TypeError, ValueError), match=next(iter(wrong))):
        Augmentation(**wrong)
