"""The examples run as they stand, and their mistakes are found where they were planted."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from examples import own_backend, own_network

import minires as mr
import minires.functional as F
from minires.verify.layers import check_layers, first_fault


@pytest.fixture
def batch(rng):
    return rng.standard_normal((4, 1, 8, 8)).astype(np.float32), np.arange(4)


@pytest.mark.parametrize("name", ["own_network", "own_backend"])
def test_an_example_runs_as_a_program(name, tmp_path):
    command = [sys.executable, "-W", "error", str(Path(__file__).parent / f"{name}.py")]
    environment = os.environ | {"MINIRES_BACKEND": ""}
    ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    if name == "own_network":
        last, accuracy = re.search(r"loss \S+ -> (\S+), test accuracy (\S+) %", ran.stdout).groups()
        assert float(last) < 1
        assert float(accuracy) > 80
        assert "GELU" in ran.stdout
    else:
        first, second = ran.stdout.splitlines()
        assert first == "Taps: in step"
        place = r"forward of Conv2d of layer2\.0\.conv1, output at index \(\d, \d, \d, 7\)"
        assert re.fullmatch(rf"LastColumnForgotten: {place}: 0 instead of \S+", second)


def test_a_mistake_in_the_own_operation_is_named(batch, monkeypatch):
    """By gradcheck with its index, and in the network with its layer."""
    own_network.check_gradients(own_network.Network(4))
    sound = own_network.GELU.backward
    monkeypatch.setattr(own_network.GELU, "backward", lambda self, grad_output: sound(self, grad_output) * 1.01)
    with pytest.raises(mr.GradcheckError, match=r"input 0 \(x\) of shape \(3, 4\): the gradient is wrong at 12"):
        own_network.check_gradients(own_network.Network(4))
    fault = first_fault(check_layers(own_network.Network(4).astype("float64"), batch[0].astype(np.float64)))
    assert (fault.operation, fault.module) == ("GELU", "blocks.2")


def test_every_tool_looks_into_the_own_operation(batch, monkeypatch, capsys):
    monkeypatch.setenv("PYTHONBREAKPOINT", "0")
    images, labels = batch
    model = own_network.Network(4)
    with mr.inspect.breakpoint(at="GELU", when="backward", times=1):
        F.cross_entropy(model(mr.tensor(images)), labels).backward()
    card = capsys.readouterr().out
    assert card.startswith("GELU() of blocks.2, backward\n  grad_output  (4, 4, 4, 4) float32")
    assert "\n  x " in card

    assert any(row.operation == "GELU" for row in mr.summary(model, (1, 8, 8)).rows)
    page = mr.inspect.trace(model, images, labels).page()
    assert "np.tanh(self.SLOPE" in page  # its source

    monkeypatch.setattr(own_network.GELU, "SLOPE", math.nan)
    message = r"forward of GELU of blocks\.0: the output holds"
    with np.errstate(all="ignore"), pytest.raises(mr.inspect.AnomalyError, match=message), mr.inspect.detect_anomaly():
        model(mr.tensor(images))


def test_the_own_networks_weights_are_saved_and_loaded(batch, tmp_path):
    first, second = own_network.Network(4).eval(), own_network.Network(4).eval()
    own_network.save(first, tmp_path / "a.npz")
    own_network.load(second, tmp_path / "a.npz")
    np.testing.assert_array_equal(first(mr.tensor(batch[0])).data, second(mr.tensor(batch[0])).data)
    with pytest.raises(ValueError, match=r"stem\.weight"):
        own_network.load(own_network.Network(5), tmp_path / "a.npz")


def test_the_own_convolution_has_the_reference_ones_gradients(rng):
    """Its backward is the reference backend's: together they are right, with every option."""
    x, w, b = rng.standard_normal((2, 4, 7, 5)), rng.standard_normal((6, 2, 3, 2)), rng.standard_normal(6)
    options = {"stride": (2, 1), "padding": (1, 2), "dilation": (2, 1), "groups": 2}
    with mr.backend("reference"):
        expected = F.conv2d(x, w, b, **options).data
    with mr.backend(own_backend.Taps):
        np.testing.assert_allclose(F.conv2d(x, w, b, **options).data, expected, rtol=1e-12, atol=1e-13)
        assert mr.gradcheck(lambda x, w, b: F.conv2d(x, w, b, **options), {"x": x, "w": w, "b": b})
