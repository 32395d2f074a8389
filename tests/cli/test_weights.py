"""`minires weights` and `minires convert`: output, exit codes and files."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from usage import error_names
from weights.named import renamed, state

from minires import weights

PUBLISHED = Path(__file__).parents[1] / "weights" / "data" / "resnet20-12fca82f.th"


@pytest.fixture
def put(tmp_path):
    def put(arrays, name="x.safetensors", metadata=None):
        path = tmp_path / name
        safetensors.numpy.save_file({key: np.ascontiguousarray(array) for key, array in arrays.items()}, path, metadata)
        return path

    return put


def lines(out):
    """Label -> texts, from the lines below the table."""
    found: dict[str, list[str]] = {}
    for line in out.split("┘\n")[-1].splitlines():
        found.setdefault(line[:14].strip(), []).append(line[14:])
    return found


def test_the_published_resnet20(call):
    code, out, err = call("weights", PUBLISHED)
    assert (code, err) == (0, "")
    below = lines(out)
    assert below["format"] == ['PyTorch legacy, under "state_dict"']
    assert below["names"] == ["CIFAR, head named linear; all begin with module."]
    assert below["network"] == ["resnet20, width 16, batch_norm yes, shortcut A, zero_channels both"]
    assert (below["classes"], below["channels"], below["parameters"]) == (["10"], ["3"], ["269,722"])
    assert below["fits"] == ["the file holds this network, whole"]
    assert "module.layer2.*     │ 30      │ 32×16×3×3, … │ 51,456" in out
    assert "module.layer2.0.conv1.weight" not in out
    code, out, _ = call("weights", PUBLISHED, "--all")
    assert code == 0
    assert out.count("module.") == 97 + 1
    assert "│ layer2.0.conv1.weight" in out


def test_json(call):
    code, out, err = call("weights", PUBLISHED, "--json")
    assert (code, err) == (0, "")
    (content,) = json.loads(out)["files"]
    assert (content["network"], content["fits"], content["parameters"]) == ("resnet20", True, 269_722)
    assert (content["convention"], content["prefix"], content["inside"]) == (
        "CIFAR, head named linear",
        "module.",
        "state_dict",
    )
    assert content["names"]["fc.weight"] == "module.linear.weight"
    assert content["tensors"][0] == {"name": "module.conv1.weight", "shape": [16, 3, 3, 3], "stored": "float32"}


def test_an_undecided_option_names_its_flag(call, put):
    path = put(state("resnet50"))
    code, out, _ = call("weights", path)
    assert code == 0  # the file fits with either stride
    assert lines(out)["undecided"] == ["stride_in"]
    assert "--stride-in" in lines(out)["note"][0]
    code, out, _ = call("weights", path, "--stride-in", "1x1")
    assert code == 0
    assert "undecided" not in lines(out)
    assert "stride_in 1x1" in lines(out)["network"][0]


def test_a_file_that_does_not_fit_its_network(call, put):
    arrays = state("resnet34")
    del arrays["fc.bias"]
    arrays["fc.scale"] = arrays["bn1.bias"]
    arrays["conv1.weight"] = np.zeros((4, 2, 3, 3), np.float32)
    code, out, err = call("weights", put(arrays))
    assert (code, err) == (1, "")
    below = lines(out)
    assert (below["missing"], below["left over"]) == (["fc.bias"], ["fc.scale"])
    assert below["different"] == ["'conv1.weight' is (4, 2, 3, 3), resnet34 has (4, 2, 7, 7)"]
    assert below["fits"] == ["the file does not fit"]
    assert call("weights", put(state("resnet34")), "--network", "resnet18")[0] == 1


def test_long_lists_are_cut_short(call, put):
    path = put(state("resnet34"))
    _, out, _ = call("weights", path, "--network", "resnet18")
    left = lines(out)["left over"]
    assert len(left) == 21
    assert left[-1].startswith("and ")
    _, out, _ = call("weights", path, "--network", "resnet18", "--all")
    assert len(lines(out)["left over"]) == int(left[-1].split()[1]) + 20


def test_a_file_of_an_unknown_network(call, put):
    code, out, _ = call("weights", put({"blocks.0.attn.qkv.weight": np.zeros(3, np.float32)}))
    assert code == 1
    assert "does not look like a network of minires" in lines(out)["network"][0]


def test_impossible_numbers(call, put):
    arrays = state("resnet20")
    arrays["fc.bias"][2] = np.nan
    code, out, _ = call("weights", put(arrays))
    assert code == 1
    assert lines(out)["broken"] == ["fc.bias: 1 of 7 numbers are not finite"]
    assert lines(out)["fits"] == ["no: impossible numbers"]
    code, _, err = call("convert", put(arrays), put(arrays).with_name("y.safetensors"))
    assert code == 4
    error_names(err, "is broken: fc.bias")


def test_several_files_one_of_them_unreadable(call, put, tmp_path):
    (tmp_path / "bad.pth").write_bytes(b"nonsense")
    code, out, err = call("weights", tmp_path / "bad.pth", PUBLISHED, put({"a": np.zeros(3, np.float32)}))
    assert code == 4
    error_names(err, "bad.pth: is no weight file")
    assert "resnet20" in out
    code, out, _ = call("weights", tmp_path / "bad.pth", PUBLISHED, "--json")
    assert code == 4
    assert ["error" in file for file in json.loads(out)["files"]] == [True, False]
    assert call("weights", PUBLISHED, put({"a": np.zeros(3, np.float32)}))[0] == 1


def test_control_characters_in_tensor_names_are_escaped(call, put):
    arrays = state("resnet20") | {"\x1b[2J[bold]x": np.zeros(3, np.float32)}
    for words in ((), ("--all",)):
        _, out, _ = call("weights", put(arrays), *words)
        assert "\x1b" not in out
        assert "?[2J[bold]x" in out


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["weights"], "FILE"),
        (["weights", "nowhere.pth"], "no such file or folder: nowhere.pth"),
        (["weights", PUBLISHED, "--network", "resnet21"], "Did you mean"),
        (["weights", PUBLISHED, "--stride-in", "2x2"], "--stride-in"),
        (["convert", PUBLISHED], "OUT"),
        (["convert", "nowhere.pth", "x.safetensors"], "no such file or folder: nowhere.pth"),
        (["convert", PUBLISHED, "x.pth"], "OUT must end with .safetensors, got x.pth"),
        (["convert", PUBLISHED, "no/x.safetensors"], "OUT: there is no folder no"),
        (["convert", PUBLISHED, "folder.safetensors"], "OUT: folder.safetensors is a folder"),
        (["convert", PUBLISHED, "old.safetensors"], "old.safetensors exists: --force replaces it"),
        (["convert", "old.safetensors", "old.safetensors", "--force"], "IN and OUT are the same file"),
        (["convert", "old.safetensors", "link.safetensors", "--force"], "IN and OUT are the same file"),
        (["convert", PUBLISHED, "x.safetensors", "--network", "resnet32"], "does not fit resnet32"),
        (["convert", PUBLISHED, "x.safetensors", "--stride-in", "1x1"], "--stride-in does not apply to the resnet20"),
        (["convert", PUBLISHED, "x.safetensors", "--dtype", "bfloat16"], "--dtype"),
        (["convert", PUBLISHED, "iteration-00000003-0123abcd.safetensors"], "a part of a checkpoint"),
        (
            ["convert", "large.safetensors", "x.safetensors", "--dtype", "float16"],
            "fc.bias holds numbers beyond float16",
        ),
    ],
)
def test_wrong_usage_is_one_line_and_exit_2(call, put, tmp_path, monkeypatch, words, expected):
    monkeypatch.chdir(tmp_path)
    put(state("resnet20"), "old.safetensors")
    put(state("resnet20") | {"fc.bias": np.full(7, 1e6, np.float32)}, "large.safetensors")
    os.link("old.safetensors", "link.safetensors")
    (tmp_path / "folder.safetensors").mkdir()
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    code, out, err = call(*words)
    assert (code, out) == (2, "")
    error_names(err, expected)
    assert {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


def test_convert(call, put, tmp_path, rng):
    arrays = state("resnet50", rng)
    source, target = put(renamed(arrays, "Hugging Face transformers")), tmp_path / "y.safetensors"
    code, out, err = call("convert", source, target, "--stride-in", "3x3")
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "resnet50, 267 arrays; their names were: Hugging Face transformers",
        f"{target}  {target.stat().st_size:,} bytes",
    ]
    found = safetensors.numpy.load_file(target)
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array, strict=True)
    code, out, _ = call("weights", target)
    assert (code, lines(out)["names"]) == (0, ["minires"])
    assert "stride_in 3x3" in lines(out)["network"][0]
    code, out, _ = call("convert", source, target, "--stride-in", "1x1", "--force", "--json", "--dtype", "float16")
    assert code == 0
    content = json.loads(out)
    assert (content["options"]["stride_in"], content["file"], content["bytes"]) == (
        "1x1",
        str(target),
        target.stat().st_size,
    )
    assert safetensors.numpy.load_file(target)["fc.bias"].dtype == np.float16


def test_convert_reports_its_assumptions(call, put, tmp_path):
    code, out, _ = call("convert", put(state("plain20")), tmp_path / "y.safetensors")
    assert code == 0
    assert [line.split(" ")[1] for line in out.splitlines()[1:3]] == ["plain20", "option"]
    assert out.splitlines()[3] == "assumed: network, zero_channels; marked in the metadata"
    code, out, _ = call("weights", tmp_path / "y.safetensors")
    assert lines(out)["undecided"] == ["network, zero_channels"]
    assert weights.load(tmp_path / "y.safetensors")[1].options["zero_channels"] == "end"


def test_a_run(call, tmp_path):
    words = ["--width", 2, "--iterations", 2, "--workers", 0, "--quiet"]
    assert call("train", "plain20", *words, "--out", tmp_path / "run")[0] == 0
    code, out, err = call("weights", tmp_path / "run")
    assert (code, err) == (0, "")
    below = lines(out)
    assert below["names"] == ["minires checkpoint; all begin with model."]
    assert below["network"][0].startswith("plain20, width 2")
    assert below["classes"] == ["10 (0, 1, 2, 3, …)"]
    assert below["pictures"] == ["resize 8, crop 8, mean image 8×8×1, std 1, interpolation bilinear, grey yes"]
    target = tmp_path / "run.safetensors"
    assert call("convert", tmp_path / "run", target)[0] == 0
    code, out, _ = call("weights", target)
    assert (code, lines(out)["pictures"]) == (0, below["pictures"])
    tensors = next((tmp_path / "run" / "checkpoints").glob("*.safetensors"))
    code, _, err = call("convert", tmp_path / "run", tensors, "--force")
    assert code == 2
    error_names(err, "a part of a checkpoint")
