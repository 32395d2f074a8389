"""Tensor: what it takes, what it keeps, how it prints, and its operators."""

from __future__ import annotations

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
        (lambda x: x.reshape(2, 1), 1),
    ):
        x = mr.tensor(np.array([1, 2], dtype), requires_grad=True)
        y = operation(x)
        assert y.dtype == dtype
        y.backward(np.ones(y.shape))
        assert x.grad.dtype == dtype
        np.testing.assert_array_equal(x.grad, [slope, slope])


def test_numbers_without_end_are_numbers():
    x = mr.tensor(np.array([1.0, -1.0]))
    np.testing.assert_array_equal((x * float("inf")).data, [np.inf, -np.inf])
    np.testing.assert_array_equal((x + float("nan")).data, [np.nan, np.nan])


@pytest.mark.parametrize("reflected", [False, True])
def test_arrays_beside_tensors(reflected):
    x, array = mr.tensor(np.array([3.0, 5.0]), requires_grad=True), np.array([[1.0], [2.0]])
    for operation in (lambda a, b: a + b, lambda a, b: a - b, lambda a, b: a * b):
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
    for operation in (lambda x: x / 2, lambda x: 2 / x, lambda x: x**2, lambda x: x @ x, lambda x: x // 2):
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
