"""Kernels of the reader's own: the file's form, what they compute in whole networks, and what their errors say."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import strict_cupy

import minires as mr
import minires.functional as F
from minires import backends, cli, training
from minires.backends import reference
from minires.backends.kernels import launch_line, own, own_build, provider
from minires.training import Config, ConfigError
from minires.verify.lockstep import lockstep

pytestmark = pytest.mark.skipif(
    bool(backends.available()["emulated"]) or shutil.which("g++") is None, reason="needs the emulator and g++"
)

ROOT = Path(__file__).parents[2]
GEMM = (ROOT / "tests/examples/own_kernel.cu").read_text(encoding="utf-8")
CONV = """\
// launch: block=64 grid=(ceil(OH*OW/64), O, N) shared=8*C*KH*KW
#include "common.cuh"
extern "C" __global__ void __launch_bounds__(64) taps(
    const real* __restrict__ x, const real* __restrict__ w, real* y, /* sizes */ int N, int C, int H, int W, int O,
    int KH, int KW, int stride, int padding) {
    extern __shared__ real filter[];  // of this block's channel
    const int OH = (H + 2 * padding - KH) / stride + 1, OW = (W + 2 * padding - KW) / stride + 1;
    const int o = blockIdx.y, n = blockIdx.z, pixel = blockIdx.x * blockDim.x + threadIdx.x;
    for (int k = threadIdx.x; k < C * KH * KW; k += blockDim.x) filter[k] = w[o * C * KH * KW + k];
    __syncthreads();
    if (pixel >= OH * OW) return;
    real sum = 0;
    for (int c = 0; c < C; c++)
        for (int p = 0; p < KH; p++)
            for (int q = 0; q < KW; q++) {
                const int i = pixel / OW * stride + p - padding, j = pixel % OW * stride + q - padding;
                if (i >= 0 && i < H && j >= 0 && j < W)
                    sum += x[((n * C + c) * H + i) * W + j] * filter[(c * KH + p) * KW + q];
            }
    y[(n * O + o) * OH * OW + pixel] = sum;
}
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with sound kernels; they are compiled once a session, into a cache of its own."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "mine.cu").write_text(GEMM)
    (folder / "taps.cu").write_text(CONV)
    (folder / "both.cu").write_text(GEMM.replace("float", "real").replace("\n", '\n#include "common.cuh"\n', 1))
    return folder


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setattr(own_build, "cache_folder", lambda: folder)
        yield folder


def changed(folder, old, new, source=GEMM, name="changed.cu"):
    assert source.count(old) >= 1
    path = folder / name
    path.write_text(source.replace(old, new, 1))
    return path


# -- the form of a file


def test_the_readme_shows_the_example():
    readme = (ROOT / "csrc" / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"^```cuda\n(.*?)^```", readme, flags=re.M | re.S) == [GEMM]


def test_the_launch_of_a_gemm_and_of_a_convolution(files):
    gemm, conv = own.read(files / "mine.cu", "gemm"), own.read(files / "taps.cu", "conv2d")
    assert (gemm.name, gemm.line, gemm.real, gemm.kind) == ("mine", 2, False, "gemm")
    assert gemm.launch_of(M=33, N=16, K=0) == ((1, 3, 1), (16, 16, 1))
    assert (conv.name, conv.line, conv.real) == ("taps", 3, True)
    sizes = {"N": 2, "C": 3, "H": 17, "W": 9, "O": 4, "KH": 3, "KW": 3, "stride": 2, "padding": 1}
    assert conv.launch_of(**sizes) == ((1, 4, 2), (64, 1, 1))  # 9 × 5 pixels
    assert (conv.shared_of(**sizes), gemm.shared_of(M=1, N=1, K=1)) == (216, 0)


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("7", 7), ("M/5", 4), ("ceil(M/16)", 2), ("M//16", 1), ("M%16", 4), ("2*(M-N)", 26), ("max(1, M-N, K)", 13),
        ("min(ceil(M/16), 99)", 2), ("ceil(M/N*7)", 20), ("ceil(ceil(M/16)/2)", 1), ("M - N - K", 13),
    ],
)  # fmt: skip
def test_expressions(expression, value):
    launch = launch_line.parse(f"// launch: grid={expression} block=(1, M)", ("M", "N", "K"), "")
    assert launch_line.values(launch, "grid", {"M": 20, "N": 7, "K": 0}) == [value]
    assert launch_line.values(launch, "block", {"M": 20, "N": 7, "K": 0}) == [1, 20]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "// launch:",
            "// start:",
            r":1: the first line must be the launch .* such as // launch: block=.*; got '// start",
        ),
        (" grid=(ceil(N/16), ceil(M/16))", "", ":1: the first line must be the launch with block, grid"),
        ("block=(16,16)", "block=(16,16) block=1", ":1: the first line must be the launch"),
        ("block=(16,16)", "blocks=(16,16)", ":1: the first line must be the launch"),
        ("ceil(N/16)", "ceil(n/16)", r":1: grid uses 'n'; allowed are M, N, K, integers"),
        ("ceil(N/16)", "ceil(OW/16)", ":1: grid uses 'OW'; allowed are M, N, K"),
        ("ceil(N/16)", "round(N/16)", r":1: grid uses 'round\(N / 16\)'"),
        ("ceil(N/16)", "ceil(N, 16)", r":1: grid uses 'ceil\(N, 16\)'"),
        ("ceil(N/16)", "N.real", ":1: grid uses 'N.real'"),
        ("ceil(N/16)", "__import__('os').abort()", ":1: grid uses"),
        ("ceil(N/16)", "N**9", r":1: grid uses 'N \*\* 9'"),
        ("ceil(N/16), ceil(M/16)", "1)  # (comment", r":1: grid must hold expressions of M, N, K, .*# \(comment"),
        ("ceil(N/16)", "-" * 400 + "1", r":1: grid is nested too deeply, \(-+\.\.\.; up to 40 levels are allowed"),
        ("ceil(N/16)", "N" + "+1" * 150, ":1: grid is nested too deeply"),
        ("ceil(N/16)", "1.5", ":1: grid uses '1.5'"),
        ("ceil(N/16)", "N +", r":1: grid must hold expressions of M, N, K, .*; got \(N \+, "),
        ("(16,16)", "(16,16,1,1)", ":1: block has 4 sizes"),
        ("(16,16)", "()", ":1: block has 0 sizes"),
        ("(16,16)", "(16,16) shared=(1,2)", ":1: shared has 2 sizes"),
        ("int K", "long K", r":2: mine takes \(.* long K\); a gemm kernel takes \(const float\* A, .* int K\)"),
        (", int K", "", ":2: mine takes"),
        ("const float* A", "float A", ":2: mine takes"),
        ("float* C", "double* C", ":2: mine takes"),
        ("int M, int N", "int N, int M", ":2: mine takes .*int N, int M"),
        (
            'extern "C" ',
            "",
            r':2: mine lacks extern "C", .*; write extern "C" __global__ void changed\(const float\* A',
        ),
        ("__global__ void mine", "void mine", ":1: the file has no kernel; write extern"),
        (
            "    float sum",
            "    extern __shared__ float s[];\n    float sum",
            r":6: extern __shared__ has no size; add shared",
        ),
    ],
)
def test_a_file_of_another_form(tmp_path, old, new, message):
    path = changed(tmp_path, old, new)
    with pytest.raises(ValueError, match=re.escape(str(path)) + message):
        own.read(path, "gemm")


def test_two_kernels_no_file_no_text(tmp_path):
    path = changed(tmp_path, GEMM, GEMM + GEMM.replace("mine", "second"))
    with pytest.raises(ValueError, match=r"changed.cu:17: the file has 2 kernels, at lines \[2, 17\]; keep one"):
        own.read(path, "gemm")
    path.write_text(GEMM + '// __global__ void none()\n/* extern "C" __global__ void two(int) */')
    assert own.read(path, "gemm").name == "mine"
    path.write_bytes(b"\xff\xfe")
    for wrong in (path, tmp_path / "none.cu", tmp_path):
        with pytest.raises(ValueError, match=f"{re.escape(str(wrong))}: the kernel cannot be read"):
            own.read(wrong, "gemm")
    with pytest.raises(ValueError, match="kind must be one of 'gemm', 'conv2d'"):
        own.read(path, "softmax")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("ceil(N/16)", "N/16", r"grid: N / 16 is 7/16 for M=5, N=7, K=3, not whole; ceil\(...\) rounds up"),
        ("ceil(N/16)", "N//16", r"grid is \(0, 1, 1\) for M=5, N=7, K=3; \(1, 1, 1\) to .* are allowed"),
        ("ceil(N/16)", "N//(K-3)", r"grid: N // \(K - 3\) divides by zero"),
        ("(16,16)", "(64,17)", r"block has 1088 threads, \(64, 17, 1\); 1 to 1024 are allowed"),
        ("(16,16)", "(1,1,65)", "block is "),
        ("(16,16)", "(16,16) shared=K*100000", "shared is 300000 bytes"),
    ],
)
def test_a_launch_that_no_gpu_accepts(tmp_path, old, new, message):
    kernel = own.read(changed(tmp_path, old, new), "gemm")
    with pytest.raises(ValueError, match=rf"changed.cu:1: {message}"):
        kernel.launch_of(M=5, N=7, K=3), kernel.shared_of(M=5, N=7, K=3)
    with pytest.raises(ValueError, match="sizes must be M, N, K; got M"):
        kernel.launch_of(M=5)


# -- what it computes


@pytest.mark.parametrize(("M", "N", "K"), [(1, 1, 1), (1, 37, 5), (16, 16, 16), (33, 17, 50), (4, 5, 0), (0, 5, 4)])
@pytest.mark.parametrize("seed", [0, 3])
def test_a_gemm_is_the_references(rng, files, M, N, K, seed):
    x, w = rng.standard_normal((K, M), np.float32).T, rng.standard_normal((N, K), np.float32)  # both strided
    with mr.backend("emulated", gemm=files / "mine.cu", seed=seed) as chosen:
        found = chosen.linear_forward(x, w, None)
    np.testing.assert_allclose(found, x @ w.T, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("x_shape", "w_shape", "stride", "padding"),
    [
        ((2, 3, 9, 7), (5, 3, 3, 3), 1, 1),
        ((1, 4, 11, 13), (3, 4, 5, 1), 3, 2),
        ((2, 8, 6, 6), (7, 8, 1, 1), 2, 0),
        ((1, 1, 1, 1), (1, 1, 1, 1), 1, 0),
        ((0, 3, 4, 4), (2, 3, 3, 3), 1, 1),
        ((1, 0, 4, 5), (2, 0, 3, 3), 1, 1),
    ],
)
@pytest.mark.parametrize("bias", [False, True])
def test_a_convolution_is_the_references(rng, files, x_shape, w_shape, stride, padding, bias):
    x = rng.standard_normal(x_shape[::-1], np.float32).T
    w, b = rng.standard_normal(w_shape, np.float32), rng.standard_normal(w_shape[0], np.float32)
    geometry = (stride, stride), (padding, padding), (1, 1), 1
    if x.shape[1]:
        expected = reference.conv2d_forward(x, w, b if bias else None, *geometry)
    else:  # a sum of no terms
        expected = np.broadcast_to((b * bias)[None, :, None, None], (1, 2, 4, 5))
    with mr.backend("emulated", conv2d=str(files / "taps.cu"), seed=5) as chosen:
        found = chosen.conv2d_forward(x, w, b if bias else None, *geometry)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "changes", [{"stride": (2, 1)}, {"padding": (1, 0)}, {"dilation": 2}, {"groups": 2}], ids=lambda c: next(iter(c))
)
def test_a_convolution_that_its_arguments_do_not_describe(rng, files, changes):
    x = rng.standard_normal((1, 4, 8, 8), np.float32)
    w = rng.standard_normal((4, 4 // changes.get("groups", 1), 3, 3), np.float32)
    message = r"taps.cu: stride, padding, dilation and groups must be one stride, .*got .*compute this network with"
    with mr.backend("emulated", conv2d=files / "taps.cu"), pytest.raises(ValueError, match=message):
        F.conv2d(x, w, **changes)


@pytest.fixture
def network(rng):
    mr.manual_seed(0)
    model = mr.models.create("resnet20", width=2)
    return model, rng.standard_normal((2, 3, 9, 9), np.float32), np.array([0, 1])


def test_whole_networks_in_lockstep(files, network):
    for options in ({"gemm": files / "mine.cu"}, {"conv2d": files / "taps.cu"}):
        found = lockstep(*network, backends=("reference", "emulated"), **options)
        assert found.passed, found.fault


@pytest.mark.parametrize(
    ("option", "source", "old", "new"),
    [
        ("gemm", GEMM, "k0 < K;", "k0 + 16 <= K;"),  # the last tile is left out
        ("conv2d", CONV, "i >= 0", "i > 0"),
    ],
)
def test_lockstep_names_the_operation_of_a_wrong_kernel(tmp_path, network, option, source, old, new):
    path = changed(tmp_path, old, new, source)
    fault = lockstep(*network, backends=("reference", "emulated"), **{option: path}).fault
    assert (fault.phase, fault.operation, fault.module, fault.array) == ("forward", "Conv2d", "conv1", "output")


def test_an_element_that_is_not_written(tmp_path, network):
    path = changed(tmp_path, "&& n < N) C", "&& n < N - 1) C")
    message = r"changed.cu: the kernel does not write C\[0, 1\] of shape \(162, 2\), and 161 more .* M=162, N=2, K=27"
    with mr.backend("emulated", gemm=path), pytest.raises(RuntimeError, match=message) as raised:
        network[0](mr.tensor(network[1]))
    assert "conv1" in "".join(raised.value.__notes__)


def test_finite_differences_need_real(rng, files):
    x, w = rng.standard_normal((1, 2, 4, 3)), rng.standard_normal((2, 2, 3, 2))
    for option, name in (("gemm", "both.cu"), ("conv2d", "taps.cu")):
        with mr.backend("emulated", **{option: files / name}):
            assert mr.gradcheck(lambda x, w: F.conv2d(x, w, padding=1), {"x": x, "w": w}, rtol=1e-4, atol=1e-5)
    with (
        mr.backend("emulated", gemm=files / "mine.cu"),
        pytest.raises(TypeError, match=r"mine.cu computes in float32, got float64; for both write real"),
    ):
        F.conv2d(x, w)


# -- what g++ and the emulator refuse


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("float sum = 0;", "float sum = 0", ":7: g\\+\\+ refuses the kernel: expected"),
        ("sum += a[row]", "sum += c[row]", ":11: g\\+\\+ refuses the kernel: .c. was not declared"),
        ("    float sum", '    float sum = 0;\n#include "none.cuh"\n    float sum', ":7: g\\+\\+ refuses .*none.cuh"),
    ],
)
def test_a_file_that_does_not_compile(tmp_path, old, new, message):
    path = changed(tmp_path, old, new)
    with pytest.raises(ValueError, match=re.escape(str(path)) + message), mr.backend("emulated", gemm=path):
        pass


def test_a_kernel_that_fails_names_file_and_line(tmp_path, network):
    path = changed(tmp_path, "__syncthreads();  // the", "if (row) __syncthreads();  // the")
    with (
        mr.backend("emulated", gemm=path),
        pytest.raises(RuntimeError, match=r"mine: divergent barrier: .*changed.cu:10"),
    ):
        network[0](mr.tensor(network[1]))


def test_an_edited_file_and_an_edited_include_are_compiled_anew(tmp_path):
    path, include = tmp_path / "mine.cu", tmp_path / "factor.cuh"
    path.write_text(GEMM.replace("\n", '\n#include "factor.cuh"\n', 1).replace("= sum;", "= FACTOR * sum;"))
    for factor in (2, 3):
        include.write_text(f"#define FACTOR {factor}\n")
        with mr.backend("emulated", gemm=path) as chosen:
            assert chosen.linear_forward(np.ones((1, 4), np.float32), np.ones((1, 4), np.float32), None) == 4 * factor


def test_the_digest_has_each_file_that_an_included_file_includes(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "mine.cu").write_text(GEMM.replace("\n", '\n#include "sub/a.h"\n#include <c.h>\n', 1))
    (tmp_path / "sub" / "a.h").write_text('#include "b.h"\n#include "../sub/a.h"\n')
    kernel, digests = own.read(tmp_path / "mine.cu", "gemm"), set()
    for edited in ("sub/b.h", "c.h", "sub/b.h"):
        with (tmp_path / edited).open("a") as file:
            file.write("// a line\n")
        digests.add(own_build.digest_of_included(kernel))
    assert len(digests) == 3


def test_a_neighbour_hides_no_file_of_the_compilation(tmp_path):
    """A file beside the kernel has its own name, whatever that name is."""
    (tmp_path / "mine.cu").write_text(
        GEMM.replace("\n", '\n#include "kernel.cu"\n', 1).replace("= sum;", "= FACTOR * sum;")
    )
    (tmp_path / "kernel.cu").write_text("#define FACTOR 7\n")
    (tmp_path / own_build.TRANSLATED).write_text(GEMM)
    with mr.backend("emulated", gemm=tmp_path / "mine.cu") as chosen:
        assert chosen.linear_forward(np.ones((1, 4), np.float32), np.ones((1, 4), np.float32), None) == 28


def test_without_a_compiler(monkeypatch, files):
    monkeypatch.setenv("PATH", "")
    own_build._version.cache_clear()
    with pytest.raises(mr.BackendUnavailable, match=r"backend 'emulated' cannot be used here: .*g\+\+"):
        mr.backend("emulated", gemm=files / "mine.cu").__enter__()
    own_build._version.cache_clear()


CACHE_FOLDER = own_build.cache_folder.__wrapped__  # without its cache; a fixture replaces the name


def test_the_cache_is_in_an_absolute_folder_of_the_user(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    usual, named = (tmp_path / root / "minires" / "kernels" for root in ("home/.cache", "named"))
    for value, expected in (("relative", usual), ("", usual), (str(tmp_path / "named"), named)):
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        assert CACHE_FOLDER() == expected
        assert expected.stat().st_mode & 0o777 == 0o700
    assert not (tmp_path / "relative").exists()


@pytest.mark.parametrize("reason", ["owner", "home", "file"])
def test_without_a_cache_the_folder_ends_with_the_process(monkeypatch, tmp_path, reason):
    registered = []
    monkeypatch.setattr(own_build.atexit, "register", lambda *call, **options: registered.append((call, options)))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    if reason == "owner":
        monkeypatch.setattr(own_build.os, "getuid", lambda: -1)
    elif reason == "home":
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setattr(own_build.Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    else:
        (tmp_path / "cache").write_text("")
    folder = CACHE_FOLDER()
    assert folder.name.startswith("minires-kernels-")
    (((remove, *arguments), options),) = registered
    remove(*arguments, **options)
    assert not folder.exists()


# -- names with options, in Python and in every command


def test_options_in_a_backends_name(files):
    with mr.backend(f"emulated:gemm={files / 'mine.cu'},seed=3") as chosen:
        assert (chosen.gemm.kernel.name, chosen.device.seed, chosen.conv2d) == ("mine", 3, "conv_02_im2col")
        assert backends.path_of(chosen) == f"emulated:gemm={files / 'mine.cu'}"
    with mr.backend("emulated:conv2d=conv_04_implicit", seed=4) as chosen:
        assert (chosen.conv2d, chosen.device.seed, chosen.gemm) == ("conv_04_implicit", 4, "auto")
    with mr.backend("native:winograd=0,isa=portable") as chosen:
        assert not chosen.winograd
    with mr.backend("emulated") as chosen:
        assert backends.path_of(chosen) == "emulated"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("emulated:", "backend 'emulated': options are NAME=VALUE.*, once each, of gemm, conv2d, seed; got ''"),
        ("emulated:gemm", "options are NAME=VALUE"),
        ("emulated:seed=1,seed=2", "once each"),
        ("emulated:seed=x", "backend 'emulated': seed must be an integer of at least 0, got 'x'"),
        ("native:winograd=no", "backend 'native': winograd must be 0 or 1, got 'no'"),
        ("emulated:rung=x", "backend 'emulated' has no option 'rung'; it has gemm, conv2d, seed"),
        ("reference:isa=x", "backend 'reference' has no option 'isa'; it has none"),
        ("emulated:conv2d=conv_4", "conv2d must be one of .* A path that ends in .cu is a kernel of your own"),
        ("emulated:gemm=none.cu", "none.cu: the kernel cannot be read: No such file"),
    ],
)
def test_errors_of_options(monkeypatch, capsys, name, message):
    with pytest.raises((TypeError, ValueError), match=message):
        mr.backend(name).__enter__()
    for command in ("gradcheck relu", "trace resnet20", "train", "paper figure1 --quick"):
        assert cli.main([*command.split(), "--backend", name]) == 2
        assert re.match(f"error: --backend.*{message.removeprefix('backend')}", capsys.readouterr().err)
    monkeypatch.setenv("MINIRES_BACKEND", name)
    assert cli.main(["gradcheck", "relu"]) == 2
    assert re.match("error: MINIRES_BACKEND", capsys.readouterr().err)


def test_commands_take_an_own_kernel(files, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    name = f"emulated:gemm={files / 'mine.cu'}"
    argv = ["lockstep", "resnet20", "--batch-size", "2", "--width", "2", "--backends"]
    assert cli.main([*argv, f"reference,{name},seed=1"]) == 0
    wrong = changed(tmp_path, "k0 < K;", "k0 + 16 <= K;")
    assert cli.main([*argv, f"reference,emulated:gemm={wrong}"]) == 1
    capsys.readouterr()
    monkeypatch.setattr(training.loop._Run, "_test_error", lambda self: 50.0)  # of a thousand images
    train = ["train", "resnet20", "--width", "1", "--batch-size", "4", "--iterations", "1", "--quiet", "--json"]
    assert cli.main([*train, "--out", "run", "--backend", name]) == 0
    config = Config.from_json(json.loads((tmp_path / "run" / "config.json").read_text()))
    assert (config.backend, config.has_own_backend()) == (name, True)
    with pytest.raises(ConfigError, match="Enter it"), config.computing():  # a file of a run runs no code
        pass
    assert not Config.make(backend="emulated:conv2d=conv_04_implicit", iterations=1).has_own_backend()
    with pytest.raises(ConfigError, match="backend must be one of"):
        Config.make(backend="emulate", iterations=1)


def test_an_object_with_the_contract_is_taken_everywhere(rng, network):
    """tests/backends/test_own.py has the whole of it; here beside an own kernel."""

    class Mine(mr.backends.Reference):
        pass

    for given in (Mine, Mine()):
        with mr.backend(given) as chosen:
            assert chosen.name == "Mine"
        assert lockstep(*network, backends=("reference", given)).passed


# -- on a device, by the strict stand-in for CuPy


class RawModule(strict_cupy.RawModule):
    """Compiles the code for the emulator, as NVRTC would for the device."""

    def __init__(self, code, options):
        self.code, self.options = code, options

    def get_function(self, name):
        if name != "mine":
            return super().get_function(name)
        kernel = own.OwnKernel(self.path, "gemm", name, 2, self.code, False, {})
        compiled = own_build.library(kernel)

        def function(grid, block, arguments, shared_mem=0):
            assert all(isinstance(a, (strict_cupy.ndarray, np.int32)) for a in arguments)
            arrays = [a.values for a in arguments[:3]]
            assert all(a.flags.c_contiguous for a in arrays)
            assert (
                own_build.launch(compiled, grid, block, shared_mem, arrays, [int(n) for n in arguments[3:]], 0) is None
            )

        return function


def test_a_gemm_on_a_device(rng, files, monkeypatch):
    module = strict_cupy.module()
    module.RawModule, RawModule.path = RawModule, files / "mine.cu"
    monkeypatch.setitem(sys.modules, "cupy", module)
    provider.device.cache_clear()
    a, b = rng.standard_normal((5, 20), np.float32), rng.standard_normal((7, 20), np.float32)
    with mr.backend("cuda", gemm=files / "mine.cu") as chosen:
        found = chosen.linear_forward(module.asarray(a), module.asarray(b), None)
        assert chosen.gemm._float is not None
        with pytest.raises(TypeError, match="computes in float32, got float64"):
            chosen.linear_forward(module.asarray(a.astype(float)), module.asarray(b.astype(float)), None)
    provider.device.cache_clear()
    np.testing.assert_allclose(found.get(), a @ b.T, rtol=1e-5, atol=1e-5)
