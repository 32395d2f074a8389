"""Pictures through a network: probabilities, batches, ties, files that are no pictures, what the plots show."""

from __future__ import annotations

import io
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import minires as mr
from minires import weights
from minires.data import DataFileError, Preprocessing
from minires.nn import Module
from minires.prediction import Classifier, Prediction, annotated, of_weights, predict, sheet
from minires.training import Diverged


class Fixed(Module):
    """Logits that are a constant, plus the mean of the picture at class 0; counts what it is given."""

    def __init__(self, logits):
        super().__init__()
        self.logits = mr.tensor(np.array([logits], np.float32), requires_grad=True)
        self.batches = []

    def forward(self, x):
        assert not self.training
        self.batches.append(x.shape)
        first = np.zeros(self.logits.shape, np.float32)
        first[0, 0] = 1
        return mr.tensor(x.data.mean(axis=(1, 2, 3))[:, None] * first) + self.logits


def classifier(logits=(0.0, 1.0, 2.0), classes=None):
    eyes = Preprocessing(4, 4, mean=(0, 0, 0), std=(1, 1, 1))
    return Classifier(Fixed(logits), "fixed", eyes, len(logits), classes)


@pytest.fixture
def pictures(tmp_path):
    paths = [tmp_path / f"{level}.png" for level in (0, 51, 102, 153, 204, 255)]
    for path in paths:
        Image.new("RGB", (6, 5), (int(path.stem),) * 3).save(path)
    return paths


def test_probabilities(pictures):
    found = list(predict(classifier(), pictures))
    for path, prediction in zip(pictures, found, strict=True):
        expected = np.exp([int(path.stem) / 255, 1, 2])
        expected /= expected.sum()
        assert prediction.path == path
        assert prediction.probabilities.dtype == np.float64
        assert abs(prediction.probabilities.sum() - 1) <= 1e-15
        # The network adds and averages in float32: some units of 2**-24 at a logit of 1.
        assert not (np.abs(prediction.probabilities - expected) > 1e-6).any()


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("batch_size", [1, 4, 6, 100])
def test_batches(pictures, batch_size, workers):
    one = classifier()
    whole = [prediction.probabilities for prediction in predict(classifier(), pictures)]
    found = [prediction.probabilities for prediction in predict(one, pictures, batch_size, workers)]
    np.testing.assert_array_equal(found, whole)
    assert max(shape[0] for shape in one.model.batches) == min(batch_size, 6)
    assert sum(shape[0] for shape in one.model.batches) == 6


@pytest.mark.parametrize("workers", [0, 2])
def test_pictures_are_read_when_their_turn_comes(pictures, monkeypatch, workers):
    one, read = classifier(), []
    cut = Preprocessing.cut
    monkeypatch.setattr(Preprocessing, "cut", lambda self, path: (read.append(path), cut(self, path))[1])
    results = predict(one, pictures * 10, 2, workers)
    next(results)
    results.close()
    assert len(one.model.batches) == 1
    assert len(read) <= 4  # of 60: a batch, and the next


def test_no_pictures():
    assert list(predict(classifier(), [])) == []


def test_enormous_logits(pictures):
    best = next(predict(classifier((3e38, -3e38, 3e38)), pictures)).probabilities
    np.testing.assert_array_equal(best, [0.5, 0, 0.5])


def test_equal_probabilities_are_ordered_by_number():
    prediction = Prediction(None, np.zeros((1, 1, 3), np.uint8), np.array([0.1, 0.3, 0.1, 0.3, 0.2]))
    assert [index for index, _ in prediction.top(5)] == [1, 3, 4, 0, 2]
    assert prediction.top(2) == [(1, 0.3), (3, 0.3)]
    with pytest.raises(ValueError, match="k must be at least 1"):
        prediction.top(0)


def test_files_that_cannot_be_decoded_stand_between_the_others(pictures, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(pictures[0].read_bytes()[:42])
    for batch_size, workers in ((1, 2), (3, 2), (2, 0)):
        paths = [broken, *pictures[:2], broken, broken, pictures[2]]
        found = list(predict(classifier(), paths, batch_size, workers))
        assert [isinstance(one, DataFileError) for one in found] == [True, False, False, True, True, False]
        assert [one.path for one in found if isinstance(one, Prediction)] == pictures[:3]
        assert "broken.png" in str(found[0])


def test_outputs_that_are_not_finite(pictures):
    with pytest.raises(Diverged):
        next(predict(classifier((0.0, float("nan"))), pictures))


def test_what_the_plots_show(pictures):
    one = classifier(classes=("ant $x^2$", "bee\n", "ж" * 60 + "猫"))
    found = list(predict(one, pictures))
    red, blue = (
        Prediction(found[0].path, np.full((4, 4, 3), colour, np.uint8), found[0].probabilities)
        for colour in ((250, 0, 0), (0, 0, 250))
    )
    for content, colours in (
        (annotated(red, one, 3), {(250, 0, 0)}),
        (sheet([red, blue], one), {(250, 0, 0), (0, 0, 250)}),
    ):
        picture = np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).reshape(-1, 3)
        seen, counts = np.unique(picture, axis=0, return_counts=True)
        large = {tuple(map(int, colour)) for colour, count in zip(seen, counts, strict=True) if count > 10_000}
        assert colours <= large
    grey = Prediction(found[0].path, np.full((4, 4, 1), 128, np.uint8), found[0].probabilities)
    assert annotated(grey, one, 1).startswith(b"\x89PNG")
    assert sheet([grey] * 5, one).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("network", "channels", "told", "expected"),
    [
        ("resnet18", 3, {}, {"resize": 256, "crop": 224, "mean": [0.485, 0.456, 0.406]}),
        ("resnet20", 3, {}, {"resize": 32, "crop": 32, "mean": [0.485, 0.456, 0.406]}),
        ("resnet20", 1, {}, {"resize": 32, "crop": 32, "mean": [0.449], "std": [0.226], "grey": True}),
        (
            "resnet18",
            3,
            {"resize": 235, "mean": (0.5, 0.5, 0.5), "interpolation": "bicubic"},
            {"resize": 235, "crop": 224, "mean": [0.5] * 3, "interpolation": "bicubic"},
        ),
    ],
)
def test_a_weight_file_says_how_it_wants_its_pictures(monkeypatch, network, channels, told, expected):
    match = SimpleNamespace(
        network=network, options={"num_classes": 7, "in_channels": channels}, preprocessing=told, classes=None, notes=()
    )
    monkeypatch.setattr(weights, "load", lambda path, **options: (None, match))
    found = of_weights("file", network=network)
    assert (found.network, found.outputs, found.classes) == (network, 7, None)
    assert found.name(3) == "3"
    assert found.preprocessing.to_json().items() >= expected.items()


@pytest.mark.parametrize(
    ("channels", "told", "message"),
    [
        (4, {}, "takes 4 channels; a picture has 3, or 1 in grey"),
        (3, {"mean": (0.5,)}, "its preprocessing cannot be followed: mean must be 3 numbers"),
        (3, {"whiten": True}, "its preprocessing cannot be followed: .*whiten"),
    ],
)
def test_weights_for_which_no_picture_can_be_made(monkeypatch, channels, told, message):
    match = SimpleNamespace(network="resnet20", options={"num_classes": 7, "in_channels": channels}, preprocessing=told)
    monkeypatch.setattr(weights, "load", lambda path, **options: (None, match))
    with pytest.raises(weights.WeightsError, match=f"file: .*{message}"):
        of_weights("file")
