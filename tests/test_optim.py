"""SGD against the update written out by hand, its errors, its memory; the schedules."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

import minires as mr
from minires.optim import SGD, Constant, Step, Warmup


def by_hand(p, grads, lr, momentum, weight_decay, nesterov, dampening):
    """PyTorch's documentation of SGD, line by line."""
    v = None
    for g in grads:
        g = g + weight_decay * p
        if momentum:
            v = g if v is None else momentum * v + (1 - dampening) * g
            g = g + momentum * v if nesterov else v
        p = p - lr * g
    return p


OPTIONS = [
    (0.0, 0.0, False, 0.0),
    (0.0, 0.3, False, 0.0),
    (0.9, 0.0, False, 0.0),
    (0.9, 1e-2, False, 0.0),
    (0.9, 1e-2, False, 0.4),
    (0.5, 0.0, False, 1.0),
    (0.9, 1e-2, True, 0.0),
    (0.9, 0.0, True, 0.0),
]


@pytest.mark.parametrize(("momentum", "weight_decay", "nesterov", "dampening"), OPTIONS)
def test_update(rng, momentum, weight_decay, nesterov, dampening):
    shapes = [(7,), (3, 2, 5, 1), ()]
    start = [rng.standard_normal(shape) for shape in shapes]
    params = [mr.tensor(np.array(a), requires_grad=True) for a in start]
    arrays = [p.data for p in params]
    opt = SGD(params, lr=0.1, momentum=momentum, weight_decay=weight_decay, nesterov=nesterov, dampening=dampening)
    grads = [[rng.standard_normal(shape) for shape in shapes] for _ in range(4)]
    for step in grads:
        for p, g in zip(params, step, strict=True):
            p.grad = np.array(g)
        opt.step()
        for p, g in zip(params, step, strict=True):
            np.testing.assert_array_equal(p.grad, g)  # gradients are read, not written
    for i, p in enumerate(params):
        assert p.data is arrays[i]  # in place
        expected = by_hand(start[i], [step[i] for step in grads], 0.1, momentum, weight_decay, nesterov, dampening)
        # Four steps in float64, a few roundings each.
        np.testing.assert_allclose(p.data, expected, rtol=1e-13, atol=1e-14)


def test_lr_is_an_attribute_and_stands_outside_of_the_velocity():
    p = mr.tensor(np.zeros(1), requires_grad=True)
    opt = SGD([p], lr=1.0, momentum=0.5)
    p.grad = np.ones(1)
    opt.step()  # v = 1, p = −1
    opt.lr = 0.1
    opt.step()  # v = 1.5, p = −1.15
    np.testing.assert_allclose(p.data, [-1.15], rtol=1e-15)


def test_parameters_without_gradient_stay():
    moved, frozen = (mr.tensor(np.ones(3), requires_grad=True) for _ in range(2))
    opt = SGD([moved, frozen], lr=0.1, momentum=0.9, weight_decay=0.5)
    moved.grad = np.ones(3)
    opt.step()
    assert (frozen.data == 1).all()
    assert (moved.data != 1).all()
    assert set(opt.state_dict()) == {"velocity.0"}
    other = SGD([frozen, moved], lr=0.1, momentum=0.9)
    other.step()
    assert set(other.state_dict()) == {"velocity.1"}  # by the parameter's position
    opt.zero_grad()
    assert moved.grad is None


def test_float32_stays_float32():
    p = mr.tensor(np.ones(3, np.float32), requires_grad=True)
    opt = SGD([p], lr=np.float64(0.1), momentum=0.9, weight_decay=0.1, nesterov=True)
    p.grad = np.ones(3, np.float32)
    opt.step()
    assert p.dtype == np.float32
    assert opt.state_dict()["velocity.0"].dtype == np.float32


def test_a_step_allocates_nothing_once_warm():
    params = [mr.tensor(np.ones(200_000, np.float32), requires_grad=True) for _ in range(3)]
    opt = SGD(params, lr=0.1, momentum=0.9, weight_decay=1e-4)
    for p in params:
        p.grad = np.ones(200_000, np.float32)
    opt.step()
    tracemalloc.start()
    opt.step()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak <= 20_000  # an array of these parameters has 800,000 bytes


def test_state_goes_on_where_it_was(rng):
    grads = rng.standard_normal((6, 4))

    def run(steps, p, opt):
        for g in steps:
            p.grad = g.copy()
            opt.step()

    one = mr.tensor(np.ones(4), requires_grad=True)
    whole = SGD([one], lr=0.1, momentum=0.9, weight_decay=0.01)
    run(grads, one, whole)

    two = mr.tensor(np.ones(4), requires_grad=True)
    first = SGD([two], lr=0.1, momentum=0.9, weight_decay=0.01)
    run(grads[:3], two, first)
    second = SGD([two], lr=0.1, momentum=0.9, weight_decay=0.01)
    state = first.state_dict()
    second.load_state_dict(state)
    run(grads[3:], two, second)
    np.testing.assert_array_equal(one.data, two.data)
    assert not np.shares_memory(state["velocity.0"], second.state_dict()["velocity.0"])


@pytest.mark.parametrize(
    "state",
    [
        {"velocity.1": np.ones(4)},
        {"velocity.0": np.ones(5)},
        {"velocity.0": np.ones(4, np.float32)},
        {"weight": np.ones(4)},
    ],
)
def test_state_that_does_not_fit_changes_nothing(state):
    p = mr.tensor(np.ones(4), requires_grad=True)
    opt = SGD([p], lr=0.1, momentum=0.9)
    p.grad = np.ones(4)
    opt.step()
    before = opt.state_dict()["velocity.0"].copy()
    with pytest.raises(ValueError, match=r"velocity|weight"):
        opt.load_state_dict(state)
    np.testing.assert_array_equal(opt.state_dict()["velocity.0"], before)


def leaf():
    return mr.tensor(np.ones(2), requires_grad=True)


@pytest.mark.parametrize(
    ("make", "error", "named"),
    [
        (lambda: SGD([leaf()], lr=-0.1), ValueError, "lr"),
        (lambda: SGD([leaf()], lr=float("nan")), ValueError, "lr"),
        (lambda: SGD([leaf()], lr="0.1"), TypeError, "lr"),
        (lambda: SGD([leaf()], lr=0.1, momentum=-1), ValueError, "momentum"),
        (lambda: SGD([leaf()], lr=0.1, weight_decay=-1), ValueError, "weight_decay"),
        (lambda: SGD([leaf()], lr=0.1, dampening=2), ValueError, "dampening"),
        (lambda: SGD([leaf()], lr=0.1, nesterov=True), ValueError, "nesterov"),
        (lambda: SGD([leaf()], lr=0.1, nesterov=True, momentum=0.9, dampening=0.1), ValueError, "nesterov"),
        (lambda: SGD([], lr=0.1), ValueError, "params"),
        (lambda: SGD(leaf(), lr=0.1), TypeError, "params"),
        (lambda: SGD([leaf(), np.ones(2)], lr=0.1), TypeError, r"params\[1\]"),
        (lambda: SGD([leaf() * 2.0], lr=0.1), ValueError, r"params\[0\]"),
        (lambda: SGD([mr.tensor(np.ones(2, int))], lr=0.1), TypeError, r"params\[0\]"),
        (lambda: SGD([leaf()] * 2, lr=0.1), ValueError, "twice"),
        (lambda: Constant(-1.0), ValueError, "lr"),
        (lambda: Step(0.1, (5, 3)), ValueError, "milestones"),
        (lambda: Step(0.1, (2.5,)), TypeError, "milestones"),
        (lambda: Step(0.1, (2,), factor=-1), ValueError, "factor"),
        (lambda: Step.at(0.1, (1.5,), 100), TypeError, "milestones"),
        (lambda: Warmup(Constant(0.1), lr=-1), ValueError, "lr"),
        (lambda: Warmup(Constant(0.1), iterations=-1), ValueError, "iterations"),
        (lambda: Warmup(Constant(0.1), until_error=101), ValueError, "until_error"),
    ],
)
def test_errors_name_the_argument(make, error, named):
    with pytest.raises(error, match=named):
        make()


def test_gradient_of_another_shape():
    p = leaf()
    p.grad = np.ones((2, 1))
    with pytest.raises(ValueError, match=r"params\[0\]"):
        SGD([p], lr=0.1).step()


def test_step_schedule_of_the_paper():
    schedule = Step.at(0.1, (0.5, 0.75), 64_000)
    assert schedule.milestones == (32_000, 48_000)
    rates = [schedule(i) for i in (0, 31_999, 32_000, 47_999, 48_000, 63_999)]
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001], rel=1e-12)
    assert Step.at(0.1, (32_000, 48_000), 64_000) == schedule
    assert Constant(0.3)(10**9) == 0.3


def test_warmup_of_fixed_length():
    schedule = Warmup(Step(0.1, (1000,)), iterations=400)
    assert [schedule(i) for i in (0, 399, 400, 999)] == [0.01, 0.01, 0.1, 0.1]
    assert schedule(1000) == pytest.approx(0.01)
    for i in range(100):
        schedule.observe(i, 10.0)  # which ends a warm-up of open length alone
    assert schedule(399) == 0.01


def test_milestones_are_rounded():
    assert Step.at(0.1, (1 / 3, 2 / 3), 100).milestones == (33, 67)


def test_warmup_until_the_training_error_falls_and_resuming_amid_it(rng):
    errors = np.clip(95 - 0.2 * np.arange(200) + rng.standard_normal(200), 0, 100)
    whole = Warmup(Constant(0.1))
    rates = []
    for i, error in enumerate(errors):
        rates.append(whole(i))
        whole.observe(i, error)
    first_below = next(i for i in range(49, 200) if np.mean(errors[i - 49 : i + 1]) < 80)
    assert rates == [0.01] * (first_below + 1) + [0.1] * (200 - first_below - 1)

    for cut in (30, first_below, first_below + 1, 150):
        first, second = Warmup(Constant(0.1)), Warmup(Constant(0.1))
        for i in range(cut):
            first.observe(i, errors[i])
        second.load_state_dict(first.state_dict())
        resumed = []
        for i in range(cut, 200):
            resumed.append(second(i))
            second.observe(i, errors[i])
        assert resumed == rates[cut:]


def test_foreign_schedule_state():
    with pytest.raises(ValueError, match="Warmup"):
        Warmup(Constant(0.1)).load_state_dict({})
    with pytest.raises(ValueError, match="Constant"):
        Constant(0.1).load_state_dict({"ends": 3})


def test_a_read_only_parameter_moves_nothing(rng):
    params = [mr.tensor(rng.standard_normal(3), requires_grad=True) for _ in range(2)]
    for p in params:
        p.grad = np.ones(3)
    params[1].data.flags.writeable = False
    before = params[0].data.copy()
    with pytest.raises(ValueError, match=r"params\[1\] is a read-only array; nothing was moved"):
        mr.optim.SGD(params, 0.1).step()
    np.testing.assert_array_equal(params[0].data, before)


def test_a_state_that_is_none():
    sgd = mr.optim.SGD([mr.tensor(np.ones(3), requires_grad=True)], 0.1)
    with pytest.raises(TypeError, match="state must map names to arrays, got list"):
        sgd.load_state_dict([1])
    with pytest.raises(TypeError, match=r"velocity\.0 must be an array, got str"):
        sgd.load_state_dict({"velocity.0": "x"})


def adam_after(rng, steps, opt, params):
    for _ in range(steps):
        for p in params:
            p.grad = rng.standard_normal(p.shape)
        opt.step()


def test_adam_resumes_from_its_state():
    grads, other = np.random.default_rng(1), np.random.default_rng(1)
    whole = [mr.tensor(np.ones(shape), requires_grad=True) for shape in ((2, 3), ())]
    adam_after(grads, 5, mr.optim.Adam(whole, 0.1, weight_decay=0.1), whole)
    parts = [mr.tensor(np.ones(shape), requires_grad=True) for shape in ((2, 3), ())]
    first = mr.optim.Adam(parts, 0.1, weight_decay=0.1)
    adam_after(other, 2, first, parts)
    second = mr.optim.Adam(parts, 0.1, weight_decay=0.1)
    state = first.state_dict()
    assert int(state["step.0"]) == 2
    second.load_state_dict(state)
    state["exp_avg.0"][...] = 99  # what was loaded is a copy
    adam_after(other, 3, second, parts)
    for a, b in zip(whole, parts, strict=True):
        np.testing.assert_array_equal(a.data, b.data)


def test_adam_moves_in_place_and_leaves_gradients_alone(rng):
    p = mr.tensor(rng.standard_normal((3, 2)), requires_grad=True)
    array, p.grad = p.data, rng.standard_normal((3, 2))
    kept = p.grad.copy()
    adam = mr.optim.Adam([p], weight_decay=0.5)
    adam.step()
    assert p.data is array
    np.testing.assert_array_equal(p.grad, kept)
    p.data.flags.writeable = False
    with pytest.raises(ValueError, match=r"params\[0\] is a read-only array; nothing was moved"):
        adam.step()
    assert int(adam.state_dict()["step.0"]) == 1


@pytest.mark.parametrize(
    ("state", "error", "message"),
    [
        ({"exp_avg.0": np.ones(3)}, ValueError, "state must hold step.0, exp_avg.0 and exp_avg_sq.0 together"),
        ({"velocity.0": np.ones(3)}, ValueError, "'velocity.0', which fits none"),
        ({"step.1": np.array(1)}, ValueError, "'step.1', which fits none"),
        ({"step.0": np.array(0)}, ValueError, "step.0 must be an integer of shape \\(\\), at least 1"),
        ({"step.0": np.array(1.0)}, ValueError, "step.0 must be an integer"),
        ({"step.0": 1}, TypeError, "step.0 must be an array, got int"),
        ({"exp_avg.0": np.ones(2)}, ValueError, r"exp_avg.0 must be float64 \(3,\) like its parameter"),
    ],
)
def test_a_state_that_does_not_fit_adam(state, error, message):
    adam = mr.optim.Adam([mr.tensor(np.ones(3), requires_grad=True)])
    with pytest.raises(error, match=message):
        adam.load_state_dict(state)
    assert adam.state_dict() == {}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"betas": 0.9}, "betas must be a pair"),
        ({"betas": (0.9, 1.0)}, "betas must be below 1"),
        ({"betas": (-0.1, 0.9)}, "betas must be at least 0"),
        ({"eps": -1}, "eps must be at least 0"),
        ({"weight_decay": -1}, "weight_decay must be at least 0"),
        ({"lr": -1}, "lr must be at least 0"),
    ],
)
def test_adams_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        mr.optim.Adam([mr.tensor(np.ones(3), requires_grad=True)], **options)
