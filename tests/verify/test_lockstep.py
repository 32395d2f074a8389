"""Two backends in lockstep: own errors are separated from grown errors, and the wrong node's call can be repeated."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from usage import error_line

import minires as mr
from minires import cli
from minires.verify.distance import relative_norm, ulps
from minires.verify.lockstep import lockstep
from minires.verify.recorded import load_call

native = pytest.mark.skipif(bool(mr.backends.available()["native"]), reason="native is not installed")


def batch(rng, n=3, size=(12, 9), dtype=np.float32):
    return rng.standard_normal((n, 3, *size)).astype(dtype), rng.integers(0, 10, n)


@pytest.fixture
def model():
    mr.manual_seed(0)
    return mr.models.create("resnet20", width=4)


@pytest.fixture
def wrong_native(monkeypatch):
    """The native backend's batch norm loses a little in the 30th backward: layer and phase are known then."""
    from minires.backends.native.backend import NativeBackend

    sound = NativeBackend.batch_norm_backward

    def wrong(self, grad_output, kept, weight):
        grads = sound(self, grad_output, kept, weight)
        return (grads[0] * grads[0].dtype.type(1.001), *grads[1:]) if weight is marked else grads

    marked = None

    def mark(weight):
        nonlocal marked
        marked = weight

    monkeypatch.setattr(NativeBackend, "batch_norm_backward", wrong)
    return mark


def test_images_of_another_dtype_are_named_with_the_remedy(rng, model):
    images, labels = batch(rng, dtype=np.float64)
    message = r"images must have the model's dtype float32, got float64; convert them with images\.astype\('float32'\)"
    with pytest.raises(TypeError, match=message):
        lockstep(model, images, labels, ("reference", "reference"))
    assert lockstep(model.astype("float64"), images, labels, ("reference", "reference")).passed


def test_a_backend_agrees_with_itself(rng, model):
    found = lockstep(model, *batch(rng), ("reference", "reference"))
    assert found.fault is None
    assert {(step.own, step.grown) for step in found.steps} == {(0.0, 0.0)}
    assert found.losses[0] == found.losses[1]
    nodes = [step.number for step in found.steps if step.phase == "forward"]
    assert nodes == sorted(nodes)
    assert len([step for step in found.steps if step.phase == "backward"]) == len(nodes)


@native
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("name", "options"),
    [("resnet20", {"width": 4}), ("resnet50", {"width": 4}), ("vgg16", {"width": 4, "hidden": 16})],
)
def test_native_agrees_with_the_reference(rng, name, options, dtype):
    mr.manual_seed(0)
    model = mr.models.create(name, **options).astype(dtype)
    x, labels = batch(rng, size=(40, 33), dtype=dtype)
    found = lockstep(model, x, labels)
    assert found.fault is None
    assert 0 < max(step.own for step in found.steps) < 100 * np.finfo(dtype).eps


@native
@pytest.mark.parametrize("wrong", [0.0, 1e-3])
def test_a_bias_before_a_batch_norm(rng, monkeypatch, wrong):
    """Its gradient cancels to rounding errors, which agree only relative to the summed terms; a real error is found."""
    from minires.backends.native.backend import NativeBackend

    sums = NativeBackend.conv2d_backward_bias

    def planted(self, grad_output):
        return sums(self, grad_output) + np.float32(wrong) * np.linalg.norm(grad_output)

    monkeypatch.setattr(NativeBackend, "conv2d_backward_bias", planted)
    layers = (mr.nn.Conv2d(3, 8, 3, padding=1), mr.nn.BatchNorm2d(8), mr.nn.ReLU())
    model = mr.nn.Sequential(*layers, mr.nn.AdaptiveAvgPool2d(1), mr.nn.Flatten(), mr.nn.Linear(8, 10))
    fault = lockstep(model, *batch(rng)).fault
    assert (fault and (fault.module, fault.array)) == (("0", "∂bias") if wrong else None)


@native
@pytest.mark.parametrize("options", [{"isa": "portable"}, {"winograd": False}])
def test_options_of_the_second_backend(rng, model, options):
    assert lockstep(model, *batch(rng), ("native", "native"), **options).fault is None


@pytest.mark.skipif(bool(mr.backends.available()["emulated"]), reason="the emulator is not installed")
def test_emulated_agrees_with_the_reference(rng):
    model = mr.models.create("resnet20", width=2)
    assert lockstep(model, *batch(rng, 2, (8, 8)), ("reference", "emulated")).fault is None


@native
def test_the_wrong_node_and_its_saved_operands(rng, model, tmp_path, wrong_native):
    wrong_native(model.layer2[1].bn2.weight.data)
    found = lockstep(model, *batch(rng))
    fault = found.fault
    assert (fault.phase, fault.module, fault.operation, fault.array) == ("backward", "layer2.1.bn2", "BatchNorm", "∂x")
    assert fault.own == pytest.approx(1e-3, rel=1e-2)
    path = found.save_fault(tmp_path)
    assert path.name == "lockstep-layer2.1.bn2-BatchNorm-backward.npz"
    call = load_call(path)
    assert call.recorded.node.name == "BatchNorm"
    line = re.search(r"∂x +(\S+)  worst at .*: reference (\S+), native (\S+)", call.compare("reference", "native"))
    # the planted fault compares the weight by identity; the weight loaded from the file is another array, so no fault
    assert float(line[1]) < 1e-5


@native
def test_only_the_own_error_must_be_within_the_tolerance(rng, model, wrong_native):
    """After the guilty node the runs differ, but no other node is blamed for that."""
    wrong_native(model.layer2[1].bn2.weight.data)
    found = lockstep(model, *batch(rng))
    assert [step.module for step in found.steps if not step.passed] == ["layer2.1.bn2"]
    assert sum(step.grown > 1e-4 for step in found.steps) > 20


def test_nan_exceeds_every_tolerance(rng, model, monkeypatch):
    from minires.backends import reference

    sound, calls = reference.relu_backward, []

    def once(grad_output, y):
        calls.append(y)
        grad = sound(grad_output, y)
        if len(calls) == 22:  # 19 in the first run: the third of the second one
            grad[0, 0, 0, 0] = np.nan
        return grad

    monkeypatch.setattr(reference, "relu_backward", once)
    found = lockstep(model, *batch(rng), ("reference", "reference"))
    assert any(np.isnan(step.grown) for step in found.steps)
    assert "conv1.weight" in found.other_form


def test_nan_in_the_second_logits_names_the_first_operation_that_gives_it(rng, model, monkeypatch):
    from minires.backends import reference

    sound, calls = reference.conv2d_forward, []

    def wrong(*arguments, **options):
        calls.append(None)
        y = sound(*arguments, **options)
        if len(calls) > 19 and len(calls) % 19 == 5:  # of 19 convolutions in each run
            y[0] = np.nan
        return y

    monkeypatch.setattr(reference, "conv2d_forward", wrong)
    found = lockstep(model, *batch(rng), ("reference", "reference"))
    assert (found.fault.phase, found.fault.operation) == ("forward", "Conv2d")
    assert np.isfinite(found.losses[0])
    assert np.isnan(found.losses[1])
    assert not found.passed


@native
def test_nan_of_the_node_itself(rng, model, monkeypatch):
    from minires.backends.native.backend import NativeBackend

    sound = NativeBackend.relu_backward
    monkeypatch.setattr(NativeBackend, "relu_backward", lambda self, g, y: sound(self, g, y) * y.dtype.type(np.nan))
    fault = lockstep(model, *batch(rng)).fault
    assert (fault.operation, fault.module) == ("ReLU", "layer3.2.relu")


@native
def test_a_fused_pass_that_is_wrong(rng, model, monkeypatch):
    """A mistake in a fused operation shows in no node of the plain form, but in the bits of the fused one."""
    from minires.backends.native.backend import NativeBackend

    sound = NativeBackend.batch_norm_relu_backward

    def wrong(self, grad_output, y, kept, weight):
        grads = sound(self, grad_output, y, kept, weight)
        return (*grads[:2], grads[2] * grads[2].dtype.type(1.001))

    monkeypatch.setattr(NativeBackend, "batch_norm_relu_backward", wrong)
    found = lockstep(model, *batch(rng))
    assert found.fault is None
    assert "bn1.bias" in found.other_form
    assert not found.passed
    fused = lockstep(model.fuse(training=True), *batch(rng))
    assert fused.fault.operation == "BatchNormReLU"
    assert fused.fault.array == "∂bias"
    assert all(module.fused for module in model.modules() if type(module).__name__ == "BasicBlock")


def test_calls_of_every_kind_are_saved_and_loaded(rng, tmp_path):
    """Slices, pads, labels, statistics: each option survives the file, and the call gives the same."""
    model = mr.nn.Sequential(mr.models.create("resnet20", width=2, num_classes=10), mr.nn.Dropout(0.3))
    found = lockstep(model, *batch(rng), ("reference", "reference"))
    kinds = set()
    for number, (recorded, grad_output) in found._calls.items():
        kinds.add(recorded.node.name)
        path = tmp_path / f"{number}.npz"
        recorded.save(path, grad_output)
        again = load_call(path).results("reference")
        output, _ = recorded.forward()
        np.testing.assert_array_equal(again["output"], output)
    assert kinds >= {
        "Conv2d",
        "BatchNorm",
        "ReLU",
        "Add",
        "Slice",
        "Pad",
        "Linear",
        "Reshape",
        "Dropout",
        "CrossEntropy",
    }


def test_invalid_files_of_calls(tmp_path):
    path = tmp_path / "a.npz"
    for content in (b"", b"no zip", b"PK\x03\x04 broken"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="invalid saved call"):
            load_call(path)
    np.savez(path, call=np.array(json.dumps({"operation": "os"})))
    with pytest.raises(ValueError, match="unknown operation 'os'"):
        load_call(path)
    np.savez(path, x=np.zeros(3))
    with pytest.raises(ValueError, match="invalid saved call"):
        load_call(path)
    np.savez(path, call=np.array([object()], dtype=object))
    with pytest.raises(ValueError, match="invalid saved call"):
        load_call(path)
    with pytest.raises(FileNotFoundError):
        load_call(tmp_path / "none.npz")


def test_ulps_and_norms():
    a = np.array([1.0, 1.0], np.float32)
    b = np.array([1.0 + 2**-23 * 3, 1.0], np.float32)
    assert ulps(b, a) == 3
    assert relative_norm(b, a) == pytest.approx(3 * 2**-23 / 2**0.5)
    assert relative_norm(a, np.zeros(2, np.float32)) == pytest.approx(2**0.5)
    assert np.isnan(relative_norm(np.array([np.nan]), np.array([1.0])))


@native
def test_the_command(capsys, tmp_path, monkeypatch):
    argv = ["lockstep", "resnet20", "--data", "digits", "--batch-size", "2", "--width", "4", "--out", str(tmp_path)]
    assert cli.main(argv) == 0
    out = capsys.readouterr().out
    assert "in step        all of 148 steps" in out
    assert "fused form     native gives the same bits" in out
    assert cli.main([*argv, "--backends", "native,native:winograd=0,isa=portable", "--dtype", "float64", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["fault"] is None
    assert len(report["steps"]) == 148

    from minires.backends.native.backend import NativeBackend

    sound = NativeBackend.relu_backward
    monkeypatch.setattr(NativeBackend, "relu_backward", lambda self, g, y: sound(self, g, y) * y.dtype.type(1.01))
    assert cli.main(argv) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[-6] == "first above its tolerance: backward of ReLU of layer3.2.relu, ∂x: 1.0e-02 above 1.9e-06"
    path = tmp_path / "lockstep-layer3.2.relu-ReLU-backward.npz"
    assert lines[-1] == str(path)
    names: dict = {}
    exec("\n".join(lines[-4:-1]), names)
    output = capsys.readouterr().out
    assert re.search(r"∂x +1\.00e-02  worst at", output)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--backends", "native"], "must name two"),
        (["--backends", "native,nativ"], "unknown backend 'nativ'"),
        (["--backends", "reference,native:isa"], "NAME=VALUE"),
        (["--backends", "reference,reference:isa=avx2"], "no option"),
        (["--dtype", "float16"], "--dtype must be one of"),
        (["--data", "digits", "--index", "99999"], "--index must be below"),
    ],
)
def test_wrong_usage_is_one_line(capsys, argv, message):
    assert cli.main(["lockstep", "resnet20", *argv]) == 2
    err = error_line(capsys.readouterr().err)
    assert message in err


@native
def test_a_gradient_that_one_backend_omits(rng, model, monkeypatch):
    from minires import ops

    sound = ops.Linear.backward

    def forgetful(self, grad_output):
        grads = sound(self, grad_output)
        return (grads[0], None, *grads[2:]) if self.backend.name == "native" else grads

    monkeypatch.setattr(ops.Linear, "backward", forgetful)
    fault = lockstep(model, *batch(rng)).fault
    assert (fault.operation, fault.array) == ("Linear", "∂weight")


def biased(monkeypatch):
    """The native backend's running variance becomes the biased one, whose factor is (M − 1) / M."""
    from minires.backends.native.backend import NativeBackend

    sound = NativeBackend.batch_norm_forward

    def wrong(self, x, *others):
        y, mean, var, kept = sound(self, x, *others)
        M = x.size // x.shape[1]
        return y, mean, var * x.dtype.type((M - 1) / M), kept

    monkeypatch.setattr(NativeBackend, "batch_norm_forward", wrong)


@native
def test_a_biased_running_variance(rng, model, monkeypatch):
    """It changes neither output nor gradient of a training step."""
    biased(monkeypatch)
    found = lockstep(model, *batch(rng))
    fault = found.fault
    assert (fault.phase, fault.module, fault.operation, fault.array) == ("forward", "bn1", "BatchNorm", "running_var")
    assert {step.operation for step in found.steps if not step.passed} == {"BatchNorm"}
    assert fault.own < 1 / (3 * 12 * 9)


@native
def test_a_running_variance_that_only_the_fused_pass_computes_wrong(rng, model, monkeypatch):
    from minires.backends.native.backend import NativeBackend

    sound = NativeBackend.batch_norm_relu_forward

    def wrong(self, x, *others):
        y, mean, var, kept = sound(self, x, *others)
        return y, mean, var * var.dtype.type(1.001), kept

    monkeypatch.setattr(NativeBackend, "batch_norm_relu_forward", wrong)
    found = lockstep(model, *batch(rng))
    assert found.fault is None
    assert {name.rpartition(".")[2] for name in found.other_form} == {"running_var"}


@native
@pytest.mark.parametrize("error", [TypeError, ValueError, IndexError])
def test_an_error_of_an_operation_is_a_finding_with_its_layer(capsys, tmp_path, monkeypatch, error):
    from minires.backends.native.backend import NativeBackend

    def wrong(self, grad_output, y):
        raise error("does not fit")

    monkeypatch.setattr(NativeBackend, "relu_backward", wrong)
    argv = ["lockstep", "resnet20", "--data", "digits", "--batch-size", "2", "--width", "2", "--out", str(tmp_path)]
    assert cli.main(argv) == 1
    output = capsys.readouterr()
    assert output.err == ""
    assert f"{error.__name__}: does not fit; in backward of <ReLU() of layer3.2.relu" in output.out
    assert cli.main([*argv, "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["passed"] is False
    assert "layer3.2.relu" in report["error"]


@native
def test_nan_is_null_in_json_and_the_worst_in_words(capsys, tmp_path, monkeypatch):
    from minires.backends.native.backend import NativeBackend

    sound = NativeBackend.relu_backward
    monkeypatch.setattr(NativeBackend, "relu_backward", lambda self, g, y: sound(self, g, y) * y.dtype.type(np.nan))
    argv = ["lockstep", "resnet20", "--data", "digits", "--batch-size", "2", "--width", "2", "--out", str(tmp_path)]
    assert cli.main([*argv, "--json"]) == 1
    report = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert report["fault"]["own"] is None
    assert cli.main(argv) == 1
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith(("farthest", "grown most"))]
    assert ["nan" in line for line in lines] == [True, True], lines


@native
def test_compare_reports_a_missing_gradient(rng, model, tmp_path, monkeypatch, wrong_native):
    from minires import ops

    wrong_native(model.layer2[1].bn2.weight.data)
    call = load_call(lockstep(model, *batch(rng)).save_fault(tmp_path))
    sound = ops.BatchNorm.backward

    def forgetful(self, grad_output):
        grads = sound(self, grad_output)
        return (grads[0], None, grads[2]) if self.backend.name == lacking else grads

    monkeypatch.setattr(ops.BatchNorm, "backward", forgetful)
    for lacking, has in (("native", "reference"), ("reference", "native")):
        lines = call.compare("reference", "native").splitlines()
        (line,) = [line for line in lines if line.startswith("∂weight")]
        assert line.split(maxsplit=1)[1] == f"{has} computes it, {lacking} does not"
    assert {line.split()[0] for line in lines} == {
        "output", "running_mean", "running_var", "∂x", "∂weight", "∂bias"
    }  # fmt: skip


def test_a_kernel_that_writes_into_its_operand_is_named(rng, model):
    class Writes(mr.backends.Reference):
        def relu_forward(self, x):
            x[x < 0] = 0
            return x

    with pytest.raises(ValueError, match="read-only") as failure:
        lockstep(model, *batch(rng), backends=("reference", Writes()))
    assert "in forward of <ReLU() of relu" in failure.value.__notes__[0]
