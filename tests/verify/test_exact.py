"""Every operation is within its a-priori bound of the exact result, and the bounds are sharp enough to find bugs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import minires as mr
import minires.functional as F
from minires import backends, cli, ops
from minires.verify import audit, network, variants
from minires.verify.bounds import Arithmetic

HERE = [name for name in variants.BACKENDS if not backends.available()[name]]


@pytest.mark.parametrize("operation", variants.OPERATIONS)
@pytest.mark.parametrize("backend", HERE)
def test_every_operation_is_within_its_bounds(operation, backend):
    chosen = variants.of_backend(backend)[:2]
    rows = audit.merged(variants.check([operation], chosen, 2, 3, lambda step: None, images=1))
    assert any(row.output == "y" for row in rows)
    assert any(row.output.startswith("grad_") for row in rows)
    assert all(row.ratio <= 1 for row in rows), max(rows, key=lambda row: row.ratio)


def test_variants_cover_instruction_sets_winograd_and_every_rung():
    for name in HERE:
        found = {str(variant) for variant in variants.of_backend(name)}
        if name == "native":
            assert {"native portable", "native portable no winograd"} <= found
        if name == "emulated":
            assert {"emulated gemm_09_tf32", "emulated conv_08_winograd", "emulated conv_07_bf16"} <= found


# Few terms: the bound grows with their number, a planted error does not.
PLANTED = {
    "conv2d": (lambda x, w: F.conv2d(x, w), (2, 1, 6, 5), (3, 1, 2, 2)),
    "linear": (F.linear, (5, 4), (3, 4)),
    "batch_norm": (lambda x: F.batch_norm(x, None, None, training=True), (2, 3, 2, 2)),
    "relu": (F.relu, (3, 4, 5)),
    "add": (lambda a, b: a + b, (3, 4), (3, 4)),
    "max_pool2d": (lambda x: F.max_pool2d(x, 2), (2, 3, 6, 6)),
    "avg_pool2d": (lambda x: F.avg_pool2d(x, 2), (2, 3, 6, 6)),
    "adaptive_avg_pool2d": (lambda x: F.adaptive_avg_pool2d(x, 2), (2, 3, 5, 4)),
    "sum": (lambda x: x.sum(1), (7, 4)),
    "mean": (lambda x: x.mean(1), (7, 4)),
    "softmax": (F.softmax, (6, 10)),
    "log_softmax": (F.log_softmax, (6, 5)),
    "cross_entropy": (lambda x: F.cross_entropy(x, np.arange(6) % 5, reduction="none"), (6, 5)),
}
FUNCTIONS = {name: function for function, name in audit.NAMES.items()}
ULPS, TOLERANCE = 10, 2e-3  # the planted error; what awkward cases allowed to float32 before there were bounds


def audited(function, shapes, seed):
    rng = np.random.default_rng(seed)
    with backends.backend("reference"), audit.Audit() as found:
        y = function(*(mr.tensor(rng.standard_normal(shape).astype(np.float32)) for shape in shapes))
    return y.data, found


def test_an_error_of_ten_units_in_the_last_place_is_found_where_the_tolerance_missed_it(monkeypatch, capsys):
    assert PLANTED.keys() == variants.OPERATIONS.keys()
    caught = []
    for operation, (function, *shapes) in PLANTED.items():
        right, found = audited(function, shapes, 4)
        assert found.ratio <= 1, operation
        cls = getattr(ops, FUNCTIONS[operation])
        forward = cls.forward
        unit = np.spacing(np.float32(np.sqrt(np.mean(np.square(right)))))  # of the output's scale

        def wrong(self, *arrays, forward=forward, unit=unit):
            y = np.array(forward(self, *arrays))
            y.flat[y.size // 2] += ULPS * unit
            return y

        with monkeypatch.context() as patch:
            patch.setattr(cls, "forward", wrong)
            y, found = audited(function, shapes, 4)
        assert not np.array_equal(y, right)
        assert (np.abs(y - right) <= TOLERANCE * (1 + np.abs(right))).all(), operation  # missed
        if found.ratio > 1:
            caught.append(operation)
    print(f"an error of {ULPS} ulp: found in {len(caught)} of {len(PLANTED)} operations, the tolerance finds 0")
    assert len(caught) >= 0.9 * len(PLANTED), set(PLANTED) - set(caught)


@pytest.mark.parametrize("backend", [name for name in HERE if name != "emulated"])
def test_every_node_of_a_network_and_its_logits_are_within_their_bounds(backend):
    mr.manual_seed(0)
    model = network.disturb(mr.models.create("resnet20", width=4), np.random.default_rng(0))
    images = np.random.default_rng(1).standard_normal((2, 3, 12, 11)).astype(np.float32)
    with backends.backend(backend):
        with audit.Audit(backend, backend) as whole:
            y = model(mr.tensor(images, requires_grad=True))
            y.backward(np.random.default_rng(2).standard_normal(y.shape).astype(np.float32))
        assert whole.ratio <= 1, max(whole.rows.values(), key=lambda row: row.ratio)
        with audit.Audit(backend, backend) as forward, mr.no_grad():
            model.eval()(mr.tensor(images))
        found = audit.logits(model, images, forward)
    assert found.error.shape == found.bound.shape == (2, 10)
    assert found.ratio <= 1
    assert (found.bound < 1e-2).all()  # not a bound that holds for everything
    assert model.layer1[0].conv1.weight.dtype == np.float32


def test_a_shape_or_a_number_that_is_not_finite_exceeds_every_bound():
    a = Arithmetic.of(np.float32)
    assert a.gamma(0) == 0
    for found in (np.full(3, np.nan, np.float32), np.zeros(4, np.float32), np.full(3, np.inf, np.float32)):
        row = audit.Row("add", "y")
        row.add(found, audit.Enclosure(np.zeros(3)), np.ones(3), "here")
        assert row.ratio == np.inf


@pytest.mark.parametrize("low", [-700.0, -1300.0, -1500.0, -2000.0])
@pytest.mark.parametrize("function", [F.softmax, F.log_softmax])
def test_probabilities_that_underflow_are_within_their_bounds(function, low):
    with backends.backend("reference"), audit.Audit() as found:
        x = mr.tensor(np.array([[0, low, 5]], np.float32), requires_grad=True)
        function(x).backward(np.array([[1, 2, 3]], np.float32))
    assert found.ratio <= 1


@pytest.mark.parametrize("function", [F.softmax, F.log_softmax])
def test_the_allowance_for_underflow_grows_with_the_gradient(function):
    with backends.backend("reference"), audit.Audit() as found:
        x = mr.tensor(np.array([[0, -100, -88, -103.9]], np.float32), requires_grad=True)
        function(x).backward(np.array([[1, 1, -1, 2]], np.float32) * np.float32(1e30))
    assert found.ratio <= 1


def test_three_products_in_tf32_have_a_bound_of_their_own():
    """The bound of one product in tf32 is 2⁻¹⁰."""
    a = Arithmetic.of(np.float32, "emulated", gemm="gemm_12_3xtf32")
    assert 3 * 2.0**-22 < a.products(1, np.ones(())) + 2 * a.multiplied < 2.0**-19
    assert a.products(100, np.ones(()), a.multiplied) >= a.gamma(300) + 3 * 2.0**-22
    assert Arithmetic.of(np.float32, "emulated", gemm="gemm_09_tf32").multiplied == 2.0**-11


def test_a_kernel_of_your_own_has_bounds():
    assert Arithmetic.of(np.float32, "emulated", gemm=Path("mine.cu")).multiplied == 0
    assert Arithmetic.of(np.float32, "emulated", conv2d=Path("mine_bf16.cu")).convolved == 2.0**-8


def test_the_command(capsys):
    assert cli.main(["verify", "--exact", "linear", "--backend", "reference", "--cases", "2"]) == 0
    out = capsys.readouterr().out
    assert "grad_weight" in out
    assert "within their bounds" in out
    assert cli.main(["verify", "--exact", "relu", "--backend", "reference", "--cases", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["passed"]
    assert {row["output"] for row in found["rows"]} == {"y", "grad_x"}


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--exact", "conv3d"], "must be an operation or a network"),
        (["--exact", "conv2d", "--backend", "cuda"], "--backend must be one of"),
        (["--exact", "conv2d", "--size", "8"], "--size cannot be given with --exact conv2d"),
        (["resnet20", "--exact", "--cases", "3"], "--cases cannot be given with --exact resnet20"),
        (["resnet20", "--exact", "relu"], "one thing"),
    ],
)
def test_wrong_usage(words, complaint, capsys):
    assert cli.main(["verify", *words]) == 2
    assert complaint in capsys.readouterr().err
