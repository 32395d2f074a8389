"""The CUDA kernels, run on the CPU: every rung, awkward sizes, three orders of the threads."""

from __future__ import annotations

import os
import subprocess
import sys

import agreement
import numpy as np
import pytest
from agreement.geometries import FEW_GEOMETRIES
from agreement.rounding import off

import minires as mr
import minires.functional as F
from minires import backends
from minires.backends.kernels import catalogue, conv2d
from minires.backends.kernels.gemm import gemm
from minires.backends.kernels.provider import Emulator
from minires.verify.cases import CASES, draw, random_pick
from minires.verify.properties import PROPERTIES

if backends.available()["emulated"]:
    pytest.skip(backends.available()["emulated"], allow_module_level=True)

SEEDS = (0, 1, 2)  # ascending order, and two shuffled ones


# -- products of matrices


DOUBLE = [rung for rung in catalogue.GEMMS if not rung.endswith(("tf32", "bf16"))]


@pytest.mark.parametrize(
    ("rung", "dtype"), [*((rung, np.float32) for rung in catalogue.GEMMS), *((rung, np.float64) for rung in DOUBLE)]
)
def test_gemm(rung, dtype):
    agreement.products_of_rung(rung, dtype)


def test_the_rung_for_a_product():
    """gemm_11_wide where its tiles fill a GPU, split-K where few leave it idle; float64 tiles are half as wide."""
    from minires.backends.kernels.gemm import choose

    assert choose(4096, 4096, 4096) == "gemm_11_wide"
    assert choose(1024, 4096, 2048) == "gemm_07_warps"
    assert choose(1024, 4096, 2304, itemsize=8) == "gemm_11_wide"
    assert choose(32, 2048, 1000) == "gemm_08_split_k"
    assert choose(32, 64, 1000) == "gemm_07_warps"


def test_three_products_in_tf32_are_nearly_as_precise_as_float(rng):
    a, b = rng.standard_normal((40, 300)).astype(np.float32), rng.standard_normal((300, 50)).astype(np.float32)
    errors = {}
    for rung in ("gemm_07_warps", "gemm_09_tf32", "gemm_12_3xtf32"):
        out = np.full((40, 50), np.nan, np.float32)
        gemm(Emulator(), rung, a, b, out)
        errors[rung] = off(out, a.astype(float) @ b)
    assert errors["gemm_12_3xtf32"] <= 2 * errors["gemm_07_warps"]
    assert errors["gemm_12_3xtf32"] <= errors["gemm_09_tf32"] / 300


def test_empty_products():
    out = np.full((3, 4), np.nan, np.float32)
    gemm(Emulator(), "gemm_07_warps", np.ones((3, 0), np.float32), np.ones((0, 4), np.float32), out)
    np.testing.assert_array_equal(out, np.zeros((3, 4)))
    gemm(Emulator(), "gemm_07_warps", np.ones((0, 2), np.float32), np.ones((2, 4), np.float32), out[:0])


# -- every operation as the reference backend is tested


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("operation", CASES)
def test_operations(operation, seed):
    """Oracle, dtypes, memory layouts and finite differences in double precision."""
    with mr.backend("emulated", seed=seed):
        for number in range(4):
            rng = np.random.default_rng((seed, number))
            draw(operation, random_pick(rng), rng).check()


@pytest.mark.parametrize(
    ("operation", "holds"), [pytest.param(op, p, id=f"{op}-{p.__name__}") for op, ps in PROPERTIES.items() for p in ps]
)
def test_properties(operation, holds, rng):
    with mr.backend("emulated"):
        holds(rng)


GENERAL = [
    rung for rung in catalogue.CONVOLUTIONS
    if not rung.endswith(("tf32", "bf16")) and rung not in ("conv_03_1x1", "conv_08_winograd")
]  # fmt: skip


@pytest.mark.parametrize("rung", GENERAL)
def test_convolutions_of_any_geometry(rung):
    for number in range(6):
        with mr.backend("emulated", conv2d=rung, seed=number % 3):
            rng = np.random.default_rng((7, number))
            draw("conv2d", random_pick(rng), rng).check()


@pytest.mark.parametrize("rung", ["auto", *catalogue.CONVOLUTIONS])
def test_convolutions_beside_the_reference(rung):
    agreement.convolutions_of_rung(rung, gradients=True, dtype=np.float32)


def test_a_rung_that_a_geometry_does_not_suit_is_an_error():
    for x_shape, w_shape, *options in FEW_GEOMETRIES:
        sizes = conv2d.Geometry.of(x_shape, w_shape, *options)
        for rung, suits in (("conv_03_1x1", sizes.is_1x1), ("conv_08_winograd", sizes.suits_winograd)):
            if not suits:
                with pytest.raises(ValueError, match=f"{rung} needs a"), mr.backend("emulated", conv2d=rung):
                    F.conv2d(np.ones(x_shape, np.float32), np.ones(w_shape, np.float32), None, *options)


def test_deterministic_whatever_the_order_of_the_threads(rng):
    x, w = rng.standard_normal((3, 5, 9, 8)).astype(np.float32), rng.standard_normal((6, 5, 3, 3)).astype(np.float32)
    cotangent = rng.standard_normal((3, 6, 9, 8)).astype(np.float32)
    results = []
    for seed in SEEDS:
        with mr.backend("emulated", seed=seed) as emulated:
            geometry = ((1, 1), (1, 1), (1, 1), 1)
            _, mean, var, saved = emulated.batch_norm_forward(x, None, None, 1e-5)
            results.append((
                emulated.conv2d_backward_weight(cotangent, x, w.shape, *geometry),
                emulated.conv2d_backward_input(cotangent, w, x.shape, *geometry), mean, var,
                *emulated.batch_norm_backward(x, saved, None),
            ))  # fmt: skip
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_the_optimizer_takes_the_kernel(rng):
    """Same steps by the kernel and by array expressions, a parameter without a gradient left alone."""
    shapes, options = [(70, 3, 3, 3), (5,), (4, 4)], (0.1, 0.9, 0.01)
    arrays = [rng.standard_normal(shape) for shape in shapes]
    ours, theirs = ([mr.tensor(a.copy(), requires_grad=True) for a in arrays] for _ in range(2))
    one, other = mr.optim.SGD(ours, *options), mr.optim.SGD(theirs, *options)
    names = []

    class Spy(Emulator):
        def launch(self, kernel, *arguments):
            names.append(kernel)
            super().launch(kernel, *arguments)

    with mr.backend("emulated") as emulated:
        emulated.device = Spy(1)
        for _ in range(3):
            for p, q in zip(ours[:2], theirs[:2], strict=True):
                p.grad = q.grad = rng.standard_normal(p.shape)
            one.step()
            with mr.backend("reference"):
                other.step()
    assert names == ["sgd_step"] * 3
    for p, q in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(p.data, q.data, rtol=1e-13)
    assert set(one.state_dict()) == {"velocity.0", "velocity.1"}


# -- a whole network


def test_resnet20_gradients_equal_the_reference_backends():
    """Float32 rounding grows through 20 layers of batch statistics; 1e-4 of each gradient's norm remains."""
    rng = np.random.default_rng(0)
    images, labels = rng.standard_normal((2, 3, 32, 32)).astype(np.float32), np.array([3, 7])
    gradients = {}
    for name in ("reference", "emulated"):
        mr.manual_seed(0)
        model = mr.models.create("resnet20")
        with mr.backend(name):
            F.cross_entropy(model(mr.tensor(images)), labels).backward()
        gradients[name] = {key: p.grad for key, p in model.named_parameters()}
    for key, expected in gradients["reference"].items():
        assert off(gradients["emulated"][key], expected) <= 1e-4, key


# -- errors


def test_rungs_are_known_by_name():
    for option, message in ((("gemm", "gemm_07"), "gemm_07_warps"), (("conv2d", "winograd"), "conv_08_winograd")):
        with pytest.raises(ValueError, match=message), mr.backend("emulated", **dict([option])):
            pass
    with pytest.raises(TypeError, match="has no option 'rung'; it has gemm, conv2d, seed"):
        mr.backend("emulated", rung="x").__enter__()
    with pytest.raises(ValueError, match="seed must be at least 0"):
        mr.backend("emulated", seed=-1).__enter__()


def test_dtypes_that_no_kernel_computes_in():
    with mr.backend("emulated"), pytest.raises(TypeError, match="float32 and float64, got float16"):
        mr.tensor(np.ones(3, np.float16)) + np.ones(3, np.float16)
    with (
        mr.backend("emulated", conv2d="conv_07_tf32"),
        pytest.raises(TypeError, match="conv_07_tf32 computes in float32"),
    ):
        F.conv2d(np.ones((1, 1, 3, 3)), np.ones((1, 1, 3, 3)))


def test_sizes_beyond_32_bits_are_refused():
    with pytest.raises(ValueError, match="does not fit the kernels' 32-bit integers"):
        Emulator().launch("relu_forward", np.float32, (1,), (1,), None, None, 2**31)


def test_launches_that_no_gpu_accepts():
    compiled = Emulator()._compiled
    with pytest.raises(TypeError, match="relu_forward takes 3 arguments, got 1"):
        compiled.launch("relu_forward", [1], [1], [0])
    with pytest.raises(ValueError, match="1 to 1024 threads, got 2048"):
        compiled.launch("relu_forward", [1], [2048], [0, 0, 0])
    with pytest.raises(ValueError, match="grid"):
        compiled.launch("relu_forward", [1, 70000], [1], [0, 0, 0])
    with pytest.raises(KeyError, match="no kernel is called 'relu'"):
        compiled.launch("relu", [1], [1], [])


FORK_BESIDE_A_LAUNCH = """
import os, signal, threading, warnings
import numpy as np
from minires.backends.kernels.gemm import gemm
from minires.backends.kernels.provider import Emulator
warnings.simplefilter("ignore", DeprecationWarning)  # of Python 3.12, at a fork beside threads
a, stop, started = np.ones((64, 64), np.float32), threading.Event(), threading.Event()
def product():
    out = np.full((64, 64), np.nan, np.float32)
    gemm(Emulator(), "gemm_03_shared", a, a, out)
    return bool((out == 64).all())
def launch():
    while not stop.is_set():
        product()
        started.set()
thread = threading.Thread(target=launch)
thread.start()
started.wait()
for _ in range(10):
    child = os.fork()
    if child == 0:
        signal.alarm(60)  # ends a child that hangs
        os._exit(0 if product() else 2)
    assert os.waitpid(child, 0)[1] == 0
stop.set()
thread.join()
assert product()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_child_launches_after_a_fork_beside_a_launching_thread():
    ran = subprocess.run([sys.executable, "-c", FORK_BESIDE_A_LAUNCH], capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
