"""Whatever looks into a run is an observer: when it is called, with what, and that it leaves no trace."""

from __future__ import annotations

import numpy as np
import pytest

import minires as mr
import minires.functional as F


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
