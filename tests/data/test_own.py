"""Data sets of the reader's own arrays, in a loader and in a training run."""

from __future__ import annotations

import numpy as np
import pytest

from minires import data, training
from minires.training import Config


def stripes(split, classes=("horizontal", "vertical")):
    """8×8 grey images with a stripe, lying or standing."""
    rng = np.random.default_rng(0 if split == "train" else 1)
    labels = rng.integers(0, 2, 96 if split == "train" else 32)
    images = rng.integers(0, 40, (len(labels), 8, 8)).astype(np.uint8)
    for image, label, place in zip(images, labels, rng.integers(0, 8, len(labels)), strict=True):
        (image if label == 0 else image.T)[place] = 255
    return data.from_arrays(images, labels, classes, name="stripes", split=split)


@pytest.fixture
def registered():
    data.register("stripes", stripes)
    yield "stripes"
    del data._OWN["stripes"]


def test_arrays_become_batches():
    dataset = stripes("train")
    assert repr(dataset) == "<stripes (train): 96 images of 1×8×8, 2 classes>"
    x, labels = next(data.Loader(dataset, 32, workers=0, shuffle=False).iterate())
    assert (x.shape, x.dtype, labels.dtype) == ((32, 1, 8, 8), np.float32, np.int64)
    np.testing.assert_array_equal(x[:, 0], dataset.images[:32, :, :, 0].astype(np.float32) / 255)
    np.testing.assert_array_equal(labels, dataset.labels[:32])


def test_classes_are_numbered_where_they_have_no_names():
    dataset = data.from_arrays(np.zeros((3, 4, 5, 2), np.uint8), [2, 0, 1])
    assert dataset.classes == ("0", "1", "2")
    assert dataset.shape == (2, 4, 5)
    assert dataset.labels.dtype == np.int64
    assert len(data.from_arrays(np.zeros((0, 4, 5), np.uint8), np.zeros(0, int))) == 0


@pytest.mark.parametrize(
    ("images", "labels", "classes", "message"),
    [
        (np.zeros((2, 4, 4)), [0, 1], None, r"images must be a uint8 array .*np\.rint\(255 \* images\)"),
        (np.zeros((2, 4), np.uint8), [0, 1], None, r"images must be a uint8 array \(N, H, W, C\) or \(N, H, W\), got"),
        ([[[0]]], [0], None, "images must be a uint8 array"),
        (np.zeros((2, 4, 4), np.uint8), [0.0, 1.0], None, r"labels must be an integer array \(N,\)"),
        (np.zeros((2, 4, 4), np.uint8), [0], None, "labels must be as many as images, 2, got 1"),
        (np.zeros((2, 4, 4), np.uint8), [0, 2], ("a", "b"), r"labels must lie in \[0, 2\)"),
        (np.zeros((2, 4, 4), np.uint8), [0, -1], None, r"labels must lie in \[0, 1\)"),
        (
            np.zeros((2, 4, 4), np.uint8),
            [0, 10**12],
            None,
            r"labels must lie in \[0, 1,000,000\) .* got 1,000,000,000,000",
        ),
        (np.zeros((1, 4, 4), np.uint8), np.array([2**64 - 1], np.uint64), None, r"labels must lie in \[0, 1,000,000\)"),
    ],
)
def test_arrays_that_are_not_a_data_set(images, labels, classes, message):
    with pytest.raises((TypeError, ValueError), match=message):
        data.from_arrays(images, labels, classes)


def test_a_registered_data_set_is_trained_on_evaluated_and_resumed(registered, tmp_path):
    config = Config.make(
        network="resnet20", width=4, data=registered, iterations=20, batch_size=32, workers=0, checkpoint_every=10
    )
    result = training.train(config, tmp_path / "run")
    assert result.test_error <= 25
    trained, evaluation = training.evaluate_run(tmp_path / "run")
    assert evaluation.images == 32
    assert evaluation.error == result.test_error
    assert trained.checkpoint.classes == ("horizontal", "vertical")
    assert data.recipe(registered) == data.Augmentation()
    data.register(registered, stripes, data.Augmentation(flip=True))
    assert data.recipe(registered).flip
    assert data.find(registered) is None


def test_an_unregistered_data_set_is_an_error_with_the_remedy(registered, tmp_path):
    config = Config.make(network="resnet20", width=2, data=registered, iterations=1, batch_size=32, workers=0)
    training.train(config, tmp_path / "run")
    del data._OWN[registered]
    try:
        with pytest.raises(training.CheckpointError, match=r"unknown data set 'stripes'.*minires\.data\.register"):
            training.restore(tmp_path / "run")
    finally:
        data.register(registered, stripes)


@pytest.mark.parametrize("name", ["digits", "", "a b", "../x", None, 3])
def test_names_that_cannot_be_registered(name):
    with pytest.raises(ValueError, match="name must be a name of letters"):
        data.register(name, stripes)


def test_a_registered_function_must_load_a_data_set(registered):
    with pytest.raises(TypeError, match="load must be a function of the split"):
        data.register("mine", stripes("train"))
    data.register(registered, lambda split: (np.zeros(3), split))
    with pytest.raises(TypeError, match="the result of load for data set 'stripes' must be a Dataset, got tuple"):
        data.load(registered)
