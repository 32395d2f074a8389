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
from minires.autograd import Function
from minires.context import module_scope
from minires.verify.cases import CASES, draw, random_pick


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
            y = F.relu(F.conv2d(tx, tw, padding=1))
            y.backward(np.cos(np.arange(y.size)).reshape(y.shape))
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


def test_a_deep_chain_of_an_operation_that_keeps_arrays(rng):
    """Ten thousand factors: the derivative by each is the product of all others."""
    factors = rng.uniform(0.999, 1.001, 10_000)
    leaves = [leaf(factor) for factor in factors]
    y = leaf(1.0)
    for factor in leaves:
        y = y * factor
    y.backward()
    product = np.prod(factors)
    np.testing.assert_allclose([float(f.grad) for f in leaves], product / factors, rtol=1e-10)


def test_a_tensor_used_in_many_places(rng):
    a, weights = rng.standard_normal(3), rng.standard_normal(500)
    x = leaf(a)
    h = x * x
    total = h * weights[0]
    for weight in weights[1:]:
        total = total + h * weight
    cotangent = rng.standard_normal(3)
    total.backward(cotangent)
    np.testing.assert_allclose(x.grad, 2 * a * weights.sum() * cotangent, rtol=1e-10)


@pytest.mark.parametrize(
    ("grad_output", "error", "message"),
    [
        (np.ones(3), ValueError, "grad_output must have the tensor's shape (2,), got (3,)"),
        (np.ones((2, 1)), ValueError, "grad_output must have the tensor's shape (2,), got (2, 1)"),
        (1.0, ValueError, "grad_output must have the tensor's shape (2,), got ()"),
        (np.ones(2, complex), TypeError, "grad_output must hold real numbers, got dtype complex128"),
        (np.ones(2, bool), TypeError, "grad_output must hold real numbers, got dtype bool"),
        (np.array(["a", "b"]), TypeError, "grad_output must hold real numbers"),
        (np.array([None, None]), TypeError, "grad_output must hold real numbers, got dtype object"),
        ([[1], [1, 2]], ValueError, "grad_output cannot be made from this nested list"),
        (None, ValueError, "grad_output may be left out for a scalar only; this tensor has shape (2,)"),
    ],
)
def test_a_wrong_grad_output_is_an_error_and_leaves_the_tape_whole(grad_output, error, message):
    x = leaf([1.0, 2.0])
    y = x * x
    with pytest.raises(error) as failure:
        y.backward(grad_output)
    assert message in str(failure.value)
    assert x.grad is None
    y.backward([1, 10])  # the right one still works
    np.testing.assert_array_equal(x.grad, [2, 40])


def test_grad_output_takes_the_dtype_of_the_tensor():
    x = mr.tensor(np.ones(2, np.float32), requires_grad=True)
    (x * 2.0).backward(np.array([1.5, 2.5]))
    assert x.grad.dtype == np.float32
    np.testing.assert_array_equal(x.grad, [3, 5])
    x.zero_grad()
    (x * 2.0).backward(mr.tensor(np.array([1, 2])))
    np.testing.assert_array_equal(x.grad, [2, 4])


@pytest.mark.parametrize("operation", CASES)
def test_gradients_share_no_memory_with_anything(operation):
    """Whatever the caller changes in place afterwards, each gradient stays what it was."""
    for seed in range(12):
        rng = np.random.default_rng(seed)
        case = draw(operation, random_pick(rng), rng)
        leaves = [leaf(np.array(array)) for array in case.inputs]
        y = case.fn(*leaves)
        cotangent = rng.standard_normal(y.shape)
        kept = cotangent.copy()
        y.backward(cotangent)
        np.testing.assert_array_equal(cotangent, kept)
        grads = [x.grad.copy() for x in leaves]
        for other in (cotangent, y.data, *(x.data for x in leaves)):
            other[...] = 99
        for x, grad in zip(leaves, grads, strict=True):
            np.testing.assert_array_equal(x.grad, grad)
        for i, x in enumerate(leaves):  # nor does one gradient change with another
            x.grad[...] = -i
        for i, x in enumerate(leaves):
            assert (x.grad == -i).all()


@pytest.mark.parametrize("through", ["itself", "reshape", "add", "slice"])
def test_a_cotangent_handed_through_is_copied(through):
    x = leaf(np.ones((2, 3)))
    y = {"itself": x, "reshape": x.reshape(3, 2), "add": x + leaf(0.0), "slice": x[:]}[through]
    cotangent = np.full(y.shape, 2.0)
    y.backward(cotangent)
    cotangent[...] = 99
    np.testing.assert_array_equal(x.grad, np.full((2, 3), 2.0))
    x.grad[...] = 5
    assert (cotangent == 99).all()


def test_nothing_is_recorded_where_no_input_wants_a_gradient(rng):
    x, w = mr.tensor(rng.standard_normal((2, 3))), mr.tensor(rng.standard_normal((4, 3)))
    y = F.linear(x, w)
    assert y.node is None
    assert not y.requires_grad
    w.requires_grad = True
    assert F.linear(x, w).node.needs_input_grad == (False, True, False)
    assert F.linear(x, w).node.parents == (None, w, None)
    assert F.linear(x.detach(), w).requires_grad


@pytest.mark.parametrize(
    ("backend_call", "frozen"),
    [("conv2d_backward_input", 0), ("conv2d_backward_weight", 1), ("linear_backward_input", 0)],
)
def test_the_backend_is_not_asked_for_an_unwanted_gradient(rng, monkeypatch, backend_call, frozen):
    backend = mr.backends.active()

    def never(*_):
        raise AssertionError(backend_call)

    shapes = [(1, 2, 5, 5), (3, 2, 3, 3)] if backend_call.startswith("conv") else [(4, 2), (3, 2)]
    operation = F.conv2d if backend_call.startswith("conv") else F.linear

    def run():
        tensors = [mr.tensor(rng.standard_normal(s), requires_grad=i != frozen) for i, s in enumerate(shapes)]
        y = operation(*tensors)
        y.backward(np.ones(y.shape))
        return tensors

    tensors = run()
    monkeypatch.setattr(backend, backend_call, never)
    tensors = run()
    assert tensors[frozen].grad is None
    assert tensors[1 - frozen].grad is not None
    frozen = 1 - frozen
    with pytest.raises(AssertionError, match=backend_call):
        run()


def test_a_tape_is_freed_at_once_without_the_garbage_collector(rng):
    """No reference cycles: a step's arrays are gone when its loss is."""
    gc.collect()
    gc.disable()
    try:
        for walk in (False, True):
            x = leaf(rng.standard_normal((2, 3)))
            y = F.relu(x * 2.0).sum()
            nodes = [weakref.ref(y.node), weakref.ref(y.node.parents[0]), weakref.ref(y.node.parents[0].parents[0])]
            assert all(node() is not None for node in nodes)
            if walk:
                y.backward()
            del y
            assert [node() for node in nodes] == [None, None, None]
    finally:
        gc.enable()


def test_peak_memory_over_a_deep_chain():
    """A thousand arrays on the tape: backward needs a handful more, not a second thousand."""
    n, depth = 1 << 12, 1000
    x, w = leaf(np.ones(n)), mr.tensor(np.ones(n))
    tracemalloc.start()
    try:
        y = x
        for _ in range(depth):
            y = F.relu(y * w)
        forward = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        y.backward(np.ones(n))
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert forward > depth * n * 8
    assert peak <= forward + 10 * n * 8
    assert after <= 10 * n * 8  # and all of it has been given back
    np.testing.assert_array_equal(x.grad, np.ones(n))


def test_an_error_in_backward_leaves_other_leaves_alone():
    class Broken(Function):
        def forward(self, x):
            return x + 0

        def backward(self, grad_output):
            raise ZeroDivisionError

    x = leaf(1.0)
    with pytest.raises(ZeroDivisionError):
        Broken()(x * 2.0).backward()
    assert x.grad is None
    (x * 3.0).backward()
    assert x.grad == 3


def test_module_scopes_nest_and_end_with_an_error():
    x = leaf(1.0)

    def module():
        return (x * 2.0).node.module

    with module_scope("layer2"):
        with module_scope("0"):
            with module_scope("conv1"):
                assert module() == "layer2.0.conv1"
            with module_scope(""):
                assert module() == "layer2.0"
        with pytest.raises(KeyError), module_scope("1"):
            raise KeyError
        assert module() == "layer2"
    assert module() == ""


def test_one_no_grad_in_two_threads_gives_each_its_own_state_back():
    shared, entered, nested, after = mr.no_grad(), threading.Event(), threading.Event(), {}

    def first():
        with shared:
            entered.set()
            nested.wait(10)
        after["first"] = mr.is_grad_enabled()

    def second():
        entered.wait(10)
        with mr.no_grad():
            with shared:
                nested.set()
                threads[0].join(10)
            after["second, still within"] = mr.is_grad_enabled()
        after["second"] = mr.is_grad_enabled()

    threads = [threading.Thread(target=first), threading.Thread(target=second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert after == {"first": True, "second, still within": False, "second": True}


def test_two_threads_walk_their_own_tapes_as_one_would(rng):
    """Networks with batch norm, pooling and a loss, one thread under no_grad half of the time."""
    inputs = [(rng.standard_normal((4, 2, 7 + i, 6)), rng.standard_normal((3, 2, 3, 3))) for i in range(2)]
    labels = np.array([0, 1, 2, 0])

    def gradients(x, w):
        tx, tw = leaf(x), leaf(w)
        h = F.relu(F.batch_norm(F.conv2d(tx, tw, padding=1), None, None, training=True))
        F.cross_entropy(F.flatten(F.adaptive_avg_pool2d(F.max_pool2d(h, 2), 1)), labels).backward()
        return tx.grad, tw.grad

    expected, found, start = [gradients(*pair) for pair in inputs], [[], []], threading.Barrier(2)

    def work(i):
        start.wait(10)
        for _ in range(15):
            found[i].append(gradients(*inputs[i]))
            with mr.no_grad():
                F.conv2d(leaf(inputs[i][0]), leaf(inputs[i][1]))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    for i in range(2):
        assert len(found[i]) == 15
        for x_grad, w_grad in found[i]:
            np.testing.assert_array_equal(x_grad, expected[i][0])
            np.testing.assert_array_equal(w_grad, expected[i][1])


def test_one_array_returned_for_two_leaves_is_copied_for_the_second():
    class Both(Function):
        def forward(self, a, b):
            return a + b

        def backward(self, grad_output):
            grad = grad_output * 3
            return grad, grad

    a, b = leaf(np.ones(3)), leaf(np.ones(3))
    Both()(a, b).backward(np.ones(3))
    a.grad += 5
    np.testing.assert_array_equal(b.grad, np.full(3, 3.0))


def test_a_node_is_one_call():
    double = mr.ops.Add()
    x = leaf([1.0, 2.0])
    y = double(x, x)
    with pytest.raises(RuntimeError, match=r"<Add\(\): .*> has been called already.*make a new Add"):
        double(x, y)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (lambda g: (g, g), "returned 2 gradients for 1 inputs"),
        (lambda g: g.sum(), r"for input 0 an array of shape \(\); the input has \(3,\)"),
        (lambda g: g[None], r"for input 0 an array of shape \(1, 3\)"),
        (lambda g: [1, 2, 3], "for input 0 list, not an array"),
    ],
)
def test_backward_is_held_to_the_inputs(returned, message):
    class Wrong(Function):
        def forward(self, x):
            return x * 2

        def backward(self, grad_output):
            return returned(grad_output)

    x = leaf([1.0, 2.0, 3.0])
    y = Wrong()(x)
    with pytest.raises(RuntimeError, match=message):
        y.backward(np.ones(3))
    assert x.grad is None


def test_enable_grad_inside_of_no_grad():
    x = leaf([1.0, 2.0])

    @mr.enable_grad()
    def recorded():
        return x * 2.0

    with mr.no_grad():
        assert (x * 2.0).node is None
        with mr.enable_grad():
            assert (x * 2.0).node is not None
        assert not mr.is_grad_enabled()
        assert recorded().node is not None
    assert mr.is_grad_enabled()


def test_a_decorated_generator_runs_in_its_mode_at_each_step():
    """And leaves the caller's mode alone when the caller resumes it, as PyTorch does."""
    modes, x = [], leaf(2.0)

    @mr.no_grad()
    def steps(n):
        try:
            for i in range(n):
                modes.append(mr.is_grad_enabled())
                received = yield (x * float(i)).requires_grad
                modes.append(received)
        except KeyError:
            yield ("caught", mr.is_grad_enabled())
        finally:
            modes.append(("closed", mr.is_grad_enabled()))
        return "end"

    def delegating():
        modes.append(("returned", (yield from steps(1))))

    generator = steps(3)
    assert modes == []  # nothing runs before the first step
    assert next(generator) is False
    assert mr.is_grad_enabled()
    assert generator.send("sent") is False
    assert generator.throw(KeyError("x")) == ("caught", False)
    assert mr.is_grad_enabled()
    generator.close()
    assert modes == [False, "sent", False, ("closed", False)]
    modes.clear()
    assert list(delegating()) == [False]
    assert modes == [False, None, ("closed", False), ("returned", "end")]

    @mr.enable_grad()
    def recorded():
        yield x * 2.0

    with mr.no_grad():
        assert next(recorded()).requires_grad
        assert not mr.is_grad_enabled()

    @mr.no_grad()
    def fails():
        yield 1
        raise ValueError("in the generator")

    with pytest.raises(ValueError, match="in the generator"):
        list(fails())
    assert mr.is_grad_enabled()


def test_a_gradient_that_is_a_saved_array_is_copied(rng):
    class Dot(mr.Function):
        def forward(self, x, other):
            self.saved = x, other
            return (x * other).sum()

        def backward(self, grad_output):
            x, other = self.saved
            return other, x

    x, other = leaf(rng.standard_normal(3)), leaf(rng.standard_normal(3))
    Dot()(x, other).backward()
    assert not np.shares_memory(x.grad, other.data)
    assert not np.shares_memory(other.grad, x.data)


def test_a_generator_that_ends_inside_another_mode_leaves_that_mode():
    def steps():
        with mr.no_grad():
            yield

    generator = steps()
    next(generator)
    with mr.enable_grad():
        generator.close()
        assert mr.is_grad_enabled()
    assert mr.is_grad_enabled()
    next(generator := steps())
    with mr.no_grad():
        generator.close()
        assert not mr.is_grad_enabled()
    assert mr.is_grad_enabled()


def test_saved_lists_and_dictionaries_are_frozen_too(rng):
    class Scale(mr.Function):
        def forward(self, x):
            self.saved = {"arrays": [x]}
            return x * 2

        def backward(self, grad_output):
            return grad_output * 2

    x = leaf(rng.standard_normal(3))
    y = Scale()(x)
    assert not x.data.flags.writeable
    y.backward(rng.standard_normal(3))
    assert x.data.flags.writeable
