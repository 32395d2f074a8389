"""One number explained: the terms make the recorded number, and a wrong number is noticed."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from usage import error_line

import minires as mr
import minires.functional as F
from minires.inspect import explain, record


def leaf(rng, *shape, dtype=np.float64):
    return mr.tensor(rng.standard_normal(shape).astype(dtype), requires_grad=True)


def running(C):
    return np.linspace(-0.5, 0.5, C), np.linspace(0.5, 2, C)


CASES = {
    "conv2d": lambda a: F.conv2d(a(2, 4, 7, 6), a(6, 4, 3, 2), a(6), stride=(2, 1), padding=(1, 0)),
    "dilated": lambda a: F.conv2d(a(2, 4, 7, 9), a(6, 2, 3, 3), None, padding=2, dilation=(1, 2), groups=2),
    "batch norm": lambda a: F.batch_norm(a(3, 4, 5, 2), None, None, a(4), a(4), training=True),
    "without weight": lambda a: F.batch_norm(a(3, 4, 5, 2), None, None, training=True),
    "evaluation": lambda a: F.batch_norm(a(3, 4, 5, 2), *running(4), a(4), a(4)),
    "relu": lambda a: F.relu(a(2, 3, 4)),
    "add": lambda a: a(2, 3, 4, 4) + a(2, 3, 4, 4),
    "broadcast": lambda a: a(2, 3, 4, 4) + a(3, 1, 4),
    "linear": lambda a: F.linear(a(3, 5), a(4, 5), a(4)),
    "max pool": lambda a: F.max_pool2d(a(2, 3, 7, 6), 3, 2, 1, ceil_mode=True),
    "dilated pool": lambda a: F.max_pool2d(a(2, 3, 7, 8), 2, 1, 0, dilation=2),
    "average": lambda a: F.avg_pool2d(a(2, 3, 7, 6), 3, 2, 1, ceil_mode=True),
    "average inside": lambda a: F.avg_pool2d(a(2, 3, 7, 6), 3, 2, 1, count_include_pad=False),
    "adaptive": lambda a: F.adaptive_avg_pool2d(a(2, 3, 7, 5), (3, 2)),
    "global": lambda a: F.adaptive_avg_pool2d(a(2, 3, 7, 5), 1),
}


def recorded(case, rng, dtype=np.float64, backend="reference"):
    with mr.backend(backend), record() as calls:
        y = CASES[case](lambda *shape: leaf(rng, *shape, dtype=dtype))
        y.backward(rng.standard_normal(y.shape).astype(dtype))
    return calls[0]


def everything(call):
    """An explanation of each output, and of each number of each gradient."""
    for index in itertools.product(*map(range, call.output.shape)):
        yield explain(call, output=index)
    for of, grad in call.grads.items():
        for index in itertools.product(*map(range, grad.shape)):
            yield explain(call, gradient=index, of=of)


@pytest.mark.parametrize("case", CASES)
def test_the_terms_make_every_output_and_every_gradient(case, rng):
    call = recorded(case, rng)
    assert set(call.grads) == set(call.inputs)
    for found in everything(call):
        assert found.agrees, found
        assert found.bound < 1e-10
        assert abs(found.total - found.recorded) < 1e-12 * max(1, sum(abs(term.value) for term in found.terms))


@pytest.mark.parametrize("case", ["conv2d", "batch norm", "linear", "max pool", "average"])
def test_float32_stays_within_the_bound(case, rng):
    for found in everything(recorded(case, rng, np.float32, backend=mr.backends.active().name)):
        assert found.agrees, found


def test_the_bound_of_batch_norm_includes_the_error_of_its_mean(rng):
    x = mr.tensor((1000 + rng.standard_normal((4, 3, 4, 2))).astype(np.float32), requires_grad=True)
    with mr.backend("reference"), record() as calls:
        y = F.batch_norm(x, None, None, leaf(rng, 3, dtype=np.float32), leaf(rng, 3, dtype=np.float32), training=True)
        y.backward(rng.standard_normal(y.shape).astype(np.float32))
    for found in everything(calls[0]):
        assert found.agrees, found
        assert found.bound < 1


WRONG = {  # case -> what backward might have returned instead, and of which input
    "conv2d": ("x", lambda call: F_conv_unflipped(call)),
    "dilated": ("weight", lambda call: call.grads["weight"][..., ::-1, :]),
    "batch norm": ("x", lambda call: call.grads["x"] + call.grad_output.mean()),  # the mean's term dropped
    "relu": ("x", lambda call: call.grad_output),
    "add": ("x", lambda call: 0.5 * call.grad_output),
    "broadcast": ("other", lambda call: call.grads["other"] / 2),
    "linear": ("weight", lambda call: call.grads["weight"] / 3),
    "max pool": ("x", lambda call: np.roll(call.grads["x"], 1, axis=3)),
    "average": ("x", lambda call: call.grads["x"] * 9),
    "evaluation": ("x", lambda call: call.grads["x"] - call.grads["x"].mean()),
}


def F_conv_unflipped(call):
    with mr.backend("reference"), record() as calls:
        x, w = (mr.tensor(call.inputs[name], requires_grad=True) for name in ("x", "weight"))
        flipped = mr.tensor(w.data[..., ::-1, ::-1].copy(), requires_grad=True)
        y = F.conv2d(x, flipped, None, stride=(2, 1), padding=(1, 0))
        y.backward(call.grad_output)
    return calls[0].grads["x"]


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_gradient_is_noticed(case, rng):
    call = recorded(case, rng)
    of, wrong = WRONG[case]
    right = call.grads[of]
    call.grads[of] = wrong(call)
    assert call.grads[of].shape == right.shape
    different = [index for index in np.ndindex(right.shape) if abs(call.grads[of][index] - right[index]) > 1e-9]
    assert different
    assert not any(explain(call, gradient=index, of=of).agrees for index in different)


@pytest.mark.parametrize("case", CASES)
def test_a_wrong_output_is_noticed(case, rng):
    call = recorded(case, rng)
    call.output = call.output * (1 + 1e-9)
    index = np.unravel_index(np.argmax(np.abs(call.output)), call.output.shape)
    assert not explain(call, output=tuple(map(int, index))).agrees


def test_the_text_names_the_window_the_sum_and_the_total(rng):
    call = recorded("conv2d", rng)
    text = str(explain(call, output=(0, 5, 1, 1)))
    assert text.startswith("output[0, 5, 1, 1] of Conv2d\n")
    x, w = call.inputs["x"], call.inputs["weight"]
    assert "x[0,2,1,1] · weight[5,2,0,0]" in text
    assert f"{x[0, 2, 1, 1]:.6g} · {w[5, 2, 0, 0]:.6g}" in text
    assert f"recorded {float(call.output[0, 5, 1, 1])!r}" in text
    assert "∂x" in str(explain(call, gradient=(0, 1, 2, 2)))
    assert explain(call, output=(0, 5, 1, 1))._repr_html_().startswith("<pre>output")


def test_max_pooling_names_the_winner_and_batch_norm_its_three_terms(rng):
    call = recorded("max pool", rng)
    index = (1, 2, 1, 1)
    (term,) = explain(call, output=index).terms
    assert term.factors == (call.output[index],)
    assert len(explain(recorded("batch norm", rng), gradient=(0, 1, 2, 1)).terms) == 3
    assert len(explain(recorded("evaluation", rng), gradient=(0, 1, 2, 1)).terms) == 1


def test_nan_is_explained_by_nan(rng):
    x = leaf(rng, 1, 1, 4, 4)
    x.data[0, 0, 1, 1] = np.nan
    with mr.backend("reference"), record() as calls:
        F.max_pool2d(x, 2)
    found = explain(calls[0], output=(0, 0, 0, 0))
    assert found.agrees
    assert np.isnan(found.total)


def test_a_trace_keeps_the_arrays_of_its_events(rng, monkeypatch):
    mr.manual_seed(0)
    model = mr.models.create("resnet20", width=4)
    x = rng.standard_normal((2, 3, 8, 8)).astype(np.float32)
    trace = mr.inspect.trace(model, x, np.array([1, 2]))
    for event in trace.events:
        call = event.call
        if event.phase == "backward" and event.operation in ("Conv2d", "BatchNorm", "ReLU", "Add", "Linear"):
            for of, grad in call.grads.items():
                assert explain(event, gradient=(0,) * grad.ndim, of=of).recorded == grad[(0,) * grad.ndim]
    model.conv1.weight.data[...] = 0  # the trace has its own copy
    assert explain(trace.events[0], output=(0, 1, 2, 3)).agrees
    monkeypatch.setattr("minires.inspect.tracing.tracer.KEPT", 0)
    with pytest.raises(ValueError, match="the trace kept no arrays of this event"):
        explain(mr.inspect.trace(model, x, np.array([1, 2])).events[0], output=(0, 0, 0, 0))


def test_what_cannot_be_explained_is_an_error(rng):
    call = recorded("conv2d", rng)
    with pytest.raises(ValueError, match=r"output must lie inside the shape \(2, 6, 4, 5\), got \(0, 6, 0, 0\)"):
        explain(call, output=(0, 6, 0, 0))
    with pytest.raises(ValueError, match="output must be an index of 4 integers"):
        explain(call, output=(0, 6))
    with pytest.raises(ValueError, match="give either output or gradient"):
        explain(call)
    with pytest.raises(ValueError, match="of must be one of x, weight, bias, got 'y'"):
        explain(call, gradient=(0, 0, 0, 0), of="y")
    with record() as calls:
        F.softmax(leaf(rng, 2, 3))
    with pytest.raises(TypeError, match="Softmax has no explanation"):
        explain(calls[0], output=(0, 0))
    with record("Conv2d") as calls, mr.no_grad():
        F.relu(F.conv2d(leaf(rng, 1, 1, 3, 3), leaf(rng, 1, 1, 3, 3)))
    assert [found.operation for found in calls] == ["Conv2d"]
    with pytest.raises(ValueError, match="the gradient of x was not computed"):
        explain(calls[0], gradient=(0, 0, 0, 0))


def test_the_command_explains_an_output_and_gradients(call):
    code, out, _ = call("step", "resnet20", "--width", "4", "--at", "layer1.0.conv1", "--explain", "0,2,3,3")
    assert code == 0
    assert "output[0, 2, 3, 3] of Conv2d of layer1.0.conv1" in out
    assert "within the bound" in out
    where = ("step", "resnet20", "--width", "4", "--at", "layer1.0.bn1", "--when", "backward")
    code, out, _ = call(*where, "--explain", "0,2,3,3")
    assert (code, "∂x[0, 2, 3, 3] of BatchNorm" in out) == (0, True)
    code, out, _ = call(*where, "--explain", "weight:2")
    assert (code, "∂weight[2] of BatchNorm" in out) == (0, True)
    code, _, err = call(*where, "--explain", "0,2,3,99")
    assert (code, "must lie inside the shape" in error_line(err)) == (2, True)
    code, _, err = call(*where, "--explain", "two")
    assert (code, "must be integers joined by commas" in error_line(err)) == (2, True)
    code, _, err = call("step", "resnet20", "--at", "layer9", "--explain", "0,0,0,0")
    assert (code, "no operation is at 'layer9'" in error_line(err)) == (2, True)
