"""`minires export`: the file, its metadata, and errors of wrong calls."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from usage import error_line

import minires as mr
from minires.cli import main


@pytest.fixture
def run(tmp_path):
    """A run folder, after two iterations."""
    command = f"train resnet20 --width 2 --data digits --iterations 2 --batch-size 8 --out {tmp_path / 'run'}"
    assert main([*command.split(), "--backend", "reference"]) == 0
    return tmp_path / "run"


def test_an_initialised_network(tmp_path, capsys):
    onnx = pytest.importorskip("onnx")
    out = tmp_path / "net.onnx"
    flags = "--width 2 --num-classes 7 --shortcut C --input 1x16x24 --batch-size 5 --fuse --seed 3"
    assert main(["export", "resnet20", *flags.split(), "--out", str(out)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(out)
    file = onnx.load(out)
    metadata = {entry.key: entry.value for entry in file.metadata_props}
    assert (metadata["network"], metadata["input"], metadata["fused"]) == ("resnet20", "1x16x24", "true")
    options = json.loads(metadata["options"])
    assert (options["shortcut"], options["width"], options["num_classes"], options["in_channels"]) == ("C", 2, 7, 1)
    assert [d.dim_value for d in file.graph.output[0].type.tensor_type.shape.dim] == [5, 7]


def test_a_trained_network(run, tmp_path, capsys):
    onnx = pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    out = tmp_path / "net.onnx"
    assert main(["export", "resnet20", "--weights", str(run), "--out", str(out), "--json"]) == 0
    content = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (content["file"], content["bytes"], content["batch"]) == (str(out), out.stat().st_size, None)
    assert json.loads(content["classes"]) == list("0123456789")
    assert {entry.key: entry.value for entry in onnx.load(out).metadata_props}["options"] == content["options"]
    from minires.training.restore import restore

    trained = restore(run)
    x = np.random.default_rng(0).standard_normal((3, *trained.checkpoint.input_shape), np.float32)
    (found,) = onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"]).run(None, {"images": x})
    with mr.no_grad():
        expected = trained.model(mr.tensor(x)).data
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["resnet20"], "the following arguments are required: --out"),
        (["resnet21", "--out", "x"], "unknown network 'resnet21'"),
        (["resnet20", "--out", "."], "--out must be a file, got the folder ."),
        (
            ["resnet20", "--out", "x", "--batch-size", "0"],
            "--batch-size must be a number from 1 on, or dynamic, got '0'",
        ),
        (
            ["resnet20", "--out", "x", "--batch-size", "many"],
            "--batch-size must be a number from 1 on, or dynamic, got 'many'",
        ),
        (["resnet20", "--out", "x", "--input", "3x32"], "must be channels, height and width"),
        (["vgg16", "--out", "x", "--width", "1", "--input", "3x8x8"], "--input: images of 3×8×8 do not fit"),
        (["resnet20", "--out", "x", "--shortcut", "D"], "--shortcut must be one of"),
        (["plain20", "--out", "x", "--shortcut", "A"], "plain20 has no option 'shortcut'"),
        (["resnet20", "--out", "x", "--num-classes", "0"], "--num-classes must be at least 1, got 0"),
        (["resnet20", "--out", "x", "--seed", "-1"], "--seed must be"),
        (["resnet20", "--out", "x", "--weights", "nowhere"], "--weights: no such file or folder: nowhere"),
        (["resnet20", "--out", "x", "--weights", "r", "--width", "2"], "--width cannot be given with --weights"),
        (["resnet20", "--out", "x", "--wieghts", "r"], "Did you mean '--weights'?"),
        (["resnet20", "--out", "/proc/1/x"], "--out: nothing can be written in /proc/1"),
        (["resnet20", "--out", "none/x"], "--out: there is no folder none"),
        (["resnet20", "--out", "x", "--zero-channels", "middle"], "--zero-channels must be one of"),
        (["plain20", "--out", "x", "--zero-channels", "both"], "plain20 has no option 'zero_channels'"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_2(words, expected, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["export", *words]) == 2
    printed = capsys.readouterr()
    assert expected in error_line(printed.err)
    assert not printed.out
    assert not list(tmp_path.iterdir()), "something was written"


def test_export_of_a_run_equals_its_network_with_its_weights(run, tmp_path, capsys):
    pytest.importorskip("onnx")
    one, two = tmp_path / "one.onnx", tmp_path / "two.onnx"
    assert main(["export", "resnet20", "--weights", str(run), "--out", str(one)]) == 0
    assert main(["export", str(run), "--out", str(two)]) == 0
    assert one.read_bytes() == two.read_bytes()
    capsys.readouterr()
    assert main(["export", str(run), "--weights", str(run), "--out", str(two), "--force"]) == 2
    assert "--weights cannot be given with the run" in capsys.readouterr().err


def test_weights_of_another_network(run, tmp_path, capsys):
    assert main(["export", "resnet32", "--weights", str(run), "--out", str(tmp_path / "x")]) == 2
    assert "holds a resnet20, not a resnet32" in capsys.readouterr().err


def test_weights_of_another_program(tmp_path, capsys):
    """The published ResNet-20 has the names of another repository; the metadata hold the recognised options."""
    onnx = pytest.importorskip("onnx")
    file = Path(__file__).parents[1] / "weights" / "data" / "resnet20-12fca82f.th"
    out = tmp_path / "x.onnx"
    assert main(["export", "resnet20", "--weights", str(file), "--out", str(out)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "resnet20: images batch×3×32×32 -> logits, 1.0 MiB"
    assert said[1].startswith("note: residual, with option A's zero channels on both sides")
    metadata = {entry.key: entry.value for entry in onnx.load(out).metadata_props}
    assert '"zero_channels": "both"' in metadata["options"]
    assert "assumed" not in metadata
    out.unlink()
    assert main(["export", "resnet32", "--weights", str(file), "--out", str(out)]) == 2
    assert "does not fit resnet32" in capsys.readouterr().err
    assert main(["export", "resnet20", "--weights", str(file), "--out", str(out), "--input", "1x32x32"]) == 2
    assert "--input must have the network's 3 channels, got 1" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_without_onnx(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert main(["export", "resnet20", "--width", "2", "--out", str(tmp_path / "x")]) == 3
    expected = "error: ONNX files need the package onnx: pip install 'minires[export]'\n"
    assert capsys.readouterr().err == expected
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_the_old_file(tmp_path, capsys, monkeypatch):
    pytest.importorskip("onnx")
    out = tmp_path / "x.onnx"
    out.write_text("old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    assert main(["export", "resnet20", "--width", "2", "--out", str(out), "--force"]) == 1
    assert "No space left" in capsys.readouterr().err
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


def test_only_force_replaces_a_file(tmp_path, capsys):
    pytest.importorskip("onnx")
    out = tmp_path / "x.onnx"
    out.write_text("old")
    assert main(["export", "resnet20", "--width", "2", "--out", str(out)]) == 2
    assert error_line(capsys.readouterr().err) == f"error: --out: {out} exists: --force replaces it"
    assert out.read_text() == "old"
    assert main(["export", "resnet20", "--width", "2", "--out", str(out), "--force"]) == 0
    assert out.stat().st_size > 3


def test_position_of_the_zero_channels(tmp_path, capsys):
    """An initialised network has the chosen one.  Without metadata, a note and a mark report the assumption."""
    onnx = pytest.importorskip("onnx")
    import safetensors.numpy

    out, file = str(tmp_path / "x.onnx"), tmp_path / "x.safetensors"

    def exported(*words):
        assert main(["export", "resnet20", "--out", out, "--force", *words]) == 0
        metadata = {entry.key: entry.value for entry in onnx.load(out).metadata_props}
        notes = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note: ")]
        return json.loads(metadata["options"])["zero_channels"], metadata.get("assumed"), len(notes)

    assert exported("--width", "2", "--zero-channels", "both") == ("both", None, 0)
    safetensors.numpy.save_file(mr.models.create("resnet20", width=2).state_dict(), file)
    assert exported("--weights", str(file)) == ("end", '["zero_channels"]', 1)
    assert exported("--weights", str(file), "--zero-channels", "both") == ("both", None, 0)
    assert main(["export", "resnet20", "--out", out, "--force", "--weights", str(file), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["notes"]) == 1
    assert main(["export", "resnet20", "--out", out, "--force", "--weights", str(file), "--zero-channels", "x"]) == 2
    assert "--zero-channels must be one of 'end', 'both'" in capsys.readouterr().err
