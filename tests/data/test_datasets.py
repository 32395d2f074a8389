"""Data sets as a whole: found, named, averaged, and read in spite of a broken picture in the middle."""

from __future__ import annotations

import itertools
import threading

import numpy as np
import pytest
from PIL import Image

from minires import data
from minires.data import Dataset, FolderImages, Loader, Transform, pixel_mean


def pictures(folder, n, rng):
    """n pictures of noise; their FolderImages."""
    paths = [folder / f"{i}.png" for i in range(n)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (20, 30, 3)).astype(np.uint8)).save(path)
    return FolderImages(paths, 8)


@pytest.mark.parametrize("function", [data.load, data.find, data.recipe])
def test_unknown_names(function):
    with pytest.raises(ValueError, match=r"unknown data set 'cifar100'.*Did you mean 'cifar10'\?"):
        function("cifar100")


def test_size_cannot_be_chosen_for_arrays(tmp_path):
    for name in ("digits", "cifar10"):
        with pytest.raises(ValueError, match=f"size cannot be chosen for {name!r}, got 16"):
            data.load(name, "train", tmp_path, size=16)


def test_recipes():
    for name in data.names():
        assert data.recipe(name, 32) == data.recipe(name)
    for size in (7, 14):
        small = data.recipe("fashion-mnist", size)
        assert (small.pad, small.flip) == (2, True)
    assert data.recipe("cifar10", 15).pad == data.recipe("fashion-mnist").pad == 4
    assert not data.recipe("digits").flip
    assert data.recipe("folder").colour == 0.1
    assert data.recipe("digits", 8) == data.recipe("digits")


def test_finding_digits_and_folders(tmp_path, monkeypatch):
    assert data.find("digits").read_bytes()[:2] == b"\x1f\x8b"
    monkeypatch.delenv("MINIRES_DATA", raising=False)
    assert data.find("folder") is None
    monkeypatch.setenv("MINIRES_DATA", str(tmp_path))
    assert data.find("folder") is None
    (tmp_path / "train").mkdir()
    assert data.find("folder") == tmp_path
    assert data.find("folder", tmp_path / "train") is None
    with pytest.raises(data.DataPathError, match=r"data_dir must be a folder, got '.*other'"):
        data.find("folder", tmp_path / "other")


def test_the_test_pictures_may_lie_in_val_or_test(tmp_path, rng):
    for split in ("train", "test"):
        (tmp_path / split / "a").mkdir(parents=True)
        pictures(tmp_path / split / "a", 2 if split == "train" else 3, rng)
    assert [len(data.load("folder", split, tmp_path)) for split in ("train", "test")] == [2, 3]
    (tmp_path / "val" / "a").mkdir(parents=True)
    pictures(tmp_path / "val" / "a", 4, rng)
    assert len(data.load("folder", "test", tmp_path)) == 4


def test_pixel_mean_of_a_folder(tmp_path, rng):
    images = pictures(tmp_path, 9, rng)
    dataset = Dataset("folder", "train", images, np.zeros(9, int), ("a",))
    crops = np.stack([images.read(i) for i in range(9)])
    np.testing.assert_allclose(pixel_mean(dataset), crops.mean(0) / 255, rtol=1e-6)
    np.testing.assert_allclose(pixel_mean(dataset, sample=3), crops[[0, 4, 8]].mean(0) / 255, rtol=1e-6)
    assert pixel_mean(dataset).dtype == np.float32
    x = Transform(pixel_mean(dataset))(crops)
    np.testing.assert_allclose(x.mean(0), 0, atol=1e-6)


def test_scale_jitter_keeps_the_proportions(tmp_path):
    """A gradient from left to right: its slope determines the length of the shorter side."""
    ramp = np.broadcast_to(np.linspace(0, 255, 640)[None, :, None], (320, 640, 3))
    Image.fromarray(np.rint(ramp).astype(np.uint8)).save(tmp_path / "x.png")
    images = FolderImages([tmp_path / "x.png"], 56)
    sides, starts = [], []
    for seed in range(120):
        row = images.read(0, np.random.default_rng(seed)).astype(float)[28, :, 0]
        slope = (row[-1] - row[0]) / 55
        sides.append(255 / slope / 2)  # twice as wide as high
        starts.append(row[0])
    assert min(sides) > 0.93 * 64
    assert min(sides) < 75
    assert max(sides) < 1.07 * 120
    assert max(sides) > 108
    assert min(starts) < 20
    assert max(starts) > 130


def test_random_parts_have_the_papers_sizes(tmp_path):
    """Two ramps, across and down: their slopes determine the width and height of the crop."""
    size = 320
    ramp = np.rint(np.linspace(0, 255, size)).astype(np.uint8)
    picture = np.stack([np.broadcast_to(ramp, (size, size)), np.broadcast_to(ramp[:, None], (size, size))] * 2, -1)
    Image.fromarray(np.ascontiguousarray(picture[..., :3])).save(tmp_path / "x.png")
    images = FolderImages([tmp_path / "x.png"], 32, "random-resized")
    areas, aspects = [], []
    for seed in range(120):
        part = images.read(0, np.random.default_rng(seed)).astype(float)
        w, h = (part[16, -2, 0] - part[16, 1, 0]) / 29 * 32, (part[-2, 16, 1] - part[1, 16, 1]) / 29 * 32
        areas.append(w * h / 255**2)
        aspects.append(w / h)
    assert 0.07 < min(areas) < 0.2
    assert 0.8 < max(areas) < 1.03
    assert 0.72 < min(aspects) < 0.8
    assert 1.25 < max(aspects) < 1.39


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_batches_before_a_broken_picture_are_complete(tmp_path, rng, workers):
    images = pictures(tmp_path, 10, rng)
    dataset = Dataset("folder", "train", images, np.arange(10), tuple("abcdefghij"))
    whole = list(Loader(dataset, 2, workers=0).epoch())
    images.paths[7].write_text("not an image")
    batches = Loader(dataset, 2, workers=workers).epoch()
    for x, labels in itertools.islice(whole, 3):
        got, theirs = next(batches)
        np.testing.assert_array_equal(got, x)
        np.testing.assert_array_equal(theirs, labels)
    with pytest.raises(data.DataFileError, match=r"7\.png: cannot be decoded"):
        next(batches)
    with pytest.raises(StopIteration):  # never a short epoch that looks whole
        next(batches)
    training = Loader(dataset, 2, workers=workers).iterate()
    with pytest.raises(data.DataFileError, match=r"7\.png"):
        list(itertools.islice(training, 5))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("minires-")]


def test_evaluation_does_not_depend_on_workers(tmp_path, rng):
    dataset = Dataset("folder", "test", pictures(tmp_path, 7, rng), np.arange(7), tuple("abcdefg"))
    expected = list(Loader(dataset, 3, workers=0).epoch())
    assert [len(labels) for _, labels in expected] == [3, 4]
    for workers in (1, 4):
        for (x, labels), (y, others) in zip(Loader(dataset, 3, workers=workers).epoch(), expected, strict=True):
            np.testing.assert_array_equal(x, y)
            np.testing.assert_array_equal(labels, others)


def test_a_label_is_one_of_the_classes(rng):
    images = rng.integers(0, 256, (2, 4, 3, 1)).astype(np.uint8)
    assert len(Dataset("x", "train", images, np.array([0, 1]), ("a", "b"))) == 2
    for label in (-1, 2):
        with pytest.raises(ValueError, match=rf"labels must lie in \[0, 2\), one of the classes, got {label}"):
            Dataset("x", "train", images, np.array([0, label]), ("a", "b"))


def test_the_shape_is_that_of_the_networks_input(rng):
    images = rng.integers(0, 256, (2, 4, 3, 1)).astype(np.uint8)
    dataset = Dataset("x", "train", images, np.zeros(2, int), ("a",))
    assert dataset.shape == Transform()(images).shape[1:] == (1, 4, 3)
    assert Loader(dataset, 2).shape == (1, 4, 3)
