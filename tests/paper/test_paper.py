"""Reproductions of the paper: read from the models, beside the printed numbers."""

from __future__ import annotations

import csv
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from usage import error_line

import minires as mr
from minires import models
from minires.cli import paper
from minires.models.blocks import BasicBlock, conv1x1, conv3x3
from minires.paper import drawing, gradients, items, published, table1, table6
from minires.paper.report import Report, markdown, to_csv
from minires.training import Checkpoint, Config, Row
from minires.training import checkpoint as checkpoints

# -- Table 1


@pytest.mark.parametrize(
    ("network", "times", "conv5"),
    [
        ("resnet18", [2, 2, 2, 2], ("3×3, 512", "3×3, 512")),
        ("resnet34", [3, 4, 6, 3], ("3×3, 512", "3×3, 512")),
        ("resnet50", [3, 4, 6, 3], ("1×1, 512", "3×3, 512", "1×1, 2048")),
        ("resnet152", [3, 8, 36, 3], ("1×1, 512", "3×3, 512", "1×1, 2048")),
    ],
)
def test_a_column_of_table_1(network, times, conv5):
    column = table1.column(network)
    assert [n for _, n in column.blocks] == times
    assert column.blocks[3][0] == conv5
    assert column.sizes == (112, 56, 28, 14, 7)
    assert column.printed == published.FLOPS[network]
    assert abs(column.macs / 1e9 - column.printed) < 0.1  # no single convention gives every printed figure


def test_options_change_the_column():
    assert table1.column("resnet50", stride_in="3x3").macs > table1.column("resnet50").macs
    assert table1.column("resnet18", shortcut="A").params < table1.column("resnet18").params
    assert table1.column("resnet18", measure=True).seconds > 0


def test_the_lines_of_table_1():
    """As in the paper (page 5), except for the counts."""
    head, lines = table1.rows([replace(table1.column("resnet18"), seconds=0.25), table1.column("resnet50")])
    assert head == ["layer name", "output size", "18-layer", "50-layer"]
    assert lines[:6] == [
        ["conv1", "112×112", "7×7, 64, stride 2", "7×7, 64, stride 2"],
        [
            "conv2_x",
            "56×56",
            "3×3 max pool, stride 2, then\n[3×3, 64\n 3×3, 64]×2",
            "3×3 max pool, stride 2, then\n[1×1, 64\n 3×3, 64\n 1×1, 256]×3",
        ],
        ["conv3_x", "28×28", "[3×3, 128\n 3×3, 128]×2", "[1×1, 128\n 3×3, 128\n 1×1, 512]×4"],
        ["conv4_x", "14×14", "[3×3, 256\n 3×3, 256]×2", "[1×1, 256\n 3×3, 256\n 1×1, 1024]×6"],
        ["conv5_x", "7×7", "[3×3, 512\n 3×3, 512]×2", "[1×1, 512\n 3×3, 512\n 1×1, 2048]×3"],
        ["", "1×1", "average pool, 1000-d fc, softmax", "average pool, 1000-d fc, softmax"],
    ]
    assert lines[-1][:3] == ["forward, 1 image", "", "250 ms"]
    text = list(csv.reader(to_csv(head, lines).decode().splitlines()))
    assert text[2][2] == "3×3 max pool, stride 2, then; [3×3, 64;  3×3, 64]×2"


def test_the_time_of_a_forward_pass_is_the_median_of_five_warm_ones(monkeypatch):
    seconds = iter((0.5, 5.0, 1.0, 4.0, 2.0, 3.0))  # a cold one that counted would move the median
    readings = iter([reading for passed in seconds for reading in (0.0, passed)])
    monkeypatch.setattr(table1, "time", SimpleNamespace(perf_counter=lambda: next(readings)))
    assert table1._forward_seconds(mr.nn.Sequential(mr.nn.Identity())) == 3.0


def test_the_bracket_of_table_1_holds_all_rows_of_a_block():
    _, lines = table1.rows([table1.column("resnet50"), table1.column("resnet18")])
    assert lines[2][2:] == ["[1×1, 128\n 3×3, 128\n 1×1, 512]×4", "[3×3, 128\n 3×3, 128]×2"]
    assert lines[1][2] == "3×3 max pool, stride 2, then\n[1×1, 64\n 3×3, 64\n 1×1, 256]×3"


# -- Figure 1


def test_the_caption_of_figure_1_agrees_with_the_stored_points():
    root = Path(__file__).parents[2]
    with open(root / "benchmarks" / "results" / "figure1.csv", newline="") as file:
        last = {row["network"]: float(row["training error"]) for row in csv.DictReader(file)}
    caption = (root / "README.md").read_text().split("results/figure1.png)")[1].split("\n\n")[1]
    for network, error in last.items():
        name = network.replace("plain", "plain-").replace("resnet", "ResNet-")
        assert f"{error:.1f} % ({name})" in " ".join(caption.split())
    assert "augmented" in caption


# -- Table 6


def finished(folder, iteration, network="resnet32", data="cifar10", errors=(7.0, 7.51)):
    """A run of 64,000 iterations, stopped after `iteration`, with two measurements."""
    config = Config.make(network=network, data=data, iterations=64_000)
    rows = tuple(
        Row(at, at / 391, 0.1, 0.1, 1.0, error, 100.0, 1.0)
        for at, error in zip((iteration // 2, iteration), errors, strict=True)
    )
    none = np.zeros(1, np.float32)
    state = np.random.default_rng(0).bit_generator.state
    mean = np.zeros((32, 32, 3), np.float32)
    now = Checkpoint(iteration, config, {"a": none}, {}, mean, ("a",), (3, 32, 32), state, rows=rows)
    checkpoints.save(now, folder / "checkpoints")
    return folder


def test_table_6_shows_the_last_error_of_finished_runs_on_cifar10(tmp_path):
    runs = [
        finished(tmp_path / "one", 64_000),
        finished(tmp_path / "two", 64_000, errors=(9.0, 8.0)),
        finished(tmp_path / "digits", 64_000, "resnet20", "digits"),
        finished(tmp_path / "stopped", 391 * 100, "resnet44"),
    ]
    _, lines = table6.rows(runs)
    missing = dict.fromkeys(("resnet20", "resnet44", "resnet56", "resnet110"), "not reproduced")
    assert {line[0]: line[4] for line in lines} == missing | {"resnet32": "7.51 %, 8.00 %"}
    assert lines[-1][5] == "6.43 % (6.61 ± 0.16)"
    assert not items.reproduce_table6(runs=runs).reproduced  # three networks are missing


def test_table_6_without_runs_reproduces_nothing(call, tmp_path):
    _, lines = table6.rows()
    assert [line[2] for line in lines] == ["269,722", "464,154", "658,586", "853,018", "1,727,962"]
    assert {line[4] for line in lines} == {"not reproduced"}
    code, out, _ = call("paper", "table6", "--out", tmp_path)
    assert code == 1
    assert "not reproduced" in out
    assert (tmp_path / "table6.csv").exists()


def test_table_6_names_a_missing_run(call, tmp_path):
    code, _, err = call("paper", "table6", "--runs", tmp_path / "nothing")
    assert code in (1, 2)
    assert "nothing" in err
    error_line(err)


# -- drawings


def test_figure_3_is_read_off_the_model():
    resnet, plain = drawing.named("resnet34", shortcut="A"), drawing.named("plain34")
    assert resnet.macs == plain.macs == 3_644_493_824
    layers = [box for box in resnet.boxes if box.kind != "pool"]
    assert len(layers) == 34
    assert [box.text for box in resnet.boxes] == [box.text for box in plain.boxes]
    assert [box.text for box in resnet.boxes][:3] == ["7×7 conv, 64, /2", "pool, /2", "3×3 conv, 64"]
    assert plain.shortcuts == []
    assert len(resnet.shortcuts) == 16
    dotted = [resnet.boxes[s.first].text for s in resnet.shortcuts if s.dotted]
    assert dotted == ["3×3 conv, 128, /2", "3×3 conv, 256, /2", "3×3 conv, 512, /2"]
    vgg = drawing.named("vgg19")
    assert len([box for box in vgg.boxes if box.kind != "pool"]) == 19
    assert [box.text for box in vgg.boxes][-3:] == ["fc 4096", "fc 4096", "fc 1000"]


def test_bottlenecks_have_a_dotted_shortcut_where_channels_grow():
    drawn = drawing.named("resnet50")
    assert len(drawn.shortcuts) == 16
    assert [i for i, s in enumerate(drawn.shortcuts) if s.dotted] == [0, 3, 7, 13]
    assert all(s.last - s.first == 2 for s in drawn.shortcuts)


def test_a_shortcut_of_figure_3_is_dotted_where_the_size_alone_changes():
    model = mr.nn.Sequential(conv3x3(3, 8), BasicBlock(8, 8, stride=2, downsample=conv1x1(8, 8, stride=2)))
    assert drawing.draw(model, (3, 8, 8), "block").shortcuts == [drawing.Shortcut(1, 2, dotted=True)]


def test_the_titles_of_figure_3_count_in_powers_of_ten(monkeypatch):
    monkeypatch.setattr(drawing, "encoded", lambda figure, kind: figure)
    figure = drawing.picture(
        [drawing.Drawing("plain34", 224, 3_644_493_824), drawing.Drawing("small", 8, 1_234)], "png"
    )
    titles = [text.get_text() for text in figure.axes[0].texts]
    assert titles == ["plain34\n3.6 ×10⁹ multiply-adds", "small\n1,234 multiply-adds"]


def test_every_network_can_be_drawn(call, tmp_path):
    for name in models.names():
        if name.startswith(("resnet2", "plain3", "vgg16")):
            assert call("draw", name, "--out", tmp_path / name)[0] == 0
            assert ET.parse(tmp_path / f"{name}.svg").getroot().tag.endswith("svg")
            with Image.open(tmp_path / f"{name}.png") as image:
                assert min(image.size) > 300


def test_draw_errors_are_one_line(call):
    for words, message in (
        (("resnet51",), "Did you mean"),
        (("resnet50", "--shortcut", "D"), "shortcut must be one of"),
    ):
        code, _, err = call("draw", *words)
        assert code == 2
        assert message in error_line(err)


# -- gradients


def test_the_four_cases_in_order_of_magnitude():
    """Plain networks with batch norm explode toward the input, shortcuts prevent it: by orders of magnitude."""
    norms = {}
    for residual in (False, True):
        for batch_norm in (False, True):
            case = gradients.measure(residual, batch_norm, 56, batch=8)
            assert len(case.norms) == 55
            norms[residual, batch_norm] = np.array(case.norms)
    plain, calm = norms[False, True], norms[True, True]
    assert plain[1] > 100 * plain[-1]
    assert calm[1] < 30 * calm[-1]
    assert norms[True, False][1] > 1000  # shortcuts without batch norm explode everywhere
    assert norms[False, False].max() < 10


def test_how_far_weights_turn():
    case = gradients.measure(True, True, 20, steps=2, batch=4, seed=1)
    assert len(case.turned) == 19
    mr.manual_seed(1)
    model, rng = models.create("resnet20"), np.random.default_rng(1)
    x, labels = mr.tensor(rng.standard_normal((4, 3, 28, 28)).astype(np.float32)), rng.integers(0, 10, 4)
    sgd, first = mr.optim.SGD(model.parameters(), 0.1, 0.9), model.conv1.weight.data.copy().ravel()
    for step in range(2):
        sgd.zero_grad()
        mr.functional.cross_entropy(model(x), labels).backward()
        if step == 0:
            assert case.norms[0] == pytest.approx(np.linalg.norm(model.conv1.weight.grad), rel=1e-5)
        sgd.step()
    last = model.conv1.weight.data.ravel()
    turn = np.degrees(np.arccos(first @ last / np.linalg.norm(first) / np.linalg.norm(last)))
    assert case.turned[0] == pytest.approx(turn, rel=1e-3)  # of arccos near 1 in float32
    assert gradients.measure(True, True, 20, batch=4, seed=1).norms == case.norms


def test_the_lines_of_gradients(monkeypatch):
    norms, turned = (1.0, 2.0, 3.0, 4.0, 5.0), (50.0, 10.0, 20.0, 40.0, 30.0)
    monkeypatch.setattr(gradients, "measure", lambda *kind, **how: gradients.Case(*kind, norms, turned))
    report = items.reproduce_gradients(steps=7)
    assert report.head == ["network", "second convolution", "last convolution", "median turn after 7 steps"]
    assert report.lines[0] == ["plain-20, with batch norm", "2", "5", "30.0°"]
    assert report.files["gradients.csv"].decode().splitlines()[1] == '"plain-20, with batch norm",1,1.0,50.0'


def test_a_network_that_diverges_on_the_way_has_no_turns():
    case = gradients.measure(True, False, 56, steps=3, batch=4)
    assert len(case.norms) == 55
    assert case.turned == ()


def test_wrong_steps_are_one_line(call):
    code, _, err = call("paper", "gradients", "--steps", "-1")
    assert code == 2
    assert error_line(err) == "error: --steps must be at least 0, got -1"


# -- the command


def test_the_list_and_unknown_items(call):
    code, out, _ = call("paper")
    assert code == 0
    assert {line.split()[0] for line in out.splitlines()} == set(paper.ITEMS)
    code, _, err = call("paper", "figur3")
    assert code == 2
    assert "Did you mean 'figure3'?" in err


@pytest.mark.parametrize("item", ["table1", "figure3"])
def test_files_are_written(call, tmp_path, item):
    code, out, _ = call("paper", item, "--out", tmp_path / "new")
    assert code == 0
    for kind in ("csv", "svg", "png"):
        assert str(tmp_path / "new" / f"{item}.{kind}") in out
    with open(tmp_path / "new" / f"{item}.csv", newline="", encoding="utf-8") as file:
        assert len({len(row) for row in csv.reader(file)}) == 1
    with Image.open(tmp_path / "new" / f"{item}.png") as image:
        assert np.asarray(image.convert("L")).min() < 50


def test_markdown():
    report = Report("x", "Title", ["a", "b"], [["1", "2\n3"]], {"x.csv": b"", "x.png": b""}, ["so it is"])
    assert markdown([report], {"y": "no data"}).splitlines()[4:] == [
        *("## Title", "", "| a | b |", "| --- | --- |", "| 1 | 2<br>3 |", "", "- so it is", "", "![Title](x.png)", ""),
        *("## Not reproduced", "", "- y: no data"),
    ]
