"""The history as CSV and the curves as a picture."""

from __future__ import annotations

import csv
from dataclasses import replace

import pytest
from PIL import Image

from minires.training import Row, curves, history

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


@pytest.mark.parametrize("text", ["", "iteration,epoch\n", history.to_csv(ROWS) + "1,2\n", history.to_csv(ROWS)[:-9]])
def test_damage_is_noticed(text):
    with pytest.raises(ValueError, match="history"):
        history.from_csv(text)


@pytest.mark.parametrize("rows", [ROWS, ROWS[:1], [replace(row, test_error=50.0) for row in ROWS]])
def test_curves_are_a_picture(tmp_path, rows):
    curves.draw({"resnet20": rows, "plain20": rows}, tmp_path / "curves.png", "title")
    with Image.open(tmp_path / "curves.png") as image:
        assert image.format == "PNG"
        image.load()
        assert min(image.size) >= 400
        assert len(image.convert("RGB").getcolors(10**6)) > 20  # something is drawn
    assert [file.name for file in tmp_path.iterdir()] == ["curves.png"]
