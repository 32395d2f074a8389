"""The classic mistakes in an operation of the reader's own end in an error that names the operation and the mistake."""

from __future__ import annotations

import re

import numpy as np
import pytest

import minires as mr
import minires.functional as F


def operation(forward, backward=lambda self, grad_output: 2 * grad_output, **attributes):
    own = {"forward": forward, "backward": backward, **attributes}
    return type("Own", (mr.Function,), own)


def leaf(dtype=np.float64):
    return mr.tensor(np.arange(1, 7, dtype=dtype).reshape(2, 3), requires_grad=True)


def double(self, x):
    return 2 * x


def differentiated(own, *inputs):
    y = own()(*inputs)
    y.backward(np.random.default_rng(0).standard_normal(y.shape))


def note(error):
    return " ".join(error.__notes__)


@pytest.mark.parametrize(
    ("forward", "message"),
    [
        (lambda self, x: [1.0, 2.0], "forward of Own must return an array, got list"),
        (lambda self, x: (x, x), "forward of Own must return an array, got tuple"),
        (lambda self, x: 3.0, "forward of Own must return an array, got float"),
        (lambda self, x: None, "forward of Own must return an array, got NoneType"),
        (lambda self, x: mr.tensor(x), r"got Tensor \(an operation computes with array functions, not with those of"),
        (lambda self, x: F.relu(x), r"got Tensor \(an operation computes with array functions"),
        (lambda self, x: x.astype(int), "forward of Own must return the dtype of its inputs, float64, got int64\n"),
        (lambda self, x: x * 1j, "forward of Own must return the dtype of its inputs, float64, got complex128\n"),
    ],
)
def test_what_forward_must_not_return(forward, message):
    with pytest.raises(TypeError, match=message) as raised:
        operation(forward)()(leaf())
    assert re.search(r"in forward of <Own\(\)>, called at .*test_own_function\.py:\d+", note(raised.value))


def test_a_numpy_number_that_turns_float32_into_float64():
    hint = r"float64 \(a NumPy number such as np\.sqrt\(2\.0\) turns float32 into float64, a Python number does not\)"
    with pytest.raises(TypeError, match=f"must return the dtype of its inputs, float32, got {hint}"):
        operation(lambda self, x: x * np.sqrt(2.0))()(leaf(np.float32))
    drifting = operation(double, lambda self, grad_output: grad_output * np.sqrt(4.0))
    with pytest.raises(RuntimeError, match=f"for input 0 an array of dtype {hint}; the input has float32"):
        differentiated(drifting, leaf(np.float32))
    differentiated(drifting, leaf(np.float64))


def test_what_forward_may_return():
    """A NumPy number is an array of shape (); unrecorded, an operation may also give integers."""
    assert operation(lambda self, x: x.sum())()(leaf()).shape == ()
    assert operation(lambda self, x: x.argmax(1))()(mr.tensor(np.ones((2, 3)))).dtype == np.int64
    assert operation(lambda self, i: i / 2)()(mr.tensor(np.arange(3))).dtype == np.float64


@pytest.mark.parametrize(
    ("backward", "message"),
    [
        (lambda self, g: g, "returned 1 gradients for 2 inputs; None stands for a gradient that is not needed"),
        (lambda self, g: (g, g, g), "returned 3 gradients for 2 inputs"),
        (lambda self, g: [g, g], "returned a list; several gradients are a tuple"),
        (lambda self, g: (g, g.sum(0)), r"returned for input 1 an array of shape \(3,\); the input has \(2, 3\)"),
        (lambda self, g: (g, 2.0), "returned for input 1 float, not an array"),
        (lambda self, g: (mr.tensor(g), g), "returned for input 0 Tensor .*, not an array"),
        (lambda self, g: (g.astype(int), g), "returned for input 0 an array of dtype int64; the input has float64"),
    ],
)
def test_what_backward_must_not_return(backward, message):
    with pytest.raises(
        RuntimeError, match=r"backward of <Own\(\): \(2, 3\), \(2, 3\) -> \(2, 3\)> " + message
    ) as raised:
        differentiated(operation(lambda self, a, b: a + b, backward), leaf(), leaf())
    assert "whose forward was called at" in note(raised.value)


@pytest.mark.parametrize(("dtype", "other"), [(np.float32, np.float64), (np.float64, np.float32)])
def test_a_gradient_has_the_dtype_of_its_own_input(dtype, other):
    def scaled(self, x, factor):
        self.saved = x, factor
        return x * factor.astype(x.dtype)

    def grads(self, grad_output):
        x, factor = self.saved
        return grad_output * factor.astype(x.dtype), (grad_output * x).astype(factor.dtype)

    x, factor = leaf(dtype), leaf(other)
    differentiated(operation(scaled, grads), x, factor)
    assert (x.grad.dtype, factor.grad.dtype) == (dtype, other)
    np.testing.assert_allclose(x.grad / factor.data, factor.grad / x.data, rtol=1e-6)
    found = f"input 1 an array of dtype {np.dtype(dtype)}.*; the input has {np.dtype(other)}"
    with pytest.raises(RuntimeError, match=found):
        differentiated(
            operation(scaled, lambda self, grad_output: (grad_output, grad_output)), leaf(dtype), leaf(other)
        )


def test_backward_of_what_forward_did_not_save():
    with pytest.raises(TypeError) as raised:
        differentiated(operation(double, lambda self, g: self.saved * g), leaf())
    assert note(raised.value).endswith(", and saved nothing")

    def keeps(self, x):
        self.saved = x
        return 2 * x

    with pytest.raises(TypeError) as raised:
        differentiated(operation(keeps, lambda self, g: self.saved + "2"), leaf())
    assert "saved nothing" not in note(raised.value)


def test_an_input_that_forward_changes():
    """What a tape saves is read-only, and gradcheck sees the rest."""

    def changing(self, x):
        x *= 2
        return x

    saved = F.relu(leaf())  # ReLU saves its output
    with pytest.raises(ValueError, match="read-only") as raised:
        operation(changing)()(saved)
    assert "in forward of <Own()>" in note(raised.value)
    with pytest.raises(mr.GradcheckError, match="fn changes its input 0 in place"):
        mr.gradcheck(lambda x: operation(changing)()(x), {"x": leaf().data})


def test_a_grad_output_that_backward_changes():
    def changing(self, grad_output):
        grad_output *= 2
        return grad_output

    with pytest.raises(mr.GradcheckError, match="fn's backward changes grad_output in place"):
        mr.gradcheck(lambda x: operation(double, changing)()(x), {"x": leaf().data})


def test_a_saved_array_that_is_changed_before_backward():
    def keeps(self, x):
        self.saved = x
        return 2 * x

    x = leaf()
    y = operation(keeps)()(x)
    with pytest.raises(ValueError, match="read-only"):
        x.data += 1
    del y


def test_options_need_no_super():
    def options(self, factor):
        self.factor = factor

    own = operation(lambda self, x: self.factor * x, lambda self, g: self.factor * g, __init__=options)
    assert mr.gradcheck(lambda x: own(3.0)(x), {"x": leaf().data})
    assert own(3.0)(leaf()).node.heading == "Own(factor=3.0)"


def test_a_node_is_one_call():
    node = operation(double)()
    node(leaf())
    with pytest.raises(RuntimeError, match="has been called already; a node is one call: make a new Own"):
        node(leaf())


def test_the_operation_itself_is_no_function_of_tensors():
    with pytest.raises(TypeError, match=r"Own\(\) takes no arguments"):
        operation(double)(leaf())
    with pytest.raises(TypeError, match=r"inputs\[0\] must be a Tensor or None, got ndarray"):
        operation(double)()(np.ones(3))


def test_a_missing_half():
    with pytest.raises(TypeError, match="Own defines no forward"):
        type("Own", (mr.Function,), {})()(leaf())
    with pytest.raises(TypeError, match="Own defines no backward"):
        differentiated(type("Own", (mr.Function,), {"forward": double}), leaf())
