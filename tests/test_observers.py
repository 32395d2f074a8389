"""Whatever looks into a run is an observer: when it is called, with what, and that it leaves no trace."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import minires as mr
import minires.functional as F
from minires.autograd import Function


class Log(mr.Observer):
    def __init__(self, name="", log=None):
        self.name, self.log = name, [] if log is None else log

    def before_forward(self, node, arrays):
        self.log.append((self.name, "before forward", node.name, tuple(a is not None and a.shape for a in arrays)))

    def after_forward(self, node, arrays, output):
        self.log.append((self.name, "after forward", node.name, output.shape))

    def before_backward(self, node, grad_output):
        self.log.append((self.name, "before backward", node.name, grad_output.shape))

    def after_backward(self, node, grad_output, grads):
        self.log.append((self.name, "after backward", node.name, tuple(g is not None and g.shape for g in grads)))


def run():
    x, w = mr.tensor(np.ones((2, 3)), requires_grad=True), mr.tensor(np.ones((4, 3)))
    F.relu(F.linear(x, w)).sum().backward()


def test_four_callbacks_in_order():
    log = Log()
    with log as entered:
        run()
    assert entered is log
    assert log.log == [
        ("", "before forward", "Linear", ((2, 3), (4, 3), False)),
        ("", "after forward", "Linear", (2, 4)),
        ("", "before forward", "ReLU", ((2, 4),)),
        ("", "after forward", "ReLU", (2, 4)),
        ("", "before forward", "Sum", ((2, 4),)),
        ("", "after forward", "Sum", ()),
        ("", "before backward", "Sum", ()),
        ("", "after backward", "Sum", ((2, 4),)),
        ("", "before backward", "ReLU", (2, 4)),
        ("", "after backward", "ReLU", ((2, 4),)),
        ("", "before backward", "Linear", (2, 4)),
        ("", "after backward", "Linear", ((2, 3), False, False)),
    ]


def test_the_outer_one_is_first_before_and_last_after():
    log = []
    with Log("outer", log), Log("inner", log):
        F.relu(mr.tensor(np.ones(1)))
    assert [(name, when) for name, when, *_ in log] == [
        ("outer", "before forward"),
        ("inner", "before forward"),
        ("inner", "after forward"),
        ("outer", "after forward"),
    ]


def test_it_is_gone_afterwards_also_after_an_error():
    log = Log()
    with pytest.raises(ValueError, match="kernel"), log:
        F.conv2d(mr.tensor(np.ones((1, 1, 1, 1))), mr.tensor(np.ones((1, 1, 3, 3))))
    log.log.clear()
    run()
    assert log.log == []


def test_one_observer_twice():
    log = Log()
    with log:
        with log:
            pass
        F.relu(mr.tensor(np.ones(1)))
    assert len(log.log) == 2


def test_a_second_exit_is_harmless():
    log, other = Log(), Log("other")
    with other, log:
        log.__exit__(None, None, None)
        F.relu(np.ones(2))
    assert not log.log
    assert [name for name, *_ in other.log] == ["other"] * 2
    with log:
        F.relu(np.ones(2))
    assert len(log.log) == 2


def test_leaving_from_within_a_callback():
    class Once(mr.Observer):
        calls = 0

        def before_forward(self, node, arrays):
            self.calls += 1
            self.__exit__()

    once, log = Once(), Log()
    once.__enter__()
    with log:
        F.relu(mr.tensor(np.ones(1)))
        F.relu(mr.tensor(np.ones(1)))
    assert once.calls == 1
    assert len(log.log) == 4


def test_the_arrays_are_those_of_the_operation():
    a = np.array([-1.0, 2.0])
    seen = {}

    class Look(mr.Observer):
        def after_forward(self, node, arrays, output):
            seen["input"], seen["output"] = arrays[0], output

        def before_backward(self, node, grad_output):
            seen["grad"] = grad_output

    with Look():
        x = mr.tensor(a, requires_grad=True)
        y = F.relu(x)
        y.backward(np.array([3.0, 4.0]))
    assert seen["input"] is x.data
    assert seen["output"] is y.data
    np.testing.assert_array_equal(seen["grad"], [3, 4])


def test_an_error_in_a_callback_reaches_the_caller():
    class Stop(mr.Observer):
        def before_backward(self, node, grad_output):
            raise KeyError(node.name)

    with pytest.raises(KeyError, match="Sum"), Stop():
        run()
    run()


def test_forward_and_backward_show_the_same_node_with_its_module():
    model = mr.models.create("resnet20", width=4, num_classes=2)
    forward, backward = [], []

    class Nodes(mr.Observer):
        def before_forward(self, node, arrays):
            forward.append(node)

        def before_backward(self, node, grad_output):
            backward.append((node, node.module, node.name))

    with Nodes():
        y = model(mr.tensor(np.zeros((2, 3, 8, 8), np.float32)))
        F.cross_entropy(y, np.array([0, 1])).backward()
    assert forward[0].module == "conv1"
    assert forward[-1].module == ""  # the loss is outside of the model
    assert {node for node, _, _ in backward} <= set(forward)
    assert [(module, name) for _, module, name in backward[:2]] == [("", "CrossEntropy"), ("fc", "Linear")]
    assert (backward[-1][1], backward[-1][2]) == ("conv1", "Conv2d")
    serials = [node.serial for node in forward]
    assert serials == sorted(set(serials))
    walked = [node.serial for node, _, _ in backward]
    assert walked == sorted(walked, reverse=True)


def test_forward_is_shown_also_where_nothing_is_recorded():
    log = Log()
    with log, mr.no_grad():
        F.relu(mr.tensor(np.ones(3), requires_grad=True))
    assert [when for _, when, *_ in log.log] == ["before forward", "after forward"]


def test_backward_shows_arrays_and_none_for_what_is_not_wanted():
    x, w = mr.tensor(np.full((1, 2), 3.0)), mr.tensor(np.full((4, 2), 5.0), requires_grad=True)
    seen = []

    class Look(mr.Observer):
        def after_backward(self, node, grad_output, grads):
            seen.append((node.name, grad_output.copy(), grads))

    with Look():
        F.linear(x, w).backward(np.arange(4.0)[None])
    ((name, grad_output, grads),) = seen
    assert name == "Linear"
    np.testing.assert_array_equal(grad_output, [[0, 1, 2, 3]])
    assert grads[0] is None
    assert grads[2] is None
    np.testing.assert_array_equal(grads[1], 3 * np.arange(4.0)[:, None] * np.ones((4, 2)))


def test_after_is_not_called_where_the_operation_fails():
    log = Log()
    with log, pytest.raises(ValueError, match="kernel spans"):
        F.conv2d(mr.tensor(np.ones((1, 1, 1, 1))), mr.tensor(np.ones((1, 1, 3, 3))))
    assert [(when, name) for _, when, name, _ in log.log] == [("before forward", "Conv2d")]


def test_all_of_several_are_gone_after_an_error_in_one():
    class Stop(mr.Observer):
        def after_forward(self, node, arrays, output):
            raise KeyError(node.name)

    outer, inner = Log(), Log()
    with pytest.raises(KeyError, match="Linear"), outer, Stop(), inner:
        run()
    assert [when for _, when, *_ in inner.log] == ["before forward", "after forward"]
    assert [when for _, when, *_ in outer.log] == ["before forward"]
    outer.log.clear()
    inner.log.clear()
    run()
    assert outer.log == inner.log == []


def test_it_watches_its_own_thread_only():
    log = Log()
    with log:
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
    assert log.log == []


def test_watching_changes_nothing_and_patches_nothing(rng):
    """No class is touched, so that without observers the engine runs the same code as ever."""
    classes = [Function, mr.Tensor, type(F.relu(mr.tensor(np.ones(1), requires_grad=True)).node)]
    before = [dict(vars(cls)) for cls in classes]
    module = dict(vars(F))
    a = rng.standard_normal((2, 3))

    def gradient():
        x = mr.tensor(a, requires_grad=True)
        y = F.softmax(F.relu(x) * 2.0)
        y.backward(np.arange(6.0).reshape(2, 3))
        return y.data, x.grad

    plain = gradient()
    with Log():
        assert [dict(vars(cls)) for cls in classes] == before
        assert dict(vars(F)) == module
        watched = gradient()
    assert [dict(vars(cls)) for cls in classes] == before
    for one, other in zip(plain, watched, strict=True):
        np.testing.assert_array_equal(one, other)


def test_an_observer_that_overrides_nothing_is_harmless():
    x = mr.tensor(np.array([-1.0, 2.0]), requires_grad=True)
    with mr.Observer() as observer:
        F.relu(x).backward(np.array([3.0, 4.0]))
    assert isinstance(observer, mr.Observer)
    np.testing.assert_array_equal(x.grad, [0, 4])
