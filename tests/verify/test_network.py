"""verify passes sound networks and finds planted faults."""

from __future__ import annotations

import json

import numpy as np
import pytest
from usage import error_line

import minires as mr
from minires import cli, ops
from minires.verify import network
from minires.verify.network import against_backend, differences, disturb, used_operations, verify

two_backends = pytest.mark.skipif(bool(mr.backends.available()["native"]), reason="needs two backends")


def test_a_sound_network_is_verified(rng):
    model = disturb(mr.models.create("resnet20", width=2).astype("float64"), rng)
    report = verify(model, rng.standard_normal((2, 3, 8, 9)), cases=2)
    assert report.passed
    assert report.culprit is None
    assert report.parameters == 1 + len(list(model.parameters()))
    headings = [operation.heading for operation in report.operations]
    assert headings[0] == "Conv2d(stride=(1, 1), padding=(1, 1), dilation=(1, 1), groups=1) on 2×4×4×5, 4×4×3×3"
    assert len(set(headings)) == len(headings)


def test_each_operation_is_checked_once_in_each_geometry(rng):
    model = mr.models.create("resnet50", width=1, num_classes=3, stride_in="3x3").astype("float64")
    found = [r.node.heading.partition(" of ")[0] for r in used_operations(model, rng.standard_normal((2, 3, 33, 33)))]
    # 7×7 and 3×3 and 1×1, with stride 1 and 2
    assert sum("Conv2d" in heading for heading in found) == 5
    assert sum("MaxPool2d" in heading for heading in found) == 1


def test_every_part_of_the_report_sees_a_wrong_batch_norm(rng, monkeypatch):
    sound = ops.BatchNorm.backward
    monkeypatch.setattr(ops.BatchNorm, "backward", lambda self, g: (-7 * sound(self, g)[0], *sound(self, g)[1:]))
    model = disturb(mr.models.create("resnet20", width=2).astype("float64"), rng)
    report = verify(model, rng.standard_normal((2, 3, 8, 9)), cases=2)
    assert not report.passed
    assert [o.heading[:9] for o in report.operations if o.complaint] == ["BatchNorm"]
    assert report.culprit.module == "layer3.2.bn2"  # the first in backward order
    assert "the gradient is wrong" in report.network


def test_verify_names_the_layer(capsys, monkeypatch):
    """The command, with a batch norm of ResNet-20 that forgets a term in one layer."""
    sound = ops.BatchNorm.backward

    def wrong(self, grad_output):
        grads = sound(self, grad_output)
        if self.module != "layer2.1.bn2":
            return grads
        M = grad_output.size / grad_output.shape[1]
        # without the mean of the incoming gradient: what one forgets
        scale = (grads[0] * 0 + 1) * grad_output.mean(axis=(0, 2, 3), keepdims=True)
        return (grads[0] + scale / M, *grads[1:])

    monkeypatch.setattr(ops.BatchNorm, "backward", wrong)
    assert cli.main(["verify", "resnet20", "--width", "4"]) == 1
    lines = capsys.readouterr().out.splitlines()
    (culprit,) = [line for line in lines if line.startswith("culprit")]
    assert "BatchNorm(" in culprit
    assert "of layer2.1.bn2" in culprit
    assert "x at index" in culprit
    assert "numerical" in culprit
    assert "analytical" in culprit
    assert lines[-1] == "not verified"
    assert any(line.startswith("layers             72 of 73 right") for line in lines)


@two_backends
def test_the_command_on_a_sound_network(capsys):
    assert cli.main(["verify", "resnet20", "--width", "2", "--size", "8", "--against", "reference", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["passed"] is True
    assert found["against"] == "reference"
    assert {d["name"] for d in found["differences"]} >= {"logits", "∂images", "∂layer1.0.conv1.weight"}
    assert len(found["layers"]) == 73
    assert cli.main(["verify", "plain20", "--width", "2", "--size", "8", "--eval", "--backend", "reference"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "verified"


@two_backends
def test_a_backend_that_disagrees(rng, monkeypatch):
    model = disturb(mr.models.create("resnet20", width=2).astype("float64"), rng)
    x = rng.standard_normal((2, 3, 8, 9))
    with mr.backend("reference"):
        assert all(d.agrees for d in against_backend(model, x, "reference"))
    real = network.results

    def off(model, images, cotangent):
        found = real(model, images, cotangent)
        if mr.backends.active().name == "reference":
            found["∂fc.bias"] = found["∂fc.bias"] * (1 + 1e-6)
        return found

    monkeypatch.setattr(network, "results", off)
    with mr.backend("native"):
        assert [d.name for d in against_backend(model, x, "reference") if not d.agrees] == ["∂fc.bias"]


def test_differences_reject_nan_and_compare_zeros_relative_to_other_arrays():
    theirs = {"a": np.array([1.0, 2.0]), "zero": np.array([0.0, 0.0])}
    ours = {"a": np.array([1.0, 2.0 + 2e-8]), "zero": np.array([1e-15, 0.0])}
    found = {d.name: d for d in differences(ours, theirs, 1e-8)}
    assert found["a"].relative == pytest.approx(1e-8, rel=1e-6)
    assert found["zero"].agrees
    assert not differences({"a": np.array([np.nan, 2.0])}, {"a": theirs["a"]}, 1e-8)[0].agrees
    assert not differences({"a": np.array([1.0, 3.0])}, {"a": theirs["a"]}, 1e-8)[0].agrees


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["resnet21"], "unknown network 'resnet21'"),
        (["resnet20", "--cases", "0"], "--cases must be at least 1"),
        (["resnet20", "--against", "tensorflow"], "--against must be torch, module:object or one of reference"),
        (["resnet20", "--stride-in", "3x3"], "no option 'stride_in'"),
        (["resnet20", "--batch-size", "1", "--size", "1"], "more than one value per channel"),
        (["--size", "9"], "--size needs a NETWORK"),
        (["vgg16", "--size", "16", "--width", "1"], "at least 32×32"),
    ],
)
def test_wrong_usage_is_one_line(capsys, argv, message):
    assert cli.main(["verify", *argv]) == 2
    err = error_line(capsys.readouterr().err)
    assert message in err


def test_without_a_network_every_operation(capsys):
    assert cli.main(["verify", "--cases", "1"]) == 0
    assert "operations right on the backend" in capsys.readouterr().out


def test_gradcheck_of_operations(capsys, monkeypatch):
    assert cli.main(["gradcheck", "relu", "conv2d", "--cases", "3"]) == 0
    assert "2 of 2 operations right" in capsys.readouterr().out
    assert cli.main(["gradcheck", "rleu"]) == 2
    assert "Did you mean 'relu'?" in capsys.readouterr().err
    monkeypatch.setattr(ops.ReLU, "backward", lambda self, grad_output: grad_output)
    assert cli.main(["gradcheck", "relu", "linear", "--cases", "3", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert "gradient" in found["complaints"]["relu"]
    assert found["complaints"]["linear"] == ""


@pytest.mark.parametrize("error", [ValueError, IndexError])
def test_an_error_of_an_operation_is_a_finding_with_its_layer(capsys, monkeypatch, error):
    sound = ops.BatchNorm.backward

    def wrong(self, grad_output):
        if self.module == "layer2.1.bn2":
            raise error("does not fit")
        return sound(self, grad_output)

    monkeypatch.setattr(ops.BatchNorm, "backward", wrong)
    assert cli.main(["verify", "resnet20", "--width", "2"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert "does not fit" in lines[-2]
    assert "of layer2.1.bn2" in lines[-2]
    assert lines[-1] == "not verified"


def json_of(capsys):
    return json.loads(capsys.readouterr().out, parse_constant=pytest.fail)  # NaN is no JSON


def test_json_has_no_nan(capsys, monkeypatch):
    sound = ops.BatchNorm.backward
    monkeypatch.setattr(ops.BatchNorm, "backward", lambda self, g: (sound(self, g)[0] * np.nan, *sound(self, g)[1:]))
    assert cli.main(["verify", "resnet20", "--width", "1", "--size", "8", "--cases", "1", "--json"]) == 1
    found = json_of(capsys)
    assert next(layer["fault"]["analytical"] for layer in found["layers"] if layer["fault"]) is None


@two_backends
def test_an_error_of_an_operation_in_json(capsys, monkeypatch):
    def wrong(self, *arrays):
        raise ValueError("does not fit")

    argv = ["verify", "resnet20", "--width", "1", "--size", "8", "--cases", "1", "--json", "--against", "reference"]
    monkeypatch.setattr(ops.ReLU, "backward", wrong)
    assert cli.main(argv) == 1
    found = json_of(capsys)
    (fault,) = [layer for layer in found["layers"] if layer["fault"]]
    assert (fault["module"], fault["fault"]["message"]) == ("layer3.2.relu", "backward raised ValueError: does not fit")
    assert "layer3.2.relu" in found["error"]  # of the comparison


@two_backends
def test_a_biased_running_variance(rng, monkeypatch):
    """It changes neither output nor gradient of a training step."""
    from minires.backends.native.backend import NativeBackend

    model = disturb(mr.models.create("resnet20", width=2).astype("float64"), rng)
    x = rng.standard_normal((2, 3, 8, 9))
    before = model.bn1.running_var.copy()
    with mr.backend("native"):
        found = against_backend(model, x, "reference")
    assert {"bn1.running_mean", "bn1.running_var"} < {d.name for d in found}
    assert all(d.agrees for d in found)
    sound = NativeBackend.batch_norm_forward

    def wrong(self, x, *others):
        y, mean, var, kept = sound(self, x, *others)
        M = x.size // x.shape[1]
        return y, mean, var * (M - 1) / M, kept

    monkeypatch.setattr(NativeBackend, "batch_norm_forward", wrong)
    with mr.backend("native"):
        wrong = [d.name for d in against_backend(model, x, "reference") if not d.agrees]
    assert wrong[0] == "bn1.running_var"
    assert {name.rpartition(".")[2] for name in wrong} == {"running_var"}
    np.testing.assert_array_equal(model.bn1.running_var, before)


def test_running_statistics_beside_pytorch(rng, monkeypatch):
    pytest.importorskip("torch")
    from minires.verify import torch_networks

    model = disturb(mr.models.create("resnet20", width=2).astype("float64"), rng)
    x = rng.standard_normal((2, 3, 8, 9))
    found = network.against_torch(model, torch_networks.create("resnet20", width=2), x)
    assert all(d.agrees for d in found)
    assert sum(d.name.endswith("running_var") for d in found) == 19
    real = network.running_statistics
    monkeypatch.setattr(network, "running_statistics", lambda m: {k: a * (1 + 1e-6) for k, a in real(m).items()})
    found = network.against_torch(model, torch_networks.create("resnet20", width=2), x)
    assert {d.name.rpartition(".")[2] for d in found if not d.agrees} == {"running_mean", "running_var"}


def test_a_missing_gradient_counts_as_zero():
    theirs = {"a": np.array([1.0, 2.0])}
    assert [(d.name, d.agrees) for d in differences({}, theirs, 1e-8)] == [("a", False)]
    assert [(d.name, d.agrees) for d in differences(theirs, {}, 1e-8)] == [("a", False)]


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--batch-size", "3"], "--batch-size needs a NETWORK"),
        (["--eval"], "--eval needs a NETWORK"),
        (["--planted", "operations", "--seed", "0"], "--planted allows no other argument than --json, got --seed"),
        (["--planted", "operations", "--eval"], "got --eval"),
        (["--planted", "operations", "--against", "torch"], "got --against"),
        (["resnet20", "--planted"], "got a NETWORK"),
        (["--planted", "kernels"], "--planted must be operations, got 'kernels'"),
        (
            ["resnet20", "--backend", "reference", "--against", "reference"],
            "--against must differ from the backend that computes, got ref",
        ),
        (["resnet20", "--width", "0"], "--width must be"),
    ],
)
def test_flags_that_say_nothing_are_wrong_usage(capsys, monkeypatch, argv, said):
    from minires.verify import planted

    monkeypatch.setattr(planted, "report", lambda *_, **__: pytest.fail("it set out"))
    assert cli.main(["verify", *argv]) == 2
    err = error_line(capsys.readouterr().err)
    assert said in err


def test_planted_prints_its_duration(capsys, monkeypatch):
    from minires.verify import planted

    monkeypatch.setattr(planted, "report", lambda say: planted.Planted(()))
    assert cli.main(["verify", "--planted", "operations", "--json"]) == 0
    assert capsys.readouterr().err.startswith("this takes half a minute")


def test_against_torch_without_torch_names_the_extra(capsys, monkeypatch):
    import sys

    from minires import verify as verify_package

    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "minires.verify.torch_networks", raising=False)
    monkeypatch.delattr(verify_package, "torch_networks", raising=False)
    assert cli.main(["verify", "resnet20", "--against", "torch"]) == 3
    assert (
        "--against torch needs torch, which is not installed: pip install 'minires[parity]'" in capsys.readouterr().err
    )
