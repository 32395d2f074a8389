"""Predictions: probabilities, batches, ties, files that are not pictures, plots."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import minires as mr
from minires import weights
from minires.data import DataFileError, Preprocessing
from minires.nn import Module
from minires.prediction import Classifier, Prediction, annotated, figure, of_run, of_weights, predict, sheet
from minires.prediction.predict import _probabilities
from minires.training import Config, Diverged, train


class Fixed(Module):
    """Constant logits plus the picture's mean at class 0; stores the shapes of its inputs."""

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


def test_each_picture_has_its_own_largest_logit():
    """Logits of one picture far below another's: exp would underflow."""
    rows = np.array([[0.0, 1.0], [-2000.0, -2001.0]], np.float32)

    class Rows(Fixed):
        def forward(self, x):
            return mr.tensor(rows)

    one = Classifier(Rows((0.0,)), "rows", Preprocessing(4, 4, mean=(0, 0, 0), std=(1, 1, 1)), 2)
    found = _probabilities(one, np.zeros((2, 4, 4, 3), np.uint8))
    np.testing.assert_allclose(found, found[::-1, ::-1], rtol=1e-15)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-15)


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
    red, blue = (seen(colour, found[0].probabilities) for colour in ((250, 0, 0), (0, 0, 250)))
    for content, colours in (
        (annotated(red, one, 3), {(250, 0, 0)}),
        (sheet([red, blue], one), {(250, 0, 0), (0, 0, 250)}),
    ):
        picture = np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).reshape(-1, 3)
        values, counts = np.unique(picture, axis=0, return_counts=True)
        large = {tuple(map(int, colour)) for colour, count in zip(values, counts, strict=True) if count > 10_000}
        assert colours <= large
    grey = Prediction(found[0].path, np.full((4, 4, 1), 128, np.uint8), found[0].probabilities)
    assert annotated(grey, one, 1).startswith(b"\x89PNG")
    assert sheet([grey] * 5, one).startswith(b"\x89PNG")


@pytest.fixture
def drawn(monkeypatch):
    """Collects the drawn figures in place of their bytes."""
    figures = []
    monkeypatch.setattr(figure, "encoded", lambda one: (figures.append(one), b"")[1])
    return figures


def seen(shade, probabilities=(0.25, 0.05, 0.7)):
    return Prediction(Path("x.png"), np.full((4, 4, 3), shade, np.uint8), np.array(probabilities))


def test_the_most_probable_class_is_the_upper_bar(drawn):
    annotated(seen(9), classifier(classes=("ant", "bee", "cat")), 2)
    _, bars = drawn[0].axes
    heights = sorted((patch.get_window_extent().y0, patch.get_width()) for patch in bars.patches)
    assert [width for _, width in heights] == [25.0, 70.0]  # percent, from the bottom
    assert [text.get_text() for text in bars.texts] == ["cat  70.00 %", "ant  25.00 %"]


@pytest.mark.parametrize(("pictures", "rows", "columns"), [(1, 1, 1), (2, 1, 2), (5, 2, 3), (7, 3, 3), (130, 10, 10)])
def test_a_sheet_shows_every_picture_up_to_a_hundred(drawn, pictures, rows, columns):
    sheet([seen(shade) for shade in range(pictures)], classifier())
    cells = drawn[0].axes
    assert cells[0].get_subplotspec().get_gridspec().get_geometry() == (rows, columns)
    shown = [cell.images[0].get_array()[0, 0, 0] for cell in cells if cell.images]
    assert shown == list(range(min(pictures, 100)))
    assert cells[0].get_title() == "2 70 %"


def test_grey_levels_are_not_stretched(drawn):
    levels = np.array([[100, 101], [102, 103]], np.uint8)
    annotated(Prediction(Path("x.png"), levels[:, :, None], np.array([1.0])), classifier((0.0,)), 1)
    (image,) = drawn[0].axes[0].images
    np.testing.assert_array_equal(image.get_array(), levels)
    assert image.get_clim() == (0, 255)


@pytest.mark.parametrize(("length", "shown"), [(15, "n" * 15), (16, "n" * 16), (17, "n" * 15 + "…")])
def test_long_names_are_cut(drawn, length, shown):
    sheet([seen(9)], classifier(classes=("ant", "bee", "n" * length)))
    assert drawn[0].axes[0].get_title() == f"{shown} 70 %"


@pytest.fixture
def holding(monkeypatch):
    """Has `weights.load` find a network with these channels and this preprocessing; a list of its arguments."""

    def hold(network, channels, preprocessing):
        given, options = [], {"num_classes": 7, "in_channels": channels}
        match = SimpleNamespace(network=network, options=options, preprocessing=preprocessing, classes=None, notes=())
        monkeypatch.setattr(weights, "load", lambda path, **named: (given.append((path, named)), (None, match))[1])
        return given

    return hold


def test_what_the_file_leaves_open_is_passed_on(holding):
    given = holding("resnet20", 1, {})
    assert of_weights("file", "resnet20", "3x3", "both").outputs == 7
    assert given == [("file", {"network": "resnet20", "stride_in": "3x3", "zero_channels": "both"})]


@pytest.mark.parametrize(
    ("network", "channels", "held", "expected"),
    [
        ("resnet18", 3, {}, {"resize": 256, "crop": 224, "mean": [0.485, 0.456, 0.406]}),
        ("resnet20", 3, {}, {"resize": 32, "crop": 32, "mean": [0.485, 0.456, 0.406]}),
        ("resnet20", 1, {}, {"resize": 32, "crop": 32, "mean": [0.449], "std": [0.226], "grey": True}),
        ("resnet20", 1, {"resize": 40, "mean": (0.3,)}, {"resize": 40, "crop": 32, "mean": [0.3], "std": [0.226]}),
        (
            "resnet18",
            3,
            {"resize": 235, "mean": (0.5, 0.5, 0.5), "interpolation": "bicubic"},
            {"resize": 235, "crop": 224, "mean": [0.5] * 3, "interpolation": "bicubic"},
        ),
    ],
)
def test_a_weight_file_may_hold_its_preprocessing(holding, network, channels, held, expected):
    holding(network, channels, held)
    found = of_weights("file", network=network)
    assert (found.network, found.outputs, found.classes) == (network, 7, None)
    assert found.name(3) == "3"
    assert found.preprocessing.to_json().items() >= expected.items()


def test_a_run_has_its_classes(tmp_path):
    train(Config.make(width=2, workers=0, iterations=1, batch_size=16, eval_every=1), tmp_path / "run")
    found = of_run(tmp_path / "run")
    assert (found.network, found.outputs, found.classes) == ("resnet20", 10, tuple("0123456789"))
    assert found.name(3) == "3"
    assert (found.preprocessing.resize, found.preprocessing.crop, found.preprocessing.grey) == (8, 8, True)


@pytest.mark.parametrize(
    ("channels", "held", "message"),
    [
        (4, {}, "takes 4 channels; a picture has 3, or 1 in grey"),
        (3, {"mean": (0.5,)}, "invalid preprocessing: mean must be 3 numbers"),
        (3, {"whiten": True}, "invalid preprocessing: .*whiten"),
    ],
)
def test_weights_that_take_no_picture(holding, channels, held, message):
    holding("resnet20", channels, held)
    with pytest.raises(weights.WeightsError, match=f"file: .*{message}"):
        of_weights("file")
