"""The contenders of whole networks: their list, and that all compute the same in float32."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from minires import backends
from minires.bench import networks
from minires.bench.networks import OpenVino, Ours, Torch, Workload
from minires.bench.peers import CAPTURED, CHANNELS_LAST, COMPILED, PEERS, TORCH, TUNED, missing
from minires.bench.race import CannotTakePart, workers

INFERENCE, TRAINING = Workload("resnet20", "inference", 2), Workload("resnet20", "training", 2)
THREADS = backends.get_num_threads()
needs_native = pytest.mark.skipif(bool(backends.available()["native"]), reason="the native backend records")


def prepared(work, files, onnx=False):
    networks.prepare(work, files, onnx)
    return work, files, THREADS


def computed(side, calls=2):
    for _ in range(calls):
        side.run()
    return side.result()


def assert_near(found, expected):
    assert found.keys() == expected.keys()
    for name, array in found.items():
        assert array.dtype == expected[name].dtype
        assert networks.off(array, expected[name]) < 1e-4  # bfloat16 is off by more than 1e-3


def names(work, backend, peers):
    return [side.name for side in networks.contenders(work, "files", 2, backend, peers)]


def test_who_takes_part():
    ours = ["native", "native, plain", CAPTURED]
    torch = [TORCH, CHANNELS_LAST, TUNED, COMPILED]
    assert names(INFERENCE, "native", tuple(PEERS)) == [*ours, "reference", *torch, "onnxruntime", "openvino"]
    assert names(TRAINING, "native", tuple(PEERS)) == [*ours, "reference", *torch]
    assert names(INFERENCE, "native", ("openvino",)) == [*ours, "openvino"]
    assert names(TRAINING, "native", ("torch.compile",)) == [*ours, COMPILED]


def test_every_side_has_the_same_threads_and_float32():
    for side in networks.contenders(INFERENCE, "files", 3, "native", tuple(PEERS)):
        assert side.environment["OMP_NUM_THREADS"] == "3"
        assert side.environment["ONEDNN_DEFAULT_FPMATH_MODE"] == "STRICT"


@pytest.mark.parametrize("backend", ["reference", "module:object"])
def test_only_native_is_captured(backend):
    assert names(INFERENCE, backend, ()) == [backend, f"{backend}, plain"]


@needs_native
@pytest.mark.parametrize("work", [INFERENCE, TRAINING], ids=str)
def test_a_captured_side_replays_the_fused_one(tmp_path, work, monkeypatch):
    with backends.backend("native"):
        given = prepared(work, tmp_path)
        expected = computed(Ours(*given, "fused"))
        captured = Ours(*given, "captured")
        monkeypatch.setattr(captured.model, "forward", None)  # a replay runs no Python of the network
        found = computed(captured)
    assert {name: array.tobytes() for name, array in found.items()} == {
        name: array.tobytes() for name, array in expected.items()
    }


@needs_native
def test_a_captured_step_reads_the_learning_rate(tmp_path):
    with backends.backend("native"):
        side = Ours(*prepared(TRAINING, tmp_path), "captured")
        weight = next(iter(side.model.parameters())).data
        before = weight.copy()
        side.run()
        assert np.array_equal(weight, before)
        side.call(side.x, side.labels, 0.1)
        assert not np.array_equal(weight, before)


@pytest.mark.parametrize("peer", ["onnxruntime", "openvino"])
def test_readers_of_the_onnx_file_compute_the_same(tmp_path, peer):
    if reason := missing([peer]).get(peer):
        pytest.skip(reason)
    given = prepared(INFERENCE, tmp_path, onnx=True)
    with backends.backend("reference"):
        expected = computed(Ours(*given, "fused"), calls=1)
    assert_near(computed(networks.ONNX_READERS[peer](*given)), expected)


def test_openvino_computes_in_float32_with_the_threads_of_all(tmp_path):
    if reason := missing(["openvino"]).get("openvino"):
        pytest.skip(reason)
    import openvino

    asked = {}
    compile_model = openvino.Core.compile_model

    def compiled(core, model, device, options):
        asked.update(options)
        return compile_model(core, model, device, options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(openvino.Core, "compile_model", compiled)
        side = OpenVino(*prepared(INFERENCE, tmp_path, onnx=True)[:2], 1)
    # Read back, an option left out would look the same on a processor without bfloat16.
    assert asked["INFERENCE_PRECISION_HINT"] == "f32"
    assert side.compiled.get_property("INFERENCE_NUM_THREADS") == 1
    assert side.compiled.get_property("NUM_STREAMS") == 1


@pytest.fixture
def torch():
    torch = pytest.importorskip("torch")
    yield torch
    torch.compiler.reset()


@pytest.mark.parametrize("work", [INFERENCE, TRAINING], ids=str)
def test_compiled_torch_computes_the_same(tmp_path, torch, monkeypatch, work):
    """By Dynamo without a C++ compiler; the slow test has one."""
    made = []
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda model: made.append(compile_(model, backend="eager")) or made[0])
    given = prepared(work, tmp_path)
    side = Torch(*given, True, True)
    assert made == [side.call]
    assert_near(computed(side, calls=1), computed(Torch(*given, True), calls=2))


def test_a_network_that_cannot_be_compiled_is_left_out_with_a_line(tmp_path, torch, monkeypatch):
    def fails(model):
        return compile_(model, backend=refuse)

    def refuse(graph, inputs):
        raise ValueError("no such luck\nin many lines")

    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", fails)
    with pytest.raises(CannotTakePart, match=r"^could not compile: [^\n]*no such luck[^\n]*$"):
        Torch(*prepared(INFERENCE, tmp_path), True, True)


def only_compiled(given):
    found = networks.contenders(*given, "native", ("torch.compile",))
    return [contender for contender in found if contender.name == COMPILED]


@pytest.mark.slow
@pytest.mark.parametrize("work", [INFERENCE, TRAINING], ids=str)
def test_compiled_torch_with_a_cpp_compiler(tmp_path, torch, work):
    if shutil.which("g++") is None:
        pytest.skip("torch.compile calls g++")
    given = prepared(work, tmp_path)
    with workers(only_compiled(given)) as (worker,):
        worker.ask("run")
        assert_near(worker.ask("result"), computed(Torch(*given, True), calls=2))


@pytest.mark.slow
def test_without_a_cpp_compiler_it_is_left_out(tmp_path, torch, monkeypatch):
    monkeypatch.setenv("CXX", "/nonexistent/c++")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    given = prepared(INFERENCE, tmp_path)
    left_out = {}
    with workers(only_compiled(given), left_out) as ready:
        assert ready == []
    assert list(left_out) == [COMPILED]
    assert "No working C++ compiler" in left_out[COMPILED]
    assert "\n" not in left_out[COMPILED]
