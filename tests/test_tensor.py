"""Tensor: what it takes, what it keeps, how it prints, and its operators."""

from __future__ import annotations

import operator

import numpy as np
import pytest

import minires as mr


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_floating_array_is_taken_as_it_is(dtype):
    array = np.ones((2, 3), dtype)
    x = mr.tensor(array, requires_grad=True)
    assert x.data is array
    assert (x.shape, x.ndim, x.size, x.dtype, len(x)) == ((2, 3), 2, 6, dtype, 2)
    assert x.is_leaf
    assert x.grad is None


def test_numbers_and_lists_become_float32():
    for value, shape in ((2, ()), (2.5, ()), ([1, 2], (2,)), ([[True], [False]], (2, 1))):
        x = mr.tensor(value)
        assert (x.dtype, x.shape) == (np.float32, shape)
    assert mr.tensor(np.float64(2)).dtype == np.float64
    assert mr.tensor(mr.tensor([1.0])).shape == (1,)


def test_integer_arrays_keep_their_dtype_but_have_no_gradient():
    assert mr.tensor(np.array([1, 2])).dtype == np.int64
    with pytest.raises(TypeError, match="only a floating array can require a gradient, got dtype int64"):
        mr.tensor(np.array([1, 2]), requires_grad=True)


@pytest.mark.parametrize("value", ["a", None, object(), [1, "a"], {"a": 1}, np.array([1j]), np.array(["a"])])
def test_what_is_no_array_of_numbers(value):
    with pytest.raises(TypeError, match="array must hold real numbers"):
        mr.tensor(value)


def test_a_ragged_list():
    with pytest.raises(ValueError, match="array cannot be made from this nested list"):
        mr.tensor([[1, 2], [3]])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_python_numbers_take_the_tensors_dtype(dtype):
    x = mr.tensor(np.array([1.0, 2.0], dtype))
    for y, expected in (
        (x + 1, [2, 3]),
        (1 + x, [2, 3]),
        (x - 1.5, [-0.5, 0.5]),
        (3 - x, [2, 1]),
        (x * 2, [2, 4]),
        (0.5 * x, [0.5, 1]),
        (-x, [-1, -2]),
    ):
        assert y.dtype == dtype
        np.testing.assert_array_equal(y.data, expected)


def test_an_array_on_the_left_asks_the_tensor():
    y = np.array([1.0, 2.0]) - mr.tensor(np.array([3.0, 5.0]))
    assert isinstance(y, mr.Tensor)
    np.testing.assert_array_equal(y.data, [-2, -3])


def test_operands_that_do_not_fit():
    x = mr.tensor(np.ones((2, 3)))
    with pytest.raises(ValueError, match=r"add: shapes \(2, 3\) and \(2,\) cannot be broadcast"):
        x + mr.tensor(np.ones(2))
    with pytest.raises(TypeError, match="mul: operands have dtypes float64 and float32"):
        x * np.ones(3, np.float32)
    for wrong in ("a", None, [1, 2, 3], True):
        with pytest.raises(TypeError, match="can be combined with"):
            x + wrong
    with pytest.raises(TypeError, match="floating dtype"):
        mr.tensor(np.array([1])) + mr.tensor(np.array([1]))


def test_repr_is_short_and_tells_the_origin():
    x = mr.tensor(np.zeros((100, 100), np.float32), requires_grad=True)
    assert "shape=(100, 100)" in repr(x)
    assert "requires_grad=True" in repr(x)
    assert len(repr(x)) < 300
    assert "node=<Mul" in repr(x * 2.0)


def test_item_numpy_detach_bool():
    x = mr.tensor(np.array([[2.5]]), requires_grad=True)
    y = x * 2.0
    assert y.item() == 5.0
    assert y.numpy() is y.data
    assert y.detach().node is None
    assert y.detach().data is y.data
    assert bool(mr.tensor(np.array(1.0)))
    with pytest.raises(ValueError, match=r"item\(\) needs a tensor of one element, this one has shape \(2,\)"):
        mr.tensor(np.ones(2)).item()
    with pytest.raises(TypeError, match="no length"):
        len(mr.tensor(1.0))


def test_sum_mean_reshape_as_methods():
    x = mr.tensor(np.arange(6.0).reshape(2, 3))
    assert x.sum().item() == 15
    assert x.mean(axis=(0, 1)).item() == 2.5
    assert x.sum(axis=0, keepdims=True).shape == (1, 3)
    assert x.reshape(3, 2).shape == x.reshape((3, 2)).shape == x.reshape(-1, 2).shape == (3, 2)


def test_a_tensor_made_of_a_tensor_shares_its_array_and_forgets_its_history():
    x = mr.tensor(np.ones(2), requires_grad=True)
    y = mr.tensor(x * 2.0)
    assert y.is_leaf
    assert not y.requires_grad
    assert mr.tensor(x).data is x.data
    x.data[0] = 7
    assert mr.tensor(x).data[0] == 7


def test_lists_are_copied_and_strided_arrays_are_not():
    values = [1.0, 2.0]
    x = mr.tensor(values)
    values[0] = 9.0
    np.testing.assert_array_equal(x.data, [1, 2])
    array = np.arange(12.0).reshape(3, 4)
    view = mr.tensor(array[::2, ::-1])
    array[0, 3] = 99
    np.testing.assert_array_equal(view.data, [[99, 2, 1, 0], [11, 10, 9, 8]])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_every_operation_on_numbers_keeps_dtype_and_gradient(dtype):
    for operation, slope in (
        (lambda x: x + np.float64(1), 1),
        (lambda x: np.float64(1) + x, 1),
        (lambda x: np.int8(2) * x, 2),
        (lambda x: 5 - x, -1),
        (lambda x: x - np.float16(1), 1),
        (lambda x: x.mean(), 0.5),
        (lambda x: x.sum(0), 1),
        (lambda x: x[::-1], 1),
        (lambda x: x / 2, 0.5),
        (lambda x: x / np.float64(4), 0.25),
        (lambda x: x**1, 1),
        (lambda x: x.T, 1),
        (lambda x: x.max(axis=0, keepdims=True) + 0 * x, [0, 2]),
        (lambda x: x * (x > 0), 1),
        (lambda x: x.reshape(2, 1), 1),
    ):
        x = mr.tensor(np.array([1, 2], dtype), requires_grad=True)
        y = operation(x)
        assert y.dtype == dtype
        y.backward(np.ones(y.shape))
        assert x.grad.dtype == dtype
        np.testing.assert_array_equal(x.grad, np.broadcast_to(slope, 2))


def test_numbers_without_end_are_numbers():
    x = mr.tensor(np.array([1.0, -1.0]))
    np.testing.assert_array_equal((x * float("inf")).data, [np.inf, -np.inf])
    np.testing.assert_array_equal((x + float("nan")).data, [np.nan, np.nan])


@pytest.mark.parametrize("reflected", [False, True])
def test_arrays_beside_tensors(reflected):
    x, array = mr.tensor(np.array([3.0, 5.0]), requires_grad=True), np.array([[1.0, 1.0], [2.0, 2.0]])
    for operation in (operator.add, operator.sub, operator.mul, operator.truediv, operator.pow, operator.matmul):
        y = operation(array, x) if reflected else operation(x, array)
        expected = operation(array, x.data) if reflected else operation(x.data, array)
        assert isinstance(y, mr.Tensor)
        assert y.node.needs_input_grad == ((False, True) if reflected else (True, False))
        np.testing.assert_array_equal(y.data, expected)


def test_in_place_operators_make_a_new_tensor():
    array = np.array([1.0, 2.0])
    x = first = mr.tensor(array, requires_grad=True)
    x += 1
    x *= 3
    x -= 2
    assert x is not first
    np.testing.assert_array_equal(array, [1, 2])
    np.testing.assert_array_equal(x.data, [4, 7])
    x.backward(np.ones(2))
    np.testing.assert_array_equal(first.grad, [3, 3])


def test_a_tensor_is_not_written_to_by_index_nor_by_numpy():
    array = np.ones(2)
    x = mr.tensor(array, requires_grad=True)
    with pytest.raises(TypeError, match="does not support item assignment"):
        x[0] = 5.0
    with pytest.raises(TypeError, match="does not support ufuncs"):
        np.add(array, 1, out=x)
    with pytest.raises(TypeError, match="does not support ufuncs"):
        array += x
    with pytest.raises(AttributeError):
        x.requires_gard = False
    np.testing.assert_array_equal(array, [1, 1])


def test_what_a_tensor_is_not_divided_by():
    for operation in (lambda x: x // 2, lambda x: 2 // x, lambda x: x % 2, lambda x: divmod(x, 2)):
        with pytest.raises(TypeError, match="unsupported operand"):
            operation(mr.tensor(np.ones(2)))


def test_walking_along_the_first_axis():
    rows = list(mr.tensor(np.arange(6.0).reshape(3, 2)))
    assert [row.shape for row in rows] == [(2,)] * 3
    np.testing.assert_array_equal(rows[2].data, [4, 5])


def test_a_scalar():
    x = mr.tensor(2.5)
    assert (x.shape, x.ndim, x.size, x.item()) == ((), 0, 1, 2.5)
    assert type(x.item()) is float
    assert (x * 2).data.shape == ()
    assert isinstance((x * 2).data, np.ndarray)
    assert not mr.tensor(0.0)


def test_repr_in_full():
    assert repr(mr.tensor([1.0, 2.5])) == "tensor([1. , 2.5], shape=(2,), dtype=float32)"
    x = mr.tensor(np.float64(2), requires_grad=True)
    assert repr(x) == "tensor(2., shape=(), dtype=float64, requires_grad=True)"
    assert repr(x.sum()) == "tensor(2., shape=(), dtype=float64, node=<Sum(axis=(), keepdims=False): () -> ()>)"


def test_zero_grad_and_detach():
    x = mr.tensor(np.array([3.0]), requires_grad=True)
    (x * 2.0).backward()
    np.testing.assert_array_equal(x.grad, [2])
    x.zero_grad()
    assert x.grad is None
    with pytest.raises(RuntimeError, match="depends on no tensor with requires_grad=True"):
        (x * 2.0).detach().backward()


def test_a_mean_in_float16_does_not_overflow():
    x = mr.tensor(np.full((300, 300), 2, np.float16), requires_grad=True)
    assert x.mean().item() == 2
    assert x.mean().dtype == np.float16


def test_only_one_element_is_true_or_false():
    assert mr.tensor(np.array([2.0]))
    with pytest.raises(ValueError, match=r"only a tensor of one element is true or false, this one has shape \(2,\)"):
        bool(mr.tensor(np.ones(2)))


# -- Python and NumPy


def test_numpy_takes_the_values():
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    x = mr.tensor(values)
    assert np.asarray(x) is values
    assert np.asarray(x, np.float64).dtype == np.float64
    assert np.array(x, copy=None) is values
    copied = np.array(x)
    assert copied is not values
    np.testing.assert_array_equal(copied, values)
    assert np.array(x, copy=False) is values
    with pytest.raises(ValueError, match="copy"):
        np.array(x, np.float64, copy=False)
    np.testing.assert_array_equal(np.stack([x, x]), [values, values])
    assert (np.shape(x), np.median(x), np.array_equal(x, x)) == ((2, 3), 2.5, True)
    assert mr.tensor([mr.tensor(1.0), mr.tensor(2.0)]).shape == (2,)


@pytest.mark.parametrize("requires_grad", [False, True])
def test_numpys_reductions_name_the_tensors_own(requires_grad):
    x = mr.tensor(np.ones((2, 3)), requires_grad=requires_grad)
    for function in (np.sum, np.mean, np.max):
        name = function.__name__
        message = rf"np\.{name} takes no tensor: write tensor\.{name}\(\.\.\.\) or np\.{name}\(tensor\.data, \.\.\.\)"
        for arguments in ({}, {"axis": 0}, {"keepdims": True}):
            with pytest.raises(TypeError, match=message):
                function(x, **arguments)
        function(x.data)
    with pytest.raises(TypeError, match=r"write tensor\.max\("):
        np.amax(x)
    with pytest.raises(TypeError, match=r"write tensor\.reshape\("):
        np.reshape(x, (3, 2))


def test_numpy_gets_no_tensor_whose_gradient_would_be_lost():
    x = mr.tensor(np.ones((2, 3)), requires_grad=True)
    for convert in (np.asarray, np.array, lambda x: np.asarray(x * 2.0), lambda x: mr.tensor([x, x])):
        with pytest.raises(TypeError, match=r"requires a gradient is not converted.*x\.data.*x\.detach\(\)"):
            convert(x)
    np.testing.assert_array_equal(x.detach(), x.data)
    with mr.no_grad():
        np.testing.assert_array_equal(x * 2.0, 2 * x.data)


def test_matplotlib_draws_tensors():
    plt = pytest.importorskip("matplotlib.figure")
    axes = plt.Figure().subplots(2)
    x = mr.tensor(np.arange(24.0).reshape(1, 2, 3, 4))
    np.testing.assert_array_equal(axes[0].imshow(x[0, 0]).get_array(), x.data[0, 0])
    (line,) = axes[1].plot(x[0, 1, 2])
    np.testing.assert_array_equal(line.get_ydata(), x.data[0, 1, 2])


def test_a_tensor_of_one_element_is_a_number():
    loss = mr.tensor(np.array([[2.75]]), requires_grad=True).sum()
    assert (float(loss), int(loss), f"{float(loss):.1f}") == (2.75, 2, "2.8")
    assert type(float(mr.tensor(np.array(3)))) is float
    assert type(int(mr.tensor(np.array([3.5])))) is int
    for convert in (float, int):
        with pytest.raises(ValueError, match=r"needs a tensor of one element, this one has shape \(2,\)"):
            convert(mr.tensor(np.ones(2)))


def test_iterating_is_differentiable(rng):
    x = mr.tensor(rng.standard_normal((3, 2)), requires_grad=True)
    cotangents = rng.standard_normal((3, 2))
    first, second, third = x
    (first * cotangents[0] + second * cotangents[1] + third * cotangents[2]).backward(np.ones(2))
    np.testing.assert_array_equal(x.grad, cotangents)
    assert [row.shape for row in mr.tensor(np.ones((0, 2)))] == []
    with pytest.raises(TypeError, match="no axis to iterate over"):
        iter(mr.tensor(1.0))  # at once, not at the first step


def test_repr_looks_at_a_few_values_only():
    """A debugger prints every tensor at each stop: 10^18 elements, of which no pass could read all."""
    endless = mr.Tensor(np.broadcast_to(np.float32(0.5), (10**6,) * 3), requires_grad=True)
    assert repr(endless) == (
        "tensor(first row [0.5, 0.5, 0.5, 0.5, 0.5, 0.5, ...], shape=(1000000, 1000000, 1000000), dtype=float32, "
        "requires_grad=True)"
    )
    wide = mr.tensor(np.arange(40.0).reshape(2, 20)[:, ::-1])
    assert repr(wide) == "tensor(first row [19., 18., 17., 16., 15., 14., ...], shape=(2, 20), dtype=float64)"
    assert repr(mr.tensor(np.ones((0, 30)))) == "tensor([], shape=(0, 30), dtype=float64)"
    assert "\x1b" not in repr(endless) + repr(wide)
    assert "mean" in mr.tensor(np.ones((5, 5)))._repr_html_()


# -- comparisons


def test_comparisons_are_boolean_tensors_without_a_gradient(rng):
    x = mr.tensor(np.array([1.0, 2.0, np.nan]), requires_grad=True)
    other = np.array([2.0, 2.0, 2.0])
    for compare in (operator.lt, operator.le, operator.gt, operator.ge, operator.eq, operator.ne):
        for a, b in ((x, 2), (x, other), (x, mr.tensor(other)), (other, x), (2.0, x), (np.float64(2), x)):
            found = compare(a, b)
            assert isinstance(found, mr.Tensor)
            assert not found.requires_grad
            assert found.dtype == bool
            expected = compare(x.data, other) if a is x else compare(other, x.data)
            np.testing.assert_array_equal(found.data, expected)
    assert (mr.tensor(2.0) < 3).data.shape == ()
    assert (mr.tensor(np.array([[1], [2]])) == np.array([1, 2], np.uint8)).data.tolist() == [
        [True, False],
        [False, True],
    ]
    assert (mr.tensor(np.array([1, 2])) < 1.5).data.tolist() == [True, False]  # the number is not rounded
    assert (mr.tensor(np.array([True, False])) == True).data.tolist() == [True, False]  # noqa: E712


def test_a_mask_counts_as_zeros_and_ones(rng):
    x = mr.tensor(rng.standard_normal((4, 5)).astype(np.float32), requires_grad=True)
    leaky = x * (x > 0) + 0.1 * x * (x <= 0)
    cotangent = rng.standard_normal((4, 5)).astype(np.float32)
    leaky.backward(cotangent)
    assert leaky.dtype == np.float32
    np.testing.assert_allclose(x.grad, cotangent * np.where(x.data > 0, np.float32(1), np.float32(0.1)), rtol=1e-6)
    hits = mr.tensor(np.array([1, 2, 3])) == np.array([1, 0, 3])
    assert hits.sum().item() == 2
    assert mr.tensor(np.full(300, 200, np.uint8)).sum().item() == 60_000  # in 64 bits, as NumPy and PyTorch


def test_what_a_tensor_is_unequal_to():
    x = mr.tensor(np.ones(2))
    for other in (None, "a", [1, 1], object()):
        assert (x == other) is False
        assert (x != other) is True
    for compare in (operator.lt, operator.le, operator.gt, operator.ge):
        with pytest.raises(TypeError, match="can be combined with"):
            compare(x, "a")
    with pytest.raises(ValueError, match=r"eq: shapes \(2,\) and \(3,\) cannot be broadcast"):
        assert x == np.ones(3)
    with pytest.raises(TypeError, match="lt: operand must hold real numbers, got dtype complex128"):
        assert x < np.ones(2, complex)


def test_tensors_are_keys_by_identity():
    x, y = mr.tensor(np.ones(2)), mr.tensor(np.ones(2))
    names = {x: "x", y: "y"}
    assert (names[x], names[y], len({x, y, x})) == ("x", "y", 2)


# -- operations of a student's own


def test_products_of_matrices_that_do_not_fit():
    x = mr.tensor(np.ones((2, 3)))
    for other in (np.ones((2, 3)), np.ones(2), np.ones((5, 2, 4)), 2.0):
        with pytest.raises(ValueError, match=r"matmul: shapes a .* and b .* do not fit"):
            x @ other
    with pytest.raises(ValueError, match="matmul: shapes"):
        mr.tensor(np.ones((2, 4, 3))) @ np.ones((3, 3, 4))
    with pytest.raises(TypeError, match="matmul: operands a and b have dtypes float64 and float32"):
        x @ np.ones((3, 2), np.float32)


def test_axes_of_a_transpose():
    x = mr.tensor(np.arange(24.0).reshape(2, 3, 4))
    assert x.T.shape == x.transpose().shape == x.transpose(None).shape == (4, 3, 2)
    assert x.transpose(1, -1, 0).shape == x.transpose((1, 2, 0)).shape == (3, 4, 2)
    assert np.shares_memory(x.T.data, x.data)
    assert mr.tensor(1.0).T.shape == ()
    for axes in ((0, 1), (0, 1, 1), (0, 1, 3), ((0, 1),)):
        with pytest.raises(ValueError, match="axes"):
            x.transpose(*axes)


def test_reductions_over_an_axis_of_a_scalar(rng):
    for axis in (0, -1):
        for reduce in ("sum", "mean", "max"):
            for keepdims in (False, True):
                x = mr.tensor(np.array(2.5), requires_grad=True)
                y = getattr(x, reduce)(axis, keepdims)
                assert (y.item(), y.shape) == (2.5, ())
                y.backward(np.array(3.0))
                assert x.grad == 3
    with pytest.raises(ValueError, match=r"axis must lie in \[-1, 0\] for 0 dimensions, got 1"):
        mr.tensor(1.0).sum(1)


def test_sums_and_maxima_of_nothing():
    empty = mr.tensor(np.zeros((0, 3), np.float32), requires_grad=True)
    assert empty.sum().item() == 0
    np.testing.assert_array_equal(empty.sum(0).data, np.zeros(3))
    assert empty.max(1).shape == (0,)
    for axis in (None, 0):
        with pytest.raises(ValueError, match="max over an empty axis: axis"):
            empty.max(axis)


def test_a_scalar_is_formatted_as_its_number():
    assert f"{mr.tensor(np.array(0.12345)):.3f}" == "0.123"
    assert f"{mr.tensor(np.ones(2))}" == repr(mr.tensor(np.ones(2)))
