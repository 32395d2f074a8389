"""Weight files into networks and back: load, save, convert, checkpoints."""

from __future__ import annotations

import errno
import json
import os
import re

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from weights.named import renamed, small, state

import minires as mr
from minires import _atomic, models, weights
from minires.cli import main
from minires.training import find_checkpoint, load_checkpoint
from minires.weights import WeightsError, WeightsMismatch


@pytest.fixture
def written(tmp_path):
    def written(arrays, name="x.safetensors", metadata=None):
        path = tmp_path / name
        safetensors.numpy.save_file({key: np.ascontiguousarray(array) for key, array in arrays.items()}, path, metadata)
        return path

    return written


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    words = ["train", "plain20", "--width", "2", "--iterations", "3", "--workers", "0", "--quiet", "--out", str(out)]
    assert main(words) == 0
    return out


def metadata_of(path):
    with safetensors.safe_open(path, "numpy") as opened:
        return opened.metadata()


def equal(found, wanted):
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        np.testing.assert_array_equal(found[name], array, strict=True)


# -- load


def test_a_network_in_evaluation_mode(written, rng):
    arrays = mr.models.create("resnet50", **small("resnet50")).state_dict()
    model, match = weights.load(written(renamed(arrays, "Hugging Face transformers")), stride_in="1x1")
    equal(model.state_dict(), arrays)
    assert not any(module.training for module in model.modules())
    assert (match.network, match.options["stride_in"]) == ("resnet50", "1x1")
    x = mr.tensor(rng.standard_normal((1, 2, 33, 40)).astype(np.float32))
    logits = model(x)
    other, _ = weights.load(written(arrays, "y.safetensors"), stride_in="3x3")
    equal(other.state_dict(), arrays)
    assert np.abs(logits.data - other(x).data).max() > 0.01 * np.abs(logits.data).max()


def test_the_stride_must_be_passed(written):
    path = written(state("resnet101"))
    with pytest.raises(WeightsMismatch) as failure:
        weights.load(path)
    message = str(failure.value)
    assert message.startswith(f"{path} holds a resnet101, but names and shapes do not reveal which convolution")
    assert '"3x3" for weights of torchvision and timm, "1x1" for the paper\'s' in message
    assert "\n" not in message
    with pytest.raises(WeightsMismatch, match="do not reveal"):
        weights.load(path, strict=False)


def test_a_file_that_does_not_fit_is_not_loaded(written):
    path = written(state("resnet34"))
    with pytest.raises(WeightsMismatch, match=r"x\.safetensors does not fit resnet18: 1 difference: 3, 4, 6, 3"):
        weights.load(path, network="resnet18")
    arrays = state("resnet18")
    del arrays["fc.bias"]
    with pytest.raises(WeightsMismatch, match=r"1 missing name: fc\.bias$"):
        weights.load(written(arrays))


def test_without_strict_missing_parameters_stay_initialised(written, rng):
    arrays = state("resnet18", rng)
    del arrays["fc.weight"], arrays["fc.bias"]
    arrays["projector.weight"] = np.ones(3, np.float32)
    model, match = weights.load(written(arrays), strict=False)
    assert (match.missing, match.left_over) == (("fc.weight", "fc.bias"), ("projector.weight",))
    found = model.state_dict()
    assert found["fc.weight"].shape == (1000, 32)
    assert found["fc.weight"].std() > 0.1  # drawn, not zeros
    equal({name: found[name] for name in arrays if name in found}, {k: v for k, v in arrays.items() if k in found})
    arrays["conv1.weight"] = np.zeros((4, 2, 3, 3), np.float32)
    with pytest.raises(WeightsMismatch, match="1 difference"):
        weights.load(written(arrays), strict=False)


def test_dtype(written, rng):
    arrays = {name: array.astype(np.float64) for name, array in state("resnet20", rng).items()}
    path = written(arrays)
    equal(weights.load(path, dtype="float64")[0].state_dict(), arrays)
    single = {name: array.astype(np.float32) for name, array in arrays.items()}
    equal(weights.load(path)[0].state_dict(), single)
    halves = {name: array.astype(np.float16) for name, array in arrays.items()}
    equal(
        weights.load(written(halves), dtype="float64")[0].state_dict(),
        {name: array.astype(np.float64) for name, array in halves.items()},
    )
    arrays["fc.bias"][2] = 1e300
    with pytest.raises(WeightsError, match=r"fc\.bias: holds numbers beyond float32"):
        weights.load(written(arrays))
    with pytest.raises(ValueError, match="dtype must be one of 'float32', 'float64'; got 'float16'"):
        weights.load(path, dtype="float16")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("conv1.weight", np.nan, "1 of 72 numbers are not finite"),
        ("fc.bias", -np.inf, "1 of 7 numbers are not finite"),
        ("bn1.running_var", -1e-3, "1 of 4 variances are negative"),
    ],
)
def test_impossible_numbers(written, rng, name, value, message):
    arrays = state("resnet20", rng)
    arrays[name].flat[1] = value
    path = written(arrays)
    with pytest.raises(WeightsError, match=rf"x\.safetensors is broken: {name}: {message}$"):
        weights.load(path)
    with pytest.raises(WeightsError, match="is broken"):
        weights.convert(path, path.with_name("y.safetensors"))
    equal(weights.load(path, check_values=False)[0].state_dict(), arrays)
    arrays[name].flat[1] = 0
    weights.load(written(arrays))  # a variance of zero can be


def test_running_means_may_be_negative():
    assert weights.impossible({"bn1.running_mean": np.array([-1.0]), "n": np.array([-1])}) == []


def test_invalid_files(tmp_path):
    with pytest.raises(FileNotFoundError):
        weights.load(tmp_path / "none.pth")
    with pytest.raises(WeightsError, match="is a folder"):
        weights.load(tmp_path)
    (tmp_path / "x.pth").write_bytes(b"nonsense")
    with pytest.raises(WeightsError, match="no weight file"):
        weights.load(tmp_path / "x.pth")


# -- save


def test_a_plain_network_is_not_taken_for_a_residual_one(tmp_path):
    path = tmp_path / "x.safetensors"
    weights.save(state("plain20"), path, network="plain20", options=small("plain20"))
    with pytest.raises(WeightsMismatch, match=r"network is 'resnet20', but .* has 'plain20' in its metadata"):
        weights.load(path, network="resnet20")


@pytest.mark.parametrize("name", models.names())
def test_a_saved_network_loads_bit_identically(tmp_path, rng, name):
    path, arrays = tmp_path / "x.safetensors", state(name, rng)
    words = {"stride_in": "3x3"} if name in ("resnet50", "resnet101", "resnet152") else {}
    weights.save(arrays, path, network=name, options=small(name) | words)
    model, match = weights.load(path)
    assert (match.network, match.undecided, match.convention, match.notes) == (name, (), "minires", ())
    assert match.options.items() >= (small(name) | words).items()
    equal(model.state_dict(), arrays)
    equal(dict(safetensors.numpy.load_file(path)), arrays)


@pytest.mark.parametrize(
    "options", [{"stride_in": "1x1"}, {"stride_in": "3x3"}, {"shortcut": "A", "zero_channels": "both"}]
)
def test_the_metadata_hold_options_that_shapes_do_not_reveal(tmp_path, options):
    path = tmp_path / "x.safetensors"
    model = mr.models.create("resnet50", **small("resnet50"), **options)
    weights.save(model, path, network="resnet50", options=small("resnet50") | options)
    match = weights.recognise(weights.read(path))
    assert match.options.items() >= ({"stride_in": "1x1"} | options).items()  # defaults are written too
    with pytest.raises(WeightsMismatch, match=r"stride_in is '.x.', but .* has '.x.' in its metadata"):
        weights.load(path, stride_in={"1x1": "3x3", "3x3": "1x1"}[match.options["stride_in"]])


def test_pictures_and_classes(tmp_path, rng):
    path, mean = tmp_path / "x.safetensors", rng.random((5, 6, 2)).astype(np.float32)
    pictures = {"resize": 6, "crop": 5, "std": (1.0, 0.5), "interpolation": "bicubic", "grey": False}
    classes = ["zero", "é", 'say "two"', "", "4", "5", "6"]
    for given in (mean, (0.25, 1 / 3)):
        weights.save(
            state("resnet20"),
            path,
            network="resnet20",
            options=small("resnet20"),
            preprocessing=pictures | {"mean": given},
            classes=classes,
        )
        match = weights.recognise(weights.read(path))
        assert match.classes == tuple(classes)
        found = dict(match.preprocessing)
        np.testing.assert_array_equal(found.pop("mean"), given)
        assert found == pictures | {"std": [1.0, 0.5]}


def test_save_refuses_what_does_not_fit(tmp_path):
    path, arrays = tmp_path / "x.safetensors", state("resnet20")
    for options, error, message in [
        (small("resnet20", width=5), ValueError, r"model does not fit resnet20 with these options: conv1\.weight, bn1"),
        (small("resnet20", stride_in="1x1"), TypeError, "resnet20 has no option 'stride_in'"),
        (small("resnet20", shortcut="D"), ValueError, "shortcut must be one of"),
    ]:
        with pytest.raises(error, match=message):
            weights.save(arrays, path, network="resnet20", options=options)
    with pytest.raises(ValueError, match="dtype must be one of"):
        weights.save(arrays, path, network="resnet20", options=small("resnet20"), dtype="bfloat16")
    arrays["fc.bias"][0] = 70_000
    with pytest.raises(ValueError, match=r"fc\.bias holds numbers beyond float16"):
        weights.save(arrays, path, network="resnet20", options=small("resnet20"), dtype="float16")
    pictures = {"mean": np.zeros((900, 900, 3), np.float32)}
    with pytest.raises(ValueError, match="more than a safetensors header can hold"):
        weights.save(arrays, path, network="resnet20", options=small("resnet20"), preprocessing=pictures)
    with pytest.raises(ValueError, match="classes names 2, options have 7"):
        weights.save(arrays, path, network="resnet20", options=small("resnet20"), classes=["a", "b"])
    arrays["conv1.weight"] = arrays["conv1.weight"].astype(np.int8)
    with pytest.raises(TypeError, match=r"conv1\.weight is int8"):
        weights.save(arrays, path, network="resnet20", options=small("resnet20"))
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_full_leaves_the_old_file(tmp_path, rng, monkeypatch):
    path, old = tmp_path / "x.safetensors", state("resnet20", rng)
    weights.save(old, path, network="resnet20", options=small("resnet20"))

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(_atomic.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        weights.save(state("resnet20", rng), path, network="resnet20", options=small("resnet20"))
    assert list(tmp_path.iterdir()) == [path]
    equal(dict(safetensors.numpy.load_file(path)), old)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"minires": "2"}, "have version '2' of minires' layout; this minires reads '1'"),
        ({"network": "resnet51"}, "name the network 'resnet51'; known are"),
        ({"options": "[]"}, "options must be an object in JSON"),
        ({"options": "{"}, "options must be an object in JSON"),
        ({"options": "[" * 100_000}, "options must be an object in JSON"),
        ({"options": '{"hidden": 3}'}, "name an option 'hidden', which resnet20 does not have"),
        ({"options": '{"zero_channels": 3}'}, "zero_channels must be one of"),
        ({"assumed": "{}"}, "assumed must be a list in JSON"),
        ({"assumed": '["hidden"]'}, "assumed must hold"),
        ({"assumed": '[["network"], 3]'}, "assumed must hold"),
        ({"classes": '["a", 3]'}, "classes must be text"),
        ({"classes": '["a"]'}, "name 1 classes"),
        ({"preprocessing": '{"mean": {"shape": [2, 2, 1], "float32": "AAAA"}}'}, "malformed mean image"),
        ({"preprocessing": '{"mean": {"shape": [1e999, 2, 1], "float32": "AAAA"}}'}, "malformed mean image"),
        ({"preprocessing": '{"mean": {}}'}, "malformed mean image"),
    ],
)
def test_metadata_that_minires_did_not_write(tmp_path, written, change, message):
    path = tmp_path / "x.safetensors"
    weights.save(state("resnet20"), path, network="resnet20", options=small("resnet20"))
    changed = written(state("resnet20"), "y.safetensors", metadata_of(path) | change)
    with pytest.raises((WeightsError, WeightsMismatch), match=re.escape(message)) as failure:
        weights.load(changed)
    assert str(changed) in str(failure.value)
    assert "\n" not in str(failure.value)


def test_metadata_of_another_network_do_not_fit(written, tmp_path):
    path = tmp_path / "x.safetensors"
    weights.save(state("resnet20"), path, network="resnet20", options=small("resnet20"))
    changed = written(state("resnet32"), "y.safetensors", metadata_of(path))
    with pytest.raises(WeightsMismatch, match="does not fit resnet20: 1 difference: 5, 5, 5 building blocks"):
        weights.load(changed)


# -- convert


def test_options_that_convert_assumed_are_marked_and_can_be_replaced(written):
    source = written(state("resnet20"))
    target, again = source.with_name("y.safetensors"), source.with_name("z.safetensors")
    assert weights.convert(source, target).undecided == ("network", "zero_channels")
    assert json.loads(metadata_of(target)["assumed"]) == ["network", "zero_channels"]
    _, match = weights.load(target)
    assert (match.network, match.options["zero_channels"]) == ("resnet20", "end")
    assert match.undecided == ("network", "zero_channels")
    assert len(match.notes) == 2
    assert weights.load(target, zero_channels="both")[1].options["zero_channels"] == "both"
    assert weights.load(target, network="plain20")[1].network == "plain20"
    assert weights.convert(target, again, network="resnet20", zero_channels="end").undecided == ()
    assert "assumed" not in metadata_of(again)
    assert weights.load(again)[1].undecided == ()
    with pytest.raises(WeightsMismatch, match=r"zero_channels is 'both', but .* has 'end' in its metadata"):
        weights.load(again, zero_channels="both")


def test_older_files_hold_assumed_options_as_known(written):
    source = written(state("resnet20"))
    target = source.with_name("y.safetensors")
    weights.convert(source, target)
    metadata = metadata_of(target)
    del metadata["assumed"]
    assert weights.load(written(state("resnet20"), "old.safetensors", metadata))[1].undecided == ()


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
def test_convert_keeps_every_bit(written, rng, dtype):
    arrays = {name: array.astype(dtype) for name, array in state("vgg16", rng, batch_norm=True).items()}
    source = written(renamed(arrays, "timm", "module."))
    target = source.with_name("y.safetensors")
    match = weights.convert(source, target)
    assert (match.convention, match.prefix) == ("timm", "module.")
    equal(dict(safetensors.numpy.load_file(target)), arrays)
    assert json.loads(metadata_of(target)["options"])["batch_norm"] is True
    assert metadata_of(target)["format"] == "pt"


def test_convert_to_another_type(written, rng):
    arrays = state("resnet20", rng)
    source = written(arrays)
    weights.convert(source, source.with_name("y.safetensors"), dtype="float16")
    found = dict(safetensors.numpy.load_file(source.with_name("y.safetensors")))
    equal(found, {name: array.astype(np.float16) for name, array in arrays.items()})


def test_convert_requires_the_stride(written):
    source = written(state("resnet50"))
    target = source.with_name("y.safetensors")
    with pytest.raises(WeightsMismatch, match="--stride-in"):
        weights.convert(source, target)
    assert not target.exists()
    weights.convert(source, target, stride_in="3x3")
    assert weights.load(target)[1].options["stride_in"] == "3x3"


# -- minires' own checkpoints


def test_a_run_folder(run, tmp_path, rng):
    checkpoint = load_checkpoint(find_checkpoint(run))
    tensors = next((run / "checkpoints").glob("*.safetensors"))
    for path in (run, run / "checkpoints", find_checkpoint(run), tensors):
        model, match = weights.load(path)
        equal(model.state_dict(), dict(checkpoint.model))
        assert (match.network, match.convention, match.prefix) == ("plain20", "minires checkpoint", "model.")
        assert (match.left_over, match.undecided) == ((), ())
        assert match.classes == tuple("0123456789")
    target = tmp_path / "x.safetensors"
    weights.convert(run, target)
    model, match = weights.load(target)
    equal(model.state_dict(), dict(checkpoint.model))
    assert (match.network, match.classes, match.options["width"]) == ("plain20", checkpoint.classes, 2)
    np.testing.assert_array_equal(match.preprocessing["mean"], checkpoint.mean)
    assert {k: v for k, v in match.preprocessing.items() if k != "mean"} == {
        "resize": 8,
        "crop": 8,
        "std": [1.0],
        "interpolation": "bilinear",
        "grey": True,
    }


def test_the_tensors_of_a_checkpoint_alone(run, tmp_path):
    """Without its JSON it is a safetensors file like any other: the prefix and SGD's velocities are passed over."""
    (tmp_path / "x.safetensors").write_bytes(next((run / "checkpoints").glob("*.safetensors")).read_bytes())
    match = weights.load(tmp_path / "x.safetensors")[1]
    assert (match.network, match.convention) == ("resnet20", "minires checkpoint")
    assert match.undecided == ("network", "zero_channels")


def test_a_broken_checkpoint(run, tmp_path):
    broken = tmp_path / find_checkpoint(run).name
    broken.write_bytes(find_checkpoint(run).read_bytes())
    with pytest.raises(WeightsError, match="is not a whole checkpoint"):
        weights.load(broken)
