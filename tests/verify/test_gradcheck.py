"""gradcheck finds wrong gradients, distinguishes them from kinks, and reports the element."""

from __future__ import annotations

import numpy as np
import pytest

import minires as mr
import minires.functional as F
from minires.autograd import Function
from minires.verify import GradcheckError, gradcheck
from minires.verify.taylor import remainder


class Scaled(Function):
    """x², whose gradient is wrong by `factor`, at one index or everywhere."""

    def __init__(self, factor, index=...):
        self.factor, self.index = factor, index

    def forward(self, x):
        self.saved = x
        return x * x

    def backward(self, grad_output):
        grad = 2 * self.saved * grad_output
        grad[self.index] *= self.factor
        return grad


@pytest.mark.parametrize("mode", ["full", "projected", "taylor"])
def test_right_gradients_pass(rng, mode):
    x, w = rng.standard_normal((2, 3, 5, 4)), rng.standard_normal((4, 3, 3, 2))
    assert gradcheck(lambda x, w: F.relu(F.conv2d(x, w, padding=1)), [x, w], mode=mode, seed=3)


@pytest.mark.parametrize("mode", ["full", "projected", "taylor"])
@pytest.mark.parametrize("factor", [-7.0, 0.0, -1.0, 1.001, np.nan, np.inf])
def test_a_wrong_gradient_fails(rng, factor, mode):
    with pytest.raises(GradcheckError):
        gradcheck(lambda x: Scaled(factor)(x), rng.standard_normal((3, 4)), mode=mode)


def test_the_failure_names_input_index_and_both_numbers(rng):
    x = np.full((2, 3), 1.5)
    with pytest.raises(GradcheckError) as failure:
        gradcheck(lambda a, b: a + Scaled(3.0, (1, 2))(b), {"a": x, "b": x}, seed=1)
    text = str(failure.value)
    assert "input 1 (b)" in text
    assert "index (1, 2)" in text
    assert ", both of Σ y · c for a random cotangent c, tolerance " in text
    numerical, analytical = (float(text.split(f"{word} ")[1].split(",")[0]) for word in ("numerical", "analytical"))
    assert analytical / numerical == pytest.approx(3, rel=1e-6)


def test_a_point_on_a_kink_is_moved():
    assert gradcheck(F.relu, np.zeros((2, 3)))
    assert gradcheck(lambda x: F.max_pool2d(x, 2), np.ones((1, 2, 4, 4)))


def test_many_kinks_at_once():
    """Zeros through a convolution and ReLU: every output is on its kink, and each input moves several of them."""
    w = np.random.default_rng(0).standard_normal((3, 2, 3, 3))
    assert gradcheck(lambda x: F.relu(F.conv2d(x, mr.tensor(w), padding=1)), np.zeros((1, 2, 4, 3)))


def test_a_kink_does_not_hide_a_wrong_gradient():
    x = np.array([0.0, 1.0, 2.0])  # the kink of relu at index 0, the bug at index 2
    with pytest.raises(GradcheckError, match=r"index \(2,\)"):
        gradcheck(lambda x: F.relu(x) + Scaled(2.0, 2)(x), x)


def test_a_kink_that_is_never_left_is_not_passed():
    with pytest.raises(GradcheckError, match="after 0 redraws the inputs still lie on a kink"):
        gradcheck(F.relu, np.zeros(3), redraws=0)


def test_inputs_are_restored(rng):
    x = rng.standard_normal((3, 4))
    kept = x.copy()
    held = mr.tensor(x.copy(), requires_grad=True)
    held.grad = np.ones((3, 4))
    gradcheck(lambda x, held: x * held, [x, held])
    np.testing.assert_array_equal(x, kept)
    np.testing.assert_array_equal(held.data, kept)
    np.testing.assert_array_equal(held.grad, np.ones((3, 4)))


def test_a_whole_network_projected(rng):
    model = mr.models.create("resnet20", num_classes=3, width=4).astype("float64")
    x = mr.tensor(rng.standard_normal((3, 3, 8, 8)))
    assert gradcheck(lambda *_: model(x), dict(model.named_parameters()), mode="projected", directions=1)


@pytest.mark.parametrize(
    ("fn", "message"),
    [
        (lambda x: mr.tensor(np.ones(3)) + mr.tensor(x.data), "depends on none of the inputs"),
        (lambda x: F.dropout(x, 0.5), "not deterministic"),
        (lambda x: 1, "must return a Tensor"),
        (lambda x: x * float("inf"), "not finite"),
        (lambda x: mr.tensor(np.float32([1]), requires_grad=True) * 1.0, "float64"),
    ],
)
def test_functions_that_cannot_be_checked(fn, message):
    with pytest.raises(GradcheckError, match=message):
        gradcheck(fn, np.array([1.0, 2.0, 3.0]))


def test_a_function_that_changes_its_input():
    def before(x):
        x.data += 1
        return x * 2.0

    def after(x):
        y = x * 2.0
        x.data += 1
        return y

    with pytest.raises(GradcheckError, match="changes its input 0"):
        gradcheck(before, np.ones(3))
    with pytest.raises(ValueError, match="read-only"):  # the tape needs it
        gradcheck(after, np.ones(3))


def test_inputs_are_restored_while_an_error_keeps_the_tape():
    x = mr.tensor(np.array([1.0, 2.0]), requires_grad=True)
    tapes = []

    def fn(x):
        y = x * x
        tapes.append(y)
        if len(tapes) == 2:
            raise ZeroDivisionError
        return y

    with pytest.raises(ZeroDivisionError):
        gradcheck(fn, [x])
    assert x.data.tolist() == [1.0, 2.0]


def test_an_input_without_influence_is_reported(rng):
    with pytest.raises(GradcheckError, match="does not depend on input 1"):
        gradcheck(lambda a, b: a * 2.0, [rng.standard_normal(3), rng.standard_normal(3)])


def test_an_input_that_the_tape_lost(rng):
    with pytest.raises(GradcheckError, match="backward gives that input no gradient"):
        gradcheck(lambda a, b: a * mr.tensor(b.data), [rng.standard_normal(3), rng.standard_normal(3)])


def test_labels_are_passed_on(rng):
    labels = np.array([0, 2, 1])
    assert gradcheck(F.cross_entropy, [rng.standard_normal((3, 4)), labels])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eps": 0}, "eps"),
        ({"eps": float("nan")}, "eps"),
        ({"rtol": -1}, "rtol"),
        ({"atol": "a"}, "atol"),
        ({"seed": -1}, "seed"),
        ({"mode": "fast"}, "mode"),
        ({"directions": 0}, "directions"),
        ({"redraws": -1}, "redraws"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        gradcheck(F.relu, np.ones(3), **options)


def test_wrong_inputs():
    with pytest.raises(ValueError, match="inputs must hold"):
        gradcheck(F.relu, [np.array([1, 2])])
    with pytest.raises(TypeError, match="float64"):
        gradcheck(F.relu, mr.tensor(np.ones(3, np.float32), requires_grad=True))
    with pytest.raises(ValueError, match="leaf"):
        gradcheck(F.relu, mr.tensor(np.ones(3), requires_grad=True) * 2.0)


def test_a_wrong_direction_is_narrowed_to_one_element(rng):
    """Projected mode names an element, be the mistake in one alone."""
    x = rng.standard_normal((5, 7, 3))
    with pytest.raises(GradcheckError) as failure:
        gradcheck(lambda x: Scaled(-2.0, (3, 2, 1))(x), {"x": x}, mode="projected", directions=1)
    error = failure.value
    assert (error.input, error.index) == ("input 0 (x)", (3, 2, 1))
    assert error.analytical / error.numerical == pytest.approx(-2, rel=1e-5)


def test_many_units_cross_their_kinks_along_a_direction(rng):
    """Every step moves some of a million ReLUs across a kink, which must neither fail nor hide a wrong gradient."""
    w = rng.standard_normal((4, 1_000_000)) * 100
    x = rng.standard_normal(4)
    tensor = mr.tensor(w.T.copy())
    assert gradcheck(lambda x: F.relu(F.linear(x, tensor)), x, mode="projected")
    with pytest.raises(GradcheckError):
        gradcheck(lambda x: F.relu(F.linear(Scaled(1.001)(x), tensor)), x, mode="projected")


def test_steep_functions_need_short_steps(rng):
    x = 1 + rng.random(5)
    assert gradcheck(lambda x: x * x * x * 1e8 * x, x, mode="projected")


def test_the_order_of_the_remainder_is_two_for_a_right_gradient_and_one_for_a_wrong_one():
    for error, order in ((0.0, 2), (1e-4, 1)):
        found = remainder(lambda h: np.exp(1 + h) - np.e, np.e * (1 + error), 1e-15)
        assert found.order == pytest.approx(order, abs=0.05)
        assert found.right == (order == 2)
    assert remainder(lambda h: 3 * h, 3.0, 1e-15).right  # a linear function has no remainder


def test_taylor_reports_the_order_and_judges_where_differences_cannot(rng):
    x = rng.standard_normal((3, 4))
    with pytest.raises(GradcheckError, match=r"falls as h\^1\.0\d, a right gradient's as h²"):
        gradcheck(lambda x: Scaled(1.001)(x), x, mode="taylor")
    with pytest.raises(GradcheckError, match=r"falls as h\^1\.0\d, a right gradient's as h²"):
        gradcheck(lambda x: Scaled(1.5)(x), x)
    # 1e9 hides the function's change at eps: the difference's tolerance exceeds the gradient, and everything passes.
    assert gradcheck(lambda x: Scaled(1.5)(x) + 1e9, x)
    with pytest.raises(GradcheckError, match="Taylor"):
        gradcheck(lambda x: Scaled(1.5)(x) + 1e9, x, mode="taylor")
    assert gradcheck(lambda x: Scaled(1.0)(x) + 1e9, x, mode="taylor")


def test_a_remainder_that_is_not_finite_is_not_right():
    for wrong in (np.nan, np.inf):
        assert not remainder(lambda h: np.exp(1 + h) - np.e, wrong, 1e-15).right
        assert not remainder(lambda h, wrong=wrong: wrong, 1.0, 1e-15).right


def test_a_change_that_rounding_hides_differs_from_a_linear_one(rng):
    assert not remainder(lambda h: 3 * h, 3.0, 1e-15).hidden
    assert not remainder(lambda h: 0.0, 0.0, 1e-15).hidden
    assert remainder(lambda h: 0.0, 3.0, 1.0).hidden
    with pytest.raises(GradcheckError, match="nothing was checked: rounding of fn's output"):
        gradcheck(lambda x: Scaled(1.5)(x) + 1e20, rng.standard_normal((3, 4)), mode="taylor")


def test_taylor_moves_away_from_kinks(rng):
    assert gradcheck(F.relu, np.zeros((2, 3)), mode="taylor")
    assert gradcheck(lambda x: F.max_pool2d(x, 2), np.ones((1, 2, 4, 4)), mode="taylor")
