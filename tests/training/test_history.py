"""The history as CSV and the curves as a picture."""

from __future__ import annotations

import csv
from dataclasses import replace

import pytest
from PIL import Image

from minires.training import Row, history

ROWS = [
    Row(100, 0.5, 0.1, 2.1, 81.25, None, 1000.0, 1.5),
    Row(200, 1.0, 0.1, 1 / 3, 12.5, 13.75, 990.5, 3.25),
    Row(300, 1.5, 0.1 * 0.1, 1e-9, 0.0, None, 1001.0, 4.0),
]


def test_round_trip_is_exact(tmp_path):
    history.write(tmp_path / "history.csv", ROWS)
    assert history.read(tmp_path / "history.csv") == ROWS


def test_any_reader_of_csv_can_read_it(tmp_path):
    history.write(tmp_path / "history.csv", ROWS)
    with open(tmp_path / "history.csv", newline="") as file:
        first, second, _ = csv.DictReader(file)
    assert float(second["test_error"]) == 13.75
    assert first["test_error"] == ""
    assert list(first) == [
        *("iteration", "epoch", "lr", "training_loss", "training_error", "test_error"),
        *("images_per_second", "seconds"),
    ]


def test_the_best_row_is_the_earliest_of_equals():
    errors = (None, 5.0, 3.0, None, 3.0, 4.0)
    rows = [replace(ROWS[0], iteration=i, test_error=error) for i, error in enumerate(errors)]
    assert history.best(rows) is rows[2]
    assert history.best(rows[:1]) is None
    perfect = replace(ROWS[0], test_error=0.0)
    assert history.best([*rows, perfect]) is perfect


@pytest.mark.parametrize("text", ["", "iteration,epoch\n", history.to_csv(ROWS) + "1,2\n", history.to_csv(ROWS)[:-9]])
def test_damage_is_noticed(text):
    with pytest.raises(ValueError, match="history"):
        history.from_csv(text)


@pytest.mark.parametrize("rows", [ROWS, ROWS[:1], [replace(row, test_error=50.0) for row in ROWS]])
def test_curves_are_a_picture(tmp_path, rows):
    history.draw(rows, tmp_path / "curves.png", "resnet20", "digits")
    with Image.open(tmp_path / "curves.png") as image:
        assert image.format == "PNG"
        image.load()
        assert min(image.size) >= 400
        assert len(image.convert("RGB").getcolors(10**6)) > 20  # something is drawn
    assert [file.name for file in tmp_path.iterdir()] == ["curves.png"]


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """Draws a history and returns the axes."""
    figures = []
    monkeypatch.setattr(history, "encoded", lambda figure: (figures.append(figure), b"")[1])

    def draw(rows):
        history.draw(rows, tmp_path / "curves.png", "a", "digits")
        return figures[-1].axes[0]

    return draw


@pytest.mark.parametrize(
    ("rows", "test", "marker"),
    [
        (ROWS, [(200, 13.75)], "o"),  # a single point would be invisible
        ([replace(row, test_error=50.0) for row in ROWS], [(100, 50.0), (200, 50.0), (300, 50.0)], ""),
    ],
)
def test_curves_hold_the_errors(drawn, rows, test, marker):
    axes = drawn(rows)
    lines = {line.get_label(): line for line in axes.lines}
    points = {label: list(zip(*line.get_data(), strict=True)) for label, line in lines.items()}
    assert points == {"a, training": [(100, 81.25), (200, 12.5), (300, 0.0)], "a, test": test}
    assert (lines["a, training"].get_linestyle(), lines["a, training"].get_marker()) == ("--", "None")
    assert (lines["a, test"].get_linestyle(), lines["a, test"].get_marker()) == ("-", marker)
    assert axes.get_title() == "a on digits"


def test_the_axis_of_errors_leaves_out_the_first_fifth_and_ends_at_100(drawn):
    early = [replace(ROWS[0], iteration=i, training_error=e) for i, e in ((19, 95.0), (20, 40.0), (100, 20.0))]
    assert drawn(early).get_ylim() == (0, 50.0)  # 1.25 · 40
    assert drawn([replace(row, training_error=90.0) for row in early]).get_ylim() == (0, 100.0)
    assert drawn([replace(row, training_error=1.0) for row in early]).get_ylim() == (0, 5.0)
