"""The READMEs show stored results: the pictures of `benchmarks.figures`, and the measured tables."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image
from test_house import LEVEL

from minires.bench.report import goal_table, markdown, network_table

ROOT = Path(__file__).parent.parent


@pytest.fixture
def figures(benchmarks):
    return benchmarks("figures")


@pytest.fixture
def forms(benchmarks):
    return benchmarks("forms")


@pytest.mark.parametrize(
    ("name", "document"), [("architecture", ""), ("race", ""), ("convolutions", "benchmarks"), ("memory", "benchmarks")]
)
def test_the_stored_picture_is_what_the_command_draws(figures, tmp_path, name, document):
    figures.write([name], tmp_path)
    assert (tmp_path / f"{name}.svg").read_bytes() == (figures.RESULTS / f"{name}.svg").read_bytes()
    assert f"results/{name}.svg" in (ROOT / document / "README.md").read_text(encoding="utf-8")


def test_the_readme_counts_the_lost_convolutions():
    rows = json.loads((ROOT / "benchmarks" / "results" / "native.json").read_text())["layers"]
    lost = dict.fromkeys(("forward", "data gradient", "weight gradient"), 0)
    for row in rows:
        seconds = {side: found["seconds"] for side, found in row["sides"].items()}
        lost[row["direction"]] += seconds["native"] > min(seconds["torch"], seconds["torch channels_last"])
    text = "PyTorch's faster layout wins {} forward, {} in the data gradient and {} in the weight gradient."
    assert text.format(*lost.values()) in (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")


def test_the_heat_map_has_all_convolutions_and_its_colours_their_side(figures):
    found = figures.stored("native")
    picture = figures.convolutions(found)
    assert picture.count("<rect") == 1 + 2 * len(found["layers"])
    for row in found["layers"]:
        sides = row["sides"]
        peer = min(sides["torch"]["seconds"], sides["torch channels_last"]["seconds"])
        assert f">{row['convolution']}<" in picture
        assert f">{sides['native']['seconds'] / peer:.2f}<" in picture
    assert (figures.tint(figures.BLUE, 0), figures.tint(figures.BLUE, 1)) == ("#ffffff", figures.BLUE)


def test_the_bars_of_memory_are_in_proportion(figures):
    head = ["network", "images", "backend", "batch", "at a time", *figures.MEMORY]
    row = ["resnet20", "3×32×32", "native", "8", "4", "1,000 MiB", "2,000 MiB", "1,500 MiB"]
    picture = figures.memory({"head": head, "rows": [row]})
    assert [f'width="{width}" height="11"' in picture for width in (260, 390)] == [True, True]
    assert "native: resnet20, 8 × 3×32×32, 4 at a time" in picture


def test_the_rooms_stand_in_the_order_of_imports(figures):
    words = [name for row in figures.ROOMS[:5] for title, _ in row for name in title.split(":")[0].split(", ")]
    levels = [LEVEL[name] for name in words]
    assert levels == sorted(levels)
    folders = {file.parent.name for file in (ROOT / "minires").glob("*/__init__.py")}
    assert folders - set(words) == {"parallel"}  # between training and models, without a box


def test_the_moving_picture_is_small():
    with Image.open(ROOT / "benchmarks" / "results" / "trace.gif") as picture:
        assert picture.n_frames >= 10
    assert (ROOT / "benchmarks" / "results" / "trace.gif").stat().st_size < 2_000_000


def test_the_tables_hold_the_stored_results(figures, forms):
    text = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    assert markdown(figures.race_table(figures.stored())) in (ROOT / "README.md").read_text(encoding="utf-8")
    assert markdown(forms.table(figures.stored())) in text
    for table in (goal_table, network_table):
        assert markdown(table(figures.stored("native"))) in text


def test_the_race_is_against_the_fastest_peer_and_shows_losses(figures):
    rows = figures.race_rows(figures.stored())
    assert len(rows) == 5
    assert any(ours > best for _, ours, _, _, best in rows)
    sides = {"native": {"seconds": 3.0}, "reference": {"seconds": 0.5}, "a": {"seconds": 2.0}, "b": {"seconds": 1.0}}
    assert figures.fastest_peer(sides) == "b"
    forms = {f"native, {form}": {"seconds": 0.1} for form in ("plain", "unfused", "captured")}
    assert figures.fastest_peer(sides | forms) == "b"


def test_writing_the_tables_again_changes_nothing(benchmarks, figures, forms, monkeypatch, tmp_path):
    native, tables = benchmarks("native"), benchmarks("tables")
    copies = {}
    for path in (tables.README, tables.FRONT):
        copies[path] = tmp_path / path.parent.name / "README.md"
        copies[path].parent.mkdir()
        copies[path].write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
    write = tables.write_between_markers

    def write_copy(name, head, rows, machine, document=tables.README):
        write(name, head, rows, machine, copies[document])

    stored = {name: figures.stored(name) for name in ("native", "forms")}
    drawn = {name: (figures.RESULTS / name).read_bytes() for name in ("race.svg", "convolutions.svg")}
    for name in stored:
        shutil.copy(figures.RESULTS / f"{name}.json", tmp_path)
    monkeypatch.setattr(figures, "RESULTS", tmp_path)
    for command, name in ((native, "native"), (forms, "forms")):
        monkeypatch.setattr(command, "write_between_markers", write_copy)
        command.write_tables(stored[name])
    for path, copy in copies.items():
        assert copy.read_text(encoding="utf-8") == path.read_text(encoding="utf-8")
    assert {name: (tmp_path / name).read_bytes() for name in drawn} == drawn
