"""What a live tape depends on is read-only."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import time
import warnings

import numpy as np
import pytest
from concurrently import at_once

import minires as mr
import minires.functional as F
from minires import _guard


@pytest.fixture
def arrays(rng):
    return rng.standard_normal((2, 3, 5, 4)), rng.standard_normal((4, 3, 3, 3))


def test_writing_fails_at_the_line_until_backward_is_done(arrays):
    x, w = arrays
    y = F.conv2d(mr.tensor(x), mr.tensor(w, requires_grad=True))
    for array in (x, w):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
    y.backward(np.ones(y.shape))
    x[0] = w[0] = 1


def test_several_nodes_hold_one_array(arrays):
    x, w = arrays
    weight = mr.tensor(w, requires_grad=True)
    y, z = F.conv2d(mr.tensor(x), weight), F.conv2d(mr.tensor(x), weight)
    y.backward(np.ones(y.shape))
    assert not w.flags.writeable
    z.backward(np.ones(z.shape))
    assert w.flags.writeable
    assert x.flags.writeable


def test_a_tape_that_is_dropped_lets_go(arrays):
    x, w = arrays
    y = F.relu(F.conv2d(mr.tensor(x), mr.tensor(w, requires_grad=True)))
    assert not w.flags.writeable
    del y
    gc.collect()
    assert w.flags.writeable


def test_without_a_tape_nothing_is_held(arrays):
    x, w = arrays
    with mr.no_grad():
        y = F.conv2d(mr.tensor(x), mr.tensor(w, requires_grad=True))
    z = F.relu(mr.tensor(x))
    x[0] = w[0] = 1
    y.data[0] = z.data[0] = 1


def test_a_view_and_its_owner(arrays):
    x, w = arrays
    view = x.transpose(0, 1, 3, 2)
    weight = mr.tensor(w, requires_grad=True)
    y = F.conv2d(mr.tensor(view), weight)
    z = F.conv2d(mr.tensor(x), weight)
    for array in (x, view):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
    y.backward(np.ones(y.shape))  # the view's node is done, its memory is still needed
    assert not view.flags.writeable
    z.backward(np.ones(z.shape))
    x[0] = view[0] = 1


def test_an_array_that_was_read_only_stays_so(arrays):
    x, w = arrays
    x.flags.writeable = False
    y = F.conv2d(mr.tensor(x), mr.tensor(w, requires_grad=True))
    y.backward(np.ones(y.shape))
    assert not x.flags.writeable


def test_the_optimiser_says_what_holds_the_weights(arrays):
    x, w = arrays
    weight = mr.tensor(w, requires_grad=True)
    y = F.conv2d(mr.tensor(x), weight)
    y.backward(np.ones(y.shape))
    kept = F.conv2d(mr.tensor(x), weight)
    sgd = mr.optim.SGD([weight], 0.1)
    with pytest.raises(ValueError, match=r"params\[0\] is a read-only array.*no_grad"):
        sgd.step()
    del kept
    sgd.step()


def test_threads_that_share_weights(rng):
    weight = mr.tensor(rng.standard_normal((4, 3)), requires_grad=True)
    x = rng.standard_normal((5, 3))

    def work():
        for _ in range(300):
            y = F.linear(mr.tensor(x), weight)
            y.backward(np.ones((5, 4)))
            F.linear(mr.tensor(x), weight)

    at_once(*[work] * 4)
    gc.collect()
    assert weight.data.flags.writeable
    assert x.flags.writeable


def test_a_thread_may_write_as_soon_as_its_own_tape_is_walked_or_dropped(rng):
    """Whatever other threads are doing to theirs at that moment."""
    cotangent = rng.standard_normal((5, 4))

    def work():
        w, x = np.ones((4, 3)), np.ones((5, 3))
        weight = mr.tensor(w, requires_grad=True)
        for _ in range(300):
            F.linear(mr.tensor(x), weight).backward(cotangent)
            assert w.flags.writeable
            assert x.flags.writeable
            F.linear(mr.tensor(x), weight)
            assert w.flags.writeable
            assert x.flags.writeable

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        at_once(*[work] * 4)
    finally:
        sys.setswitchinterval(interval)


def test_the_collector_may_come_while_arrays_are_being_held(arrays, monkeypatch):
    """A tape in a cycle, which only the collector drops, is dropped in the middle of `hold` in the same thread."""
    x, w = arrays
    u = w.copy()
    output = F.conv2d(mr.tensor(x), mr.tensor(u, requires_grad=True))
    output.node.cycle = output
    del output
    walk, seen = _guard._walk, []

    def walk_and_collect(saved, held):
        monkeypatch.setattr(_guard, "_walk", walk)
        gc.collect()
        seen.append(u.flags.writeable)
        walk(saved, held)

    monkeypatch.setattr(_guard, "_walk", walk_and_collect)
    y = F.conv2d(mr.tensor(x), mr.tensor(w, requires_grad=True))
    assert seen == [False]  # it waits until the other arrays are held
    assert u.flags.writeable
    assert not w.flags.writeable
    y.backward(np.ones(y.shape))
    assert w.flags.writeable


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_fork_while_another_thread_holds_arrays(arrays, monkeypatch):
    x, w = arrays
    walk, main = _guard._walk, threading.get_ident()

    def slowly(saved, held):
        if threading.get_ident() != main:
            time.sleep(0.05)
        walk(saved, held)

    def work():
        F.linear(mr.tensor(np.ones((5, 3))), mr.tensor(np.ones((4, 3)), requires_grad=True))

    monkeypatch.setattr(_guard, "_walk", slowly)
    thread = threading.Thread(target=work)
    thread.start()
    time.sleep(0.02)  # it is inside by now
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # from Python 3.12 on: a fork beside threads
        child = os.fork()
    if child == 0:
        try:
            signal.alarm(20)
            y = F.conv2d(mr.tensor(x), mr.tensor(w, requires_grad=True))
            y.backward(np.ones(y.shape))
        finally:
            os._exit(0 if w.flags.writeable else 1)
    status = os.waitpid(child, 0)[1]
    thread.join()
    assert os.waitstatus_to_exitcode(status) == 0


def test_memory_that_numpy_could_not_make_writable_again_is_left_alone():
    """As another framework's: what exports it is no buffer that NumPy could ask."""
    foreign = np.from_dlpack(np.ones((2, 3)))
    with pytest.raises(ValueError, match="WRITEABLE"):
        foreign.setflags(write=True)  # or this test would prove nothing
    foreign = np.asarray(foreign)
    for array in (foreign, foreign[:, ::-1], foreign[:1]):
        x = mr.tensor(array, requires_grad=True)
        y = (x * x).sum()
        y.backward()
        np.testing.assert_array_equal(x.grad, 2 * array)
        assert array.flags.writeable == foreign.flags.writeable
