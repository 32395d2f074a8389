"""The tape: the walk, what it frees, what it refuses, and that it is each thread's own."""

from __future__ import annotations

import gc
import threading
import tracemalloc
import weakref

import numpy as np
import pytest

import minires as mr
import minires.functional as F
from minires.autograd import Function, module_scope


def leaf(array):
    return mr.tensor(np.asarray(array, np.float64), requires_grad=True)


def test_ten_thousand_operations_in_a_row():
    x = leaf(1.0)
    y = x
    for _ in range(10_000):
        y = y + 1.0
    y.backward()
    assert y.item() == 10_001
    assert x.grad == 1


def test_a_long_chain_is_forgotten_without_recursion():
    y = leaf(1.0)
    for _ in range(100_000):
        y = y * 1.0
    del y
    gc.collect()


def test_diamond(rng):
    """Both ways from x to y contribute, whichever was recorded first."""
    a = rng.standard_normal(5)
    x = leaf(a)
    h = x * x
    left, right = h * 2.0, h * h
    (right + left + h).backward(np.ones(5))
    np.testing.assert_allclose(x.grad, 2 * a * (2 + 2 * a**2 + 1), rtol=1e-14)


def test_the_same_tensor_twice(rng):
    a = rng.standard_normal(4)
    x = leaf(a)
    (x + x).backward(np.ones(4))
    np.testing.assert_array_equal(x.grad, np.full(4, 2.0))
    x.zero_grad()
    (x * x - x).backward(np.ones(4))
    np.testing.assert_allclose(x.grad, 2 * a - 1, rtol=1e-15)


def test_gradients_add_up_over_two_backwards():
    x = leaf([1.0, 2.0])
    (x * 3.0).backward(np.ones(2))
    first = x.grad
    (x * 4.0).backward(np.ones(2))
    np.testing.assert_array_equal(x.grad, [7, 7])
    np.testing.assert_array_equal(first, [3, 3])  # an array that was handed out doesn't change


def test_backward_twice_over_one_tape_is_an_error():
    x = leaf([1.0, 2.0])
    y = (x * x).sum()
    y.backward()
    with pytest.raises(RuntimeError, match=r"walked already.*run the forward pass again"):
        y.backward()


def test_a_shared_part_of_two_tapes_is_freed_by_the_first():
    x = leaf([1.0, 2.0])
    h = x * x
    a, b = h.sum(), h.mean()
    a.backward()
    with pytest.raises(RuntimeError, match="Mul"):
        b.backward()


def test_grad_output_is_needed_but_for_one_element():
    x = leaf([1.0, 2.0])
    with pytest.raises((RuntimeError, ValueError), match="grad_output"):
        (x * 2.0).backward()
    with pytest.raises(ValueError, match=r"grad_output.*\(3,\)"):
        (x * 2.0).backward(np.ones(3))
    with pytest.raises((RuntimeError, ValueError), match="requires_grad=True"):
        mr.tensor(np.ones(1)).backward()


def test_backward_of_a_leaf_gives_it_the_cotangent():
    x = leaf(3.0)
    x.backward()
    assert x.grad == 1


def test_nothing_is_recorded_without_grad():
    x = leaf([1.0])
    with mr.no_grad():
        y = x * 2.0
        assert not mr.is_grad_enabled()
        with mr.no_grad():
            pass
        assert not mr.is_grad_enabled()
    assert mr.is_grad_enabled()
    assert y.node is None
    assert not y.requires_grad

    @mr.no_grad()
    def evaluate():
        return x * 2.0

    assert evaluate().node is None
    with pytest.raises(KeyError), mr.no_grad():
        raise KeyError
    assert mr.is_grad_enabled()


def test_only_wanted_gradients_are_computed(rng):
    """A convolution whose input needs no gradient doesn't compute it: the first layer of every network."""
    x, w = mr.tensor(rng.standard_normal((1, 2, 5, 5))), leaf(rng.standard_normal((3, 2, 3, 3)))
    seen = []

    class Watch(mr.Observer):
        def after_backward(self, node, grad_output, grads):
            seen.append((node.needs_input_grad, [g is None for g in grads]))

    with Watch():
        F.conv2d(x, w).sum().backward()
    assert seen[1] == ((False, True, False), [True, False, True])
    assert x.grad is None


def test_nodes_are_freed_as_the_walk_passes():
    """When the first node's backward runs, the arrays of all later nodes are gone."""
    alive = []
    references = []

    class Keep(Function):
        def forward(self, x):
            self.saved = np.array(x)
            references.append(weakref.ref(self.saved))
            return x + 1

        def backward(self, grad_output):
            alive.append(sum(r() is not None for r in references))
            return grad_output

    y = leaf([1.0])
    for _ in range(5):
        y = Keep()(y)
    y.backward(np.ones(1))
    assert alive == [5, 4, 3, 2, 1]


def test_peak_memory_of_backward_stays_near_forwards():
    n = 1 << 16
    x, w = leaf(np.ones(n)), leaf(np.ones(n))
    tracemalloc.start()
    y = x
    for _ in range(20):
        y = F.relu(y * w)
    forward = tracemalloc.get_traced_memory()[0]
    tracemalloc.reset_peak()
    y.backward(np.ones(n))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # beside the tape: the cotangent, one gradient on its way and its product, and the two leaves' gradients
    assert peak <= forward + 8 * n * 8


def test_arrays_handed_in_are_neither_changed_nor_kept(rng):
    x = leaf(rng.standard_normal(3))
    cotangent = np.ones(3)
    (x + 0.0).backward(cotangent)
    cotangent[:] = 99
    np.testing.assert_array_equal(x.grad, np.ones(3))


def test_leaves_do_not_share_a_gradient(rng):
    a, b = leaf(np.ones(3)), leaf(np.ones(3))
    (a + b).backward(np.ones(3))
    a.grad += 5
    np.testing.assert_array_equal(b.grad, np.ones(3))
    c = leaf(np.ones((2, 3)))
    c.sum().backward()
    c.grad += 1  # a broadcast view would be read-only
    np.testing.assert_array_equal(c.grad, np.full((2, 3), 2.0))


def test_nodes_know_their_module():
    model = mr.models.create("resnet20", width=4, num_classes=2)
    names = set()

    class Names(mr.Observer):
        def before_forward(self, node, arrays):
            names.add((node.module, node.name))

    with Names():
        model(mr.tensor(np.zeros((2, 3, 8, 8), np.float32)))
    assert ("layer2.0.conv1", "Conv2d") in names
    assert ("layer2.0", "Add") in names
    assert ("fc", "Linear") in names


def test_each_thread_has_its_own_state():
    seen = {}

    def other():
        seen["grad"] = mr.is_grad_enabled()
        seen["module"] = (leaf(1.0) * 2.0).node.module

    with mr.no_grad(), module_scope("outer"):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert seen == {"grad": True, "module": ""}


def test_threads_give_what_one_thread_gives(rng):
    """Convolutions of several sizes at the same time: the scratch memory is each thread's own."""
    inputs = [(rng.standard_normal((2, 3, 8 + i, 9)), rng.standard_normal((4, 3, 3, 3))) for i in range(4)]

    def gradients(x, w, rounds):
        for _ in range(rounds):
            tx, tw = leaf(x), leaf(w)
            F.relu(F.conv2d(tx, tw, padding=1)).sum().backward()
        return tx.grad, tw.grad

    expected = [gradients(x, w, 1) for x, w in inputs]
    found = [None] * len(inputs)

    def work(i):
        found[i] = gradients(*inputs[i], 20)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(inputs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one, other in zip(expected, found, strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_an_operation_without_forward_or_backward_says_so():
    class Nothing(Function):
        pass

    class Half(Function):
        def forward(self, x):
            return x * 2

    with pytest.raises(TypeError, match="Nothing defines no forward"):
        Nothing()(leaf(1.0))
    with pytest.raises(TypeError, match="Half defines no backward"):
        Half()(leaf(1.0)).backward()
