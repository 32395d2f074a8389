"""The layer table."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

import minires as mr
from minires import backends, cli
from minires.inspect.shapes import Shapes


def test_rows_in_the_order_of_the_forward_pass():
    model = mr.models.create("resnet20", width=4)
    summary = mr.summary(model, (3, 8, 6))
    first = summary.rows[0]
    assert (first.module, first.operation, first.output_shape) == ("conv1", "Conv2d", (4, 8, 6))
    assert (first.params, first.macs, first.activation_bytes) == (108, 108 * 48, 4 * 48 * 4)
    assert summary.params == sum(row.params for row in summary.rows) == sum(p.size for p in model.parameters())
    assert summary.activation_bytes == sum(row.activation_bytes for row in summary.rows)
    assert f"{summary.macs:,}" in str(summary)


def test_groups_count_only_their_own_channels():
    model = mr.nn.Sequential(mr.nn.Conv2d(4, 6, (3, 2), groups=2, bias=False))
    assert mr.summary(model, (4, 5, 5)).macs == 6 * 3 * 4 * (2 * 3 * 2)


def test_the_model_is_left_as_it_was():
    model = mr.models.create("resnet20", width=4)
    model.layer1.eval()
    modes = [m.training for m in model.modules()]
    state = {name: array.copy() for name, array in model.state_dict().items()}
    mr.summary(model, (3, 8, 8))
    assert [m.training for m in model.modules()] == modes
    for name, array in model.state_dict().items():
        assert np.array_equal(array, state[name]), name


@pytest.mark.parametrize("shape", [(3, 8), (1, 3, 8, 8), 8, (3, 0, 8), (3, 8.5, 8)])
def test_wrong_input_shape(shape):
    with pytest.raises((ValueError, TypeError), match="input_shape must be"):
        mr.summary(mr.models.create("resnet20", width=4), shape)


def test_a_network_on_flat_inputs():
    model = mr.nn.Sequential(mr.nn.Linear(64, 32), mr.nn.ReLU(), mr.nn.Linear(32, 10))
    summary = mr.summary(model, (64,))
    assert [row.output_shape for row in summary.rows] == [(32,), (32,), (10,)]
    assert (summary.macs, summary.params) == (64 * 32 + 32 * 10, 65 * 32 + 33 * 10)
    assert str(summary).startswith("input 64, batch of 1\n")
    with pytest.raises(ValueError, match=r"x must be \(N, 3, H, W\)"):
        mr.summary(mr.models.create("resnet20", width=4), (64,))


def test_wrong_model():
    with pytest.raises(TypeError, match="model must be a Module, got str"):
        mr.summary("resnet20", (3, 8, 8))


def test_what_backward_costs_and_keeps():
    model = mr.nn.Sequential(mr.nn.Conv2d(3, 4, 3, padding=1, bias=False), mr.nn.ReLU(), mr.nn.Conv2d(4, 2, 1))
    first, relu, last = mr.summary(model, (3, 6, 5)).rows
    assert (first.macs, first.backward_macs) == (4 * 30 * 27, 4 * 30 * 27)  # the image requires no gradient
    assert (last.macs, last.backward_macs) == (2 * 30 * 4, 2 * 2 * 30 * 4)
    assert first.kept_bytes == 3 * 30 * 4  # its input
    assert relu.kept_bytes == 4 * 30 * 4  # its output, which is the input of the next one as well
    assert last.kept_bytes == 0


class Products(mr.nn.Module):
    """The first channel of one convolution's output times another's output."""

    def __init__(self):
        super().__init__()
        self.one, self.other = mr.nn.Conv2d(3, 4, 1), mr.nn.Conv2d(3, 4, 1)

    def forward(self, x):
        return self.one(x)[:, :1] * self.other(x)


def test_a_view_keeps_the_whole_array_that_it_shows():
    *_, product = mr.summary(Products(), (3, 6, 5)).rows
    assert product.operation == "Mul"
    assert product.kept_bytes == 2 * 4 * 30 * 4  # all channels of both


def test_it_counts_the_same_inside_of_no_grad():
    model = mr.models.create("resnet20", width=2)
    with mr.no_grad():
        inside = mr.summary(model, (3, 8, 8))
    assert inside == mr.summary(model, (3, 8, 8))
    assert inside.kept_bytes > 0


class Twice(mr.nn.Module):
    """One convolution that runs twice, and a second module with the same weight."""

    def __init__(self):
        super().__init__()
        self.conv, self.other = mr.nn.Conv2d(2, 2, 3, padding=1), mr.nn.Conv2d(2, 2, 3, padding=1)
        self.other.weight = self.conv.weight

    def forward(self, x):
        return self.other(self.conv(self.conv(x)))


def test_parameters_of_a_module_used_twice_count_once():
    summary = mr.summary(Twice(), (2, 4, 5))
    assert [row.params for row in summary.rows] == [38, 0, 2]
    assert summary.params == summary.trainable == 40
    assert [row.macs for row in summary.rows] == [20 * 36] * 3
    for depth in (1, 2):
        merged = mr.summary(Twice(), (2, 4, 5), depth=depth).rows
        found = [(row.module, row.params, row.macs) for row in merged]
        assert found == [("conv", 38, 2 * 20 * 36), ("other", 2, 20 * 36)]


def test_a_stage_is_the_sum_of_its_operations():
    model = mr.models.create("resnet20", width=4)
    whole, stages = mr.summary(model, (3, 8, 6)), mr.summary(model, (3, 8, 6), depth=1)
    stage_names = ["layer1", "layer2", "layer3"]
    assert [row.module for row in stages.rows] == ["conv1", "bn1", "relu", *stage_names, "avgpool", "", "fc"]
    assert stages.rows[0] == whole.rows[0]
    for number in ("params", "macs", "backward_macs", "activation_bytes", "kept_bytes"):
        assert getattr(stages, number) == getattr(whole, number), number
        own = [getattr(row, number) for row in whole.rows if row.module.startswith("layer2")]
        assert getattr(stages.rows[4], number) == sum(own), number
    assert stages.rows[4].output_shape == (8, 4, 3)
    layer2 = stages.rows[4]
    assert f"{layer2.macs:,}" in str(whole)  # the subtotal
    assert "layer2 subtotal" in str(whole)
    assert f"{100 * layer2.macs / whole.macs:.1f} %" in str(whole)
    blocks = mr.summary(model, (3, 8, 6), depth=2).rows
    assert [row.module for row in blocks if row.module.startswith("layer2")] == ["layer2.0", "layer2.1", "layer2.2"]


@pytest.mark.parametrize(("sort", "field"), [("macs", "macs"), ("params", "params"), ("memory", "kept_bytes")])
def test_the_largest_first(sort, field):
    model = mr.models.create("resnet20", width=4)
    whole, ordered = mr.summary(model, (3, 8, 6)), mr.summary(model, (3, 8, 6), sort=sort)
    values = [getattr(row, field) for row in whole.rows]
    assert [getattr(row, field) for row in ordered.rows] == sorted(values, reverse=True)
    assert sorted(ordered.rows, key=repr) == sorted(whole.rows, key=repr)
    assert "subtotal" not in str(ordered)


def test_wrong_sort_and_depth():
    model = mr.models.create("resnet20", width=4)
    message = r"sort must be one of 'macs', 'params', 'memory'; got 'mac'. Did you mean 'macs'"
    with pytest.raises(ValueError, match=message):
        mr.summary(model, (3, 8, 8), sort="mac")
    for depth, error in ((0, ValueError), (1.5, TypeError), (True, TypeError)):
        with pytest.raises(error, match="depth must be"):
            mr.summary(model, (3, 8, 8), depth=depth)


def test_totals_are_those_of_torchinfo():
    """Its README: resnet152 with 3×224×224, float32."""
    model = mr.models.create("resnet152", stride_in="3x3")
    text = str(mr.summary(model, (3, 224, 224), depth=1))
    totals = {line[:26].strip(): line[26:].strip() for line in text.splitlines()[-7:]}
    sizes = [float(line.split()[-2]) for line in text.splitlines() if line.endswith(" MB")]
    assert sizes == [0.60, 360.87, 240.77, 602.25]
    assert totals["total params"] == totals["trainable params"] == "60,192,808"


def test_frozen_parameters_are_not_trainable():
    model = mr.models.create("resnet20", width=4)
    model.fc.weight.requires_grad = False
    summary = mr.summary(model, (3, 8, 8))
    assert summary.params - summary.trainable == model.fc.weight.size


def test_csv_and_html():
    summary = mr.summary(mr.models.create("resnet20", width=4), (3, 8, 6))
    head, *lines = list(csv.reader(summary.to_csv().splitlines()))
    assert head[:4] == ["module", "operation", "output_shape", "params"]
    assert len(lines) == len(summary.rows)
    assert lines[0][2] == "4x8x6"
    assert sum(int(line[4]) for line in lines) == summary.macs


def test_a_notebook_shows_one_table_and_a_prompt_its_text():
    model = mr.models.create("resnet20", width=4)
    summary = mr.summary(model, (3, 8, 8))
    html = ElementTree.fromstring(summary._repr_html_())
    assert html.tag == "table"
    heads = [cell.text for cell in html.findall("thead/tr/th")]
    rows = [[cell.text for cell in row] for row in html.findall("tbody/tr")]
    assert heads[:3] == ["module", "operation", "output"]
    assert [row[:2] for row in rows if row[1]] == [[row.module or None, row.operation] for row in summary.rows]
    assert all(len(row) == len(heads) for row in rows)
    assert f"{summary.macs:,}" in [cell.text for cell in html.findall("tfoot/tr/th")]
    assert repr(summary) == str(summary)
    assert "\x1b" not in str(summary)


# The peak is read from /proc: getrusage's is that of the process before exec, this big one, if it was higher.
MEASURE = """
import re, numpy as np, minires as mr, minires.functional as F
def kilobytes(name):
    return int(re.search(rf"{{name}}:\\s*(\\d+) kB", open("/proc/self/status").read())[1])
def step(model, sgd, batch):
    images = np.random.default_rng(0).standard_normal((batch, 3, {size}, {size}), np.float32)
    sgd.zero_grad()
    F.cross_entropy(model(mr.tensor(images)), np.zeros(batch, int)).backward()
    sgd.step()
small = mr.models.create("{network}", width=2)
step(small, mr.optim.SGD(small.parameters(), 0.0, 0.9), 2)
del small
before = kilobytes("VmRSS")
model = mr.models.create("{network}")
sgd = mr.optim.SGD(model.parameters(), 0.0, 0.9)
for _ in range(3):
    step(model, sgd, {batch})
print(1024 * (kilobytes("VmHWM") - before), mr.inspect.peak_memory(model, (3, {size}, {size}), {batch}))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
@pytest.mark.parametrize(("network", "size", "batch"), [("resnet20", 32, 128), ("resnet18", 112, 16)])
def test_predicted_peak_of_memory_is_within_15_percent(network, size, batch):
    """The system measures the peak.  The allocator returns large blocks at once, so its fragmentation is small."""
    script = MEASURE.format(network=network, size=size, batch=batch)
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "131072", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    measured, predicted = map(int, done.stdout.split())
    assert 0.85 * measured < predicted < 1.15 * measured, (measured, predicted)


def test_the_first_prediction_of_a_process_is_as_large_as_the_second():
    """The first step of a process imports modules, which do not count."""
    script = """
import minires as mr
model = mr.nn.Sequential(mr.nn.Linear(64, 512), mr.nn.ReLU(), mr.nn.Linear(512, 10))
print(*(mr.inspect.peak_memory(model, (64,), 64) for _ in range(2)))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    first, second = map(int, done.stdout.split())
    assert 0.8 * second < first < 1.2 * second, (first, second)


def test_predicting_leaves_no_trace():
    model = mr.models.create("vgg16", width=2, num_classes=3, hidden=5)  # it has dropout
    state = {name: array.copy() for name, array in model.state_dict().items()}
    generator = mr.random.generator().bit_generator.state
    model.features[0].eval()
    modes = [module.training for module in model.modules()]
    assert mr.inspect.peak_memory(model, (3, 32, 32), 8) > mr.inspect.peak_memory(model, (3, 32, 32), 2) > 0
    assert mr.random.generator().bit_generator.state == generator
    for name, array in model.state_dict().items():
        assert np.array_equal(array, state[name]), name
    assert all(p.grad is None for p in model.parameters())
    assert [module.training for module in model.modules()] == modes
    with pytest.raises(ValueError, match="batch must be at least 1"):
        mr.inspect.peak_memory(model, (3, 32, 32), 0)


def test_the_callers_tracing_goes_on():
    model = mr.models.create("resnet20", width=2)
    tracemalloc.start()
    try:
        mr.inspect.peak_memory(model, (3, 8, 8), 8)
        assert tracemalloc.is_tracing()
    finally:
        tracemalloc.stop()
    mr.inspect.peak_memory(model, (3, 8, 8), 8)
    assert not tracemalloc.is_tracing()


def test_the_prediction_follows_the_line_through_what_was_measured(monkeypatch):
    module = sys.modules["minires.inspect.memory"]
    monkeypatch.setattr(module, "_measured", lambda model, input_shape, images: 1000 + 10 * images)
    with mr.backend("reference"):
        peak = mr.inspect.PeakMemory(mr.models.create("resnet20", width=2), (3, 8, 8))
        assert [peak(images) for images in (1, 8, 24)] == [1010, 1080, 1240]
        assert [peak.largest_batch(limit) for limit in (1009, 1010, 1239, 1240)] == [0, 1, 23, 24]


def test_the_largest_workspace_of_a_convolution_counts_once(monkeypatch):
    model = mr.models.create("resnet20", width=2)
    with mr.backend("reference"):
        without = mr.inspect.PeakMemory(model, (3, 8, 8))(8)
        workspace = {2: 5 * 10**9, 4: 7 * 10**9, 8: 6 * 10**9}  # by filters: the largest is amid the network
        working = lambda shape, w, *options: workspace[w.shape[0]] + shape[0]  # noqa: E731
        monkeypatch.setattr(backends.reference, "conv2d_working_bytes", working, raising=False)
        assert abs(mr.inspect.PeakMemory(model, (3, 8, 8))(8) - without - 7 * 10**9) < 10**6


def test_the_command(capsys):
    assert cli.main(["summary", "resnet20", "--width", "4", "--batch-size", "16"]) == 0
    assert "training step with 16 images: peak about" in capsys.readouterr().out
    assert cli.main(["summary", "resnet20", "--width", "4", "--csv"]) == 0
    assert capsys.readouterr().out.startswith("module,operation,output_shape,params,macs,backward_macs")
    assert cli.main(["summary", "resnet20", "--width", "4", "--depth", "1", "--sort", "macs", "--csv"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + 9
    macs = [int(line.split(",")[4]) for line in lines[1:]]
    assert macs == sorted(macs, reverse=True)
    for flag, message in (("--depth=0", "--depth must be at least 1, got 0"), ("--sort=size", "--sort must be one of")):
        assert cli.main(["summary", "resnet20", flag]) == 2
        assert message in capsys.readouterr().err
    assert cli.main(["summary", "resnet20", "--batch-size", "0"]) == 2
    assert capsys.readouterr().err.startswith("error: --batch-size must be at least 1, got 0\n")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("resnet20", {}),
        ("resnet20", {"shortcut": "C", "batch_norm": False}),
        ("plain20", {}),
        ("resnet50", {"stride_in": "3x3"}),
        ("vgg16", {"hidden": 8}),
    ],
)
def test_shapes_alone_count_what_computing_counts(monkeypatch, name, options):
    model = mr.models.create(name, width=2, **options)
    counted = mr.summary(model, (3, 64, 48))
    monkeypatch.setattr(sys.modules["minires.inspect.summary"], "Shapes", lambda: backends.reference)
    assert mr.summary(model, (3, 64, 48)) == counted


def test_shapes_of_every_kind():
    """Results of `Shapes` have the shape and dtype of the reference backend's results."""
    named = {name for name in vars(Shapes) if name.endswith("_forward")}
    x, w = np.ones((2, 4, 9, 7), np.float32), np.ones((6, 2, 3, 2), np.float32)
    channel = np.ones(4, np.float32)
    window = (3, 2), (2, 1), (1, 1), (1, 2)
    calls = {
        "conv2d_forward": (x, w, None, *window[1:], 2),
        "batch_norm_eval_forward": (x, channel, channel, channel, channel, 1e-5),
        "relu_forward": (x,),
        "add_forward": (x, x[:, :1]),
        "max_pool2d_forward": (x, *window, (5, 7)),
        "adaptive_avg_pool2d_forward": (x, (4, 3)),
        "linear_forward": (x, np.ones((5, 7), np.float32), None),
    }
    assert calls.keys() == named
    for name, operands in calls.items():
        found, expected = getattr(Shapes(), name)(*operands), getattr(backends.reference, name)(*operands)
        pairs = zip(found, expected, strict=True) if isinstance(expected, tuple) else [(found, expected)]
        assert all((a.shape, a.dtype) == (b.shape, b.dtype) for a, b in pairs), name


@pytest.mark.parametrize("kernel", [(16, 16), (257, 1), (1, 255)])
def test_places_in_large_windows_have_the_type_of_the_reference_backend(kernel):
    operands = np.ones((1, 2, 260, 260), np.float32), kernel, (260, 260), (0, 0), (1, 1), (1, 1)
    found, expected = (of.max_pool2d_forward(*operands)[1] for of in (Shapes(), backends.reference))
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)


def test_every_network_of_the_paper_is_counted_at_once(capsys):
    """Computing the networks would take ten times as long."""
    began = time.process_time()
    assert cli.main(["models", "--json"]) == 0
    assert time.process_time() - began < 5  # 1 s on an idle machine
    assert {row["network"] for row in json.loads(capsys.readouterr().out)} == set(mr.models.names())


def test_a_part_of_a_network_has_its_parameters():
    model = mr.models.create("resnet20", width=4)
    part = mr.summary(model.layer2, (4, 8, 8))
    assert sum(row.params for row in part.rows) == part.params == sum(p.size for p in model.layer2.parameters())
    assert part.pass_bytes > 0
