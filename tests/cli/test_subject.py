"""What `step` and `trace` look into: the picture that is given goes through the run's own preprocessing."""

from __future__ import annotations

import argparse

import numpy as np
import pytest
from PIL import Image

from minires import data
from minires.cli import main
from minires.cli.subject import add_subject, subject


def seen(*words):
    """What the network is given."""
    parser = argparse.ArgumentParser()
    add_subject(parser)
    with subject("resnet20", parser.parse_args([str(word) for word in words])) as found:
        return found.images.numpy()


def test_a_picture_of_the_runs_own_data(tmp_path):
    """Of one channel and with a mean image, not ImageNet's three and three means."""
    run = tmp_path / "run"
    words = ["--width", "2", "--iterations", "1", "--workers", "0", "--quiet"]
    assert main(["train", "resnet20", *words, "--out", str(run)]) == 0
    Image.fromarray(data.load("digits", "test").images[7, :, :, 0]).save(tmp_path / "7.png")
    stored = seen("--weights", run, "--index", 7, "--batch", 1)
    np.testing.assert_array_equal(seen("--weights", run, "--image", tmp_path / "7.png"), stored)


@pytest.mark.parametrize("size", [(50, 40), (37, 99)])
def test_a_picture_for_an_untrained_network(tmp_path, rng, size):
    Image.fromarray(rng.integers(0, 256, (*size, 3)).astype(np.uint8)).save(tmp_path / "x.png")
    found = seen("--image", tmp_path / "x.png")
    np.testing.assert_array_equal(found[0], data.Preprocessing(37, 32)(tmp_path / "x.png"))


def test_a_picture_for_a_run_on_a_folder(tmp_path, rng):
    """It keeps the margin that evaluation cuts off."""
    for split in ("train", "val"):
        for i in range(4):
            path = tmp_path / split / f"class {i % 2}" / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (30, 40 + i, 3)).astype(np.uint8)).save(path)
    words = ["--data", "folder", "--data-dir", str(tmp_path), "--size", "16", "--batch-size", "4", "--width", "2"]
    words += ["--iterations", "1", "--workers", "0", "--quiet", "--out", str(tmp_path / "run")]
    assert main(["train", "resnet20", *words]) == 0
    run = ("--weights", tmp_path / "run")
    stored = seen(*run, "--data-dir", tmp_path, "--index", 2, "--batch", 1)
    np.testing.assert_array_equal(seen(*run, "--image", tmp_path / "val" / "class 1" / "1.png"), stored)
