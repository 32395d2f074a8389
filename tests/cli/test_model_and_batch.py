"""The network and the images of `step`, `trace` and `lockstep`: preprocessing, weight files and errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from PIL import Image
from usage import error_line

import minires as mr
from minires import data
from minires.cli import main
from minires.cli.model_and_batch import add_flags, model_and_batch
from minires.cli.parser import Parser


def seen(*words):
    """The images (N, C, H, W) that the network receives."""
    parser = Parser()
    add_flags(parser)
    with model_and_batch("resnet20", parser.parse_args([str(word) for word in words])) as found:
        return found.images.numpy()


def test_a_picture_of_the_runs_own_data(tmp_path):
    """The run's preprocessing has one channel and a mean image, unlike ImageNet's."""
    run = tmp_path / "run"
    words = ["--width", "2", "--iterations", "1", "--workers", "0", "--quiet"]
    assert main(["train", "resnet20", *words, "--out", str(run)]) == 0
    Image.fromarray(data.load("digits", "test").images[7, :, :, 0]).save(tmp_path / "7.png")
    stored = seen("--weights", run, "--index", 7, "--batch-size", 1)
    np.testing.assert_array_equal(seen("--weights", run, "--image", tmp_path / "7.png"), stored)


@pytest.mark.parametrize("size", [(50, 40), (37, 99)])
def test_a_picture_for_an_untrained_network(tmp_path, rng, size):
    Image.fromarray(rng.integers(0, 256, (*size, 3)).astype(np.uint8)).save(tmp_path / "x.png")
    found = seen("--image", tmp_path / "x.png")
    np.testing.assert_array_equal(found[0], data.Preprocessing(37, 32)(tmp_path / "x.png"))


def test_a_picture_for_a_run_on_a_folder(tmp_path, rng):
    """The picture is resized with a margin and cropped, as in evaluation."""
    for split in ("train", "val"):
        for i in range(4):
            path = tmp_path / split / f"class {i % 2}" / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (30, 40 + i, 3)).astype(np.uint8)).save(path)
    words = ["--data", "folder", "--data-dir", str(tmp_path), "--size", "16", "--batch-size", "4", "--width", "2"]
    words += ["--iterations", "1", "--workers", "0", "--quiet", "--out", str(tmp_path / "run")]
    assert main(["train", "resnet20", *words]) == 0
    run = ("--weights", tmp_path / "run")
    stored = seen(*run, "--data-dir", tmp_path, "--index", 2, "--batch-size", 1)
    np.testing.assert_array_equal(seen(*run, "--image", tmp_path / "val" / "class 1" / "1.png"), stored)


def test_weights_of_another_program(capsys):
    """A published file, by default with the photograph; flags that contradict the file are errors."""
    file = str(Path(__file__).parents[1] / "weights" / "data" / "resnet20-12fca82f.th")
    assert main(["lockstep", "resnet20", "--weights", file, "--label", "3"]) == 0
    assert "in step" in capsys.readouterr().out
    assert main(["lockstep", "resnet32", "--weights", file]) == 2
    assert "does not fit resnet32" in capsys.readouterr().err
    assert main(["lockstep", "resnet20", "--weights", file, "--width", "4"]) == 2
    assert "--width cannot be given with --weights: the file has its own" in capsys.readouterr().err
    assert main(["lockstep", "resnet20", "--weights", "nowhere.pth"]) == 2
    assert "--weights: no such file or folder: nowhere.pth" in capsys.readouterr().err


def test_position_of_the_zero_channels(tmp_path, capsys):
    """An initialised network has the chosen one.  For a file without metadata, a note reports the assumption."""
    Image.new("RGB", (32, 32)).save(tmp_path / "x.png")
    model = mr.models.create("resnet20", width=2)
    safetensors.numpy.save_file(model.state_dict(), tmp_path / "x.safetensors")

    def before(*words):
        """The number of zero channels before the other channels, at the first shortcut that has zero channels."""
        parser = Parser()
        add_flags(parser)
        with model_and_batch(
            "resnet20", parser.parse_args([*words, "--image", str(tmp_path / "x.png"), "--eval"])
        ) as found:
            return found.model.layer2[0].downsample.pad[1][0]

    assert before("--width", "2") == 0
    assert before("--width", "2", "--zero-channels", "both") == 1
    weights = ("--weights", str(tmp_path / "x.safetensors"))
    assert capsys.readouterr().err == ""
    assert before(*weights) == 0
    assert "zero channels are assumed to be at the end" in capsys.readouterr().err
    assert before(*weights, "--zero-channels", "both") == 1
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("command", ["step", "trace", "lockstep"])
def test_wrong_zero_channels(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    model = mr.models.create("resnet20", width=2)
    safetensors.numpy.save_file(model.state_dict(), tmp_path / "x.safetensors")
    for words in (["--width", "2"], ["--weights", "x.safetensors"]):
        assert main([command, "resnet20", *words, "--zero-channels", "middle"]) == 2
        assert "--zero-channels must be one of 'end', 'both'" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["step", "trace", "lockstep"])
def test_batch_norm_of_a_single_value_is_an_error(command, tmp_path, monkeypatch, capsys):
    """ResNet-18 reduces an 8×8 digit to one pixel."""
    monkeypatch.chdir(tmp_path)
    assert main([command, "resnet18", "--width", "2", "--data", "digits", "--batch-size", "1"]) == 2
    err = error_line(capsys.readouterr().err)
    assert "--batch-size must be at least 2: one image of shape (1, 8, 8) leaves batch norm a single value" in err
