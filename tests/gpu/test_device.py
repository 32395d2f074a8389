"""The kernels on a GPU: every rung beside the reference backend, and whole networks.

Without a GPU the same tests run on the strict stand-in for CuPy, whose kernels the emulator runs.
"""

from __future__ import annotations

import importlib

import numpy as np
import pytest
import strict_cupy

import minires as mr
import minires.functional as F
from minires import backends
from minires.backends import reference
from minires.backends.kernels import catalogue, conv2d
from minires.backends.kernels.gemm import gemm
from minires.backends.kernels.provider import device
from minires.verify.cases import CASES, draw, random_pick
from minires.verify.lockstep import lockstep

GPU = not backends.available()["cuda"]
if not GPU and backends.available()["emulated"]:
    pytest.skip(backends.available()["cuda"], allow_module_level=True)

WIDTH, IMAGES = (16, (4, 3, 32, 32)) if GPU else (4, (4, 3, 8, 9))  # of the networks
LARGE = (1000, 1024, 512) if GPU else (130, 140, 70)
# As in tests/backends/test_emulated.py: float32 sums in another order, tf32 (11 bits), bf16 (8 bits)
ALLOWED = {"tf32": 4 * 2**-11, "bf16": 4 * 2**-8, "3xtf32": 1e-5}


@pytest.fixture(autouse=True)
def cupy():
    """CuPy on a GPU, or the stand-in."""
    if GPU:
        yield importlib.import_module("cupy")
    else:
        with strict_cupy.installed() as module:
            yield module


def off(found, expected):
    difference = np.linalg.norm(found.get() - expected) / np.linalg.norm(expected)
    return difference if difference == difference else np.inf


def assert_close(found, expected, tolerance):
    """Sums of at most a few hundred products of order 1, so that the bound has an absolute part; rejects NaN."""
    assert (np.abs(found.get() - expected) <= tolerance * (1 + np.abs(expected))).all()


@pytest.mark.parametrize("rung", [*catalogue.GEMMS, "cublas"])
@pytest.mark.parametrize("sizes", [(1, 1, 1), (37, 65, 19), (257, 130, 600), LARGE])
def test_gemm(cupy, rng, rung, sizes):
    M, N, K = sizes
    for a_T, b_T in ((False, False), (True, False), (False, True)):
        a = rng.standard_normal((K, M) if a_T else (M, K)).astype(np.float32)
        b = rng.standard_normal((N, K) if b_T else (K, N)).astype(np.float32)
        out = cupy.full((M, N), np.nan, np.float32)
        left, right = (cupy.asarray(v).T if T else cupy.asarray(v) for v, T in ((a, a_T), (b, b_T)))
        gemm(device(), rung, left, right, out)
        exact = (a.T if a_T else a).astype(float) @ (b.T if b_T else b)
        assert off(out, exact) <= ALLOWED.get(rung.rpartition("_")[2], 2e-6)


@pytest.mark.parametrize("rung", ["auto", *catalogue.CONVOLUTIONS])
@pytest.mark.parametrize(
    "geometry",
    [
        ((2, 8, 7, 9), (12, 8, 3, 3), (1, 1), (1, 1), (1, 1), 1),
        ((3, 6, 4, 5), (4, 3, 3, 3), (1, 1), (1, 0), (1, 1), 2),
        ((2, 16, 5, 3), (8, 16, 1, 1), (1, 1), (0, 0), (1, 1), 1),
        ((1, 4, 9, 8), (6, 4, 3, 2), (2, 3), (1, 0), (2, 1), 1),
        ((8, 64, 28, 28), (128, 64, 3, 3), (2, 2), (1, 1), (1, 1), 1),
    ],
    ids=str,
)
def test_convolutions(cupy, rng, rung, geometry):
    x_shape, w_shape, *options = geometry
    sizes = conv2d.Geometry.of(x_shape, w_shape, *options)
    if (rung == "conv_03_1x1" and not sizes.is_1x1) or (rung == "conv_08_winograd" and not sizes.suits_winograd):
        pytest.skip(f"{rung} does not do this geometry")
    x, w = rng.standard_normal(x_shape), rng.standard_normal(w_shape)
    expected = reference.conv2d_forward(x, w, None, *options)
    grad = rng.standard_normal(expected.shape)
    gx, gw, gg = (cupy.asarray(v, np.float32) for v in (x, w, grad))
    with mr.backend("cuda", conv2d=rung) as cuda:
        assert off(cuda.conv2d_forward(gx, gw, None, *options), expected) <= ALLOWED.get(rung.rpartition("_")[2], 5e-6)
        found = cuda.conv2d_backward_input(gg, gw, x_shape, *options)
        assert off(found, reference.conv2d_backward_input(grad, w, x_shape, *options)) <= 5e-6
        found = cuda.conv2d_backward_weight(gg, gx, w_shape, *options)
        assert off(found, reference.conv2d_backward_weight(grad, x, w_shape, *options)) <= 5e-6


@pytest.mark.parametrize("operation", CASES)
def test_operations(cupy, operation):
    """Forward against the naive oracle, gradients against the reference backend, in double precision."""
    for seed in range(10):
        rng = np.random.default_rng(seed)
        case = draw(operation, random_pick(rng), rng)
        expected = case.oracle(*case.inputs)
        cotangent = rng.standard_normal(expected.shape)
        gradients = {}
        for name, module in (("reference", np), ("cuda", cupy)):
            tensors = [mr.tensor(module.asarray(array), requires_grad=True) for array in case.inputs]
            with mr.backend(name):
                output = case.fn(*tensors)
                if name == "cuda":
                    assert_close(output.data, expected, 1e-11)
                output.backward(module.asarray(cotangent))
            gradients[name] = [t.grad for t in tensors]
        for a, b in zip(gradients["cuda"], gradients["reference"], strict=True):
            assert_close(a, b, 1e-9)


@pytest.mark.parametrize("backend", ["cuda", "cublas"])
def test_a_network(backend):
    """Each node in float32 on the same operands, as ReLUs that flip would make complete runs differ."""
    rng = np.random.default_rng(0)
    images, labels = rng.standard_normal(IMAGES).astype(np.float32), np.array([3, 7, 1, 0])
    mr.manual_seed(0)
    found = lockstep(mr.models.create("resnet20", width=WIDTH), images, labels, ("reference", backend))
    assert found.passed, found


@pytest.mark.parametrize("training", [False, True])
def test_a_captured_network(cupy, training):
    """A CUDA graph of inference, or of whole steps whose learning rate changes, has the bits of the eager run."""
    rng, steps = np.random.default_rng(0), []
    for _ in range(2):
        mr.manual_seed(0)
        model = mr.models.create("resnet20", width=WIDTH).to("cuda").train(training)
        optimizer = mr.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)

        def step(images, labels, lr, model=model, optimizer=optimizer):
            optimizer.zero_grad()
            optimizer.lr = lr
            logits = model(mr.tensor(images))
            loss = F.cross_entropy(logits, labels)
            loss.backward()
            if training:
                optimizer.step()
            return logits, loss

        steps.append((model, step))
    (model, fast), (other, eager) = steps
    with mr.backend("cuda"):
        for number in range(4 if GPU else 2):
            images = cupy.asarray(rng.standard_normal(IMAGES), np.float32)
            labels, lr = rng.integers(0, 10, 4), 0.1 / (1 + number)
            if number == 0:
                fast = mr.capture(fast, images, labels, lr)
            for found, expected in zip(fast(images, labels, lr), eager(images, labels, lr), strict=True):
                assert cupy.array_equal(found, expected.data)
            for name, value in other.state_dict().items():
                assert cupy.array_equal(model.state_dict()[name], value), name


def test_arrays_of_the_other_home_are_refused(cupy):
    with mr.backend("cuda"), pytest.raises(TypeError, match="backend 'cuda' computes on cupy arrays, got numpy's"):
        F.relu(np.ones(3, np.float32))
    if not backends.available()["emulated"]:
        wrong = pytest.raises(TypeError, match="backend 'emulated' computes on numpy arrays, got cupy's")
        with mr.backend("emulated"), wrong:
            F.relu(cupy.ones(3, np.float32))
