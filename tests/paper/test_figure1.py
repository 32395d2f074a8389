"""Figure 1: its runs, resumption, verdict and picture, on a few iterations."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from minires import cli, data
from minires.data import Dataset
from minires.paper import figure1
from minires.paper.figure1 import Curve
from minires.training import history

ROW = history.Row(300, 1.0, 0.02, 1.0, 40.0, 50.0, 100.0, 1.0)


@pytest.fixture
def small(monkeypatch):
    """300 + 100 images in Fashion-MNIST's place."""
    rng = np.random.default_rng(0)

    def load(name, split="train", data_dir=None, download=False, size=None):
        n = 300 if split == "train" else 100
        images = rng.integers(0, 256, (n, size, size, 1)).astype(np.uint8)
        return Dataset(name, split, images, np.arange(n) % 10, tuple("abcdefghij"))

    monkeypatch.setattr(data, "load", load)


def test_a_curve_is_a_run_that_is_found_again(small, tmp_path):
    plan = figure1.plan(quick=True, residual=True)
    assert plan.networks == ("plain20", "plain56", "resnet20", "resnet56")
    short = replace(plan, iterations=4, settings={**plan.settings, "iterations": 4, "eval_every": 2, "workers": 0})
    first = figure1.run(short, "plain20", 0, tmp_path)
    folder = tmp_path / "plain20-4-0"
    written = (folder / "history.csv").stat().st_mtime_ns
    again = figure1.run(short, "plain20", 0, tmp_path)
    assert again.rows == first.rows
    assert (folder / "history.csv").stat().st_mtime_ns == written
    assert 0 <= first.training_error <= 100
    assert first.rows[-1].iteration == 4


def curves(**errors):
    return [Curve(name, 0, (ROW,), error, error + 1) for name, error in errors.items()]


def test_the_verdict():
    plan = figure1.plan(quick=True, residual=True)
    good = figure1.verdict(plan, curves(plain20=34.0, plain56=63.0, resnet20=28.0, resnet56=29.0))
    assert [holds for _, holds in good] == [True, True, True]
    bad = figure1.verdict(plan, curves(plain20=34.0, plain56=48.0, resnet20=33.0, resnet56=29.9))
    assert [holds for _, holds in bad] == [False, False, False]
    standard = figure1.plan(residual=True)
    found = figure1.verdict(standard, curves(plain20=20.0, plain56=28.1, resnet20=17.0, resnet56=10.0))
    assert [holds for _, holds in found] == [True, True, True]  # better than ResNet-20 is never too far
    assert len(figure1.verdict(figure1.plan(), curves(plain20=20.0, plain56=30.0))) == 1


def test_nan_fails_the_verdict():
    plan = figure1.plan(quick=True)
    assert [holds for _, holds in figure1.verdict(plan, curves(plain20=30.0, plain56=float("nan")))] == [False]


def test_the_papers_own_experiment():
    plan = figure1.plan("cifar10")
    assert plan.iterations == 64_000
    assert "Figure 1 on CIFAR-10" in plan.title
    assert "analogue" in figure1.plan().title
    with pytest.raises(ValueError, match="data must be one of 'fashion-mnist', 'cifar10'"):
        figure1.plan("digits")


def test_picture():
    plan = figure1.plan(quick=True, residual=True)
    every = curves(plain20=34.0, plain56=63.0, resnet20=28.0, resnet56=29.0)
    with Image.open(io.BytesIO(figure1.picture(plan, every))) as image:
        assert image.size == (1500, 630)


def test_wrong_usage_is_one_line(capsys):
    for words, told in (
        (("--seeds", "0"), "--seeds must be at least 1"),
        (("--data", "digits"), "--data must be one of"),
    ):
        assert cli.main(["paper", "figure1", *words]) == 2
        assert told in capsys.readouterr().err
