"""What a live tape depends on is read-only."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
import warnings

import numpy as np
import pytest
from concurrently import at_once

import minires as mr
import minires.functional as F
from minires import readonly


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
    """Other threads freeze and thaw arrays of their own at that moment."""
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


def test_the_collector_may_come_while_arrays_are_being_frozen(arrays, monkeypatch):
    """A tape in a cycle, which only the collector drops, is dropped in the middle of `freeze` in the same thread."""
    x, w = arrays
    u = w.copy()
    output = F.conv2d(mr.tensor(x), mr.tensor(u, requires_grad=True))
    output.node.cycle = output
    del output
    walk, seen = readonly._walk, []

    def walk_and_collect(saved, frozen):
        monkeypatch.setattr(readonly, "_walk", walk)
        seen.append(u.flags.writeable)
        gc.collect()
        seen.append(u.flags.writeable)
        walk(saved, frozen)

    monkeypatch.setattr(readonly, "_walk", walk_and_collect)
    y = F.conv2d(mr.tensor(x), mr.tensor(w, requires_grad=True))
    assert seen == [False, True]
    assert not w.flags.writeable
    y.backward(np.ones(y.shape))
    assert w.flags.writeable


def test_entries_of_thawed_arrays_are_removed(rng):
    """Or a long training would collect an entry for every address that an array ever had."""
    before = len(readonly._frozen)
    kept = []
    for _ in range(3000):
        x = np.ones(3)
        F.relu(mr.tensor(x, requires_grad=True))
        kept.append(x)  # so that no address is used twice
    assert len(readonly._frozen) < before + 2500


def test_a_view_that_every_tape_takes_anew_does_not_pile_up_frozen_views(arrays):
    x, w = arrays
    weight = mr.tensor(w, requires_grad=True)
    view = x[:, :, ::-1]
    kept = F.conv2d(mr.tensor(x), weight)
    for _ in range(5):
        F.conv2d(mr.tensor(view), weight)
    assert len(readonly._frozen[id(x)]) == 2  # the view's and the owner's
    del kept
    assert x.flags.writeable
    assert view.flags.writeable


def test_views_are_thawed_by_the_collector_too(rng):
    """It calls the callbacks of everything that it drops before it drops anything: the owner's must come first."""
    for _ in range(50):
        x = rng.standard_normal((2, 3, 5, 4))
        views = [x[:, :, ::-1], x.transpose(0, 1, 3, 2), x[:1]]
        kept = [F.relu(mr.tensor(array, requires_grad=True)) * mr.tensor(array) for array in (*views, x)]
        for y in kept:
            y.node.cycle = y
        assert not any(array.flags.writeable for array in (*views, x))
        del kept, y
        gc.collect()
        assert all(array.flags.writeable for array in (*views, x))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_fork_while_another_thread_holds_arrays(arrays, monkeypatch):
    x, w = arrays
    walk, main = readonly._walk, threading.get_ident()

    def slowly(saved, frozen):
        if threading.get_ident() != main:
            time.sleep(0.05)
        walk(saved, frozen)

    def work():
        F.linear(mr.tensor(np.ones((5, 3))), mr.tensor(np.ones((4, 3)), requires_grad=True))

    monkeypatch.setattr(readonly, "_walk", slowly)
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


INTERRUPTED = """
import gc, random, signal, sys, threading
import numpy as np
import minires as mr
import minires.functional as F
from minires.context import context

signal.signal(signal.SIGINT, signal.default_int_handler)
mr.manual_seed(0)
from minires.nn import BatchNorm2d, Conv2d, Flatten, Linear, ReLU, Sequential
model = Sequential(Conv2d(2, 3, 3), BatchNorm2d(3), ReLU(), Flatten(), Linear(12, 2))
x, labels = np.ones((2, 2, 4, 4), np.float32), np.array([0, 1])
sgd = mr.optim.SGD(model.parameters(), 0.01)
arrays = [x, *(p.data for p in model.parameters())]
random.seed(0)

def step():
    sgd.zero_grad()
    F.cross_entropy(model(mr.tensor(x)), labels).backward()
    sgd.step()

interrupted = stuck = 0
for _ in range(ROUNDS):
    try:
        try:
            signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-5, 1.5e-3))
            for _ in range(50):
                step()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except KeyboardInterrupt:
        interrupted += 1
    gc.collect(0)
    if context.module or not all(a.flags.writeable for a in arrays):
        stuck += 1
        context.module = ""
        for a in arrays:
            a.flags.writeable = True
print(interrupted, stuck)
"""


def interrupts(rounds):
    """(how many of so many rounds of training Ctrl-C ended, after how many of those something was stuck)"""
    code = INTERRUPTED.replace("ROUNDS", str(rounds)).replace("signal.SIGINT", "signal.SIGALRM")
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return tuple(map(int, run.stdout.split()))


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers")
def test_interrupts_leave_nothing_read_only_and_no_module_path(rng):
    interrupted, stuck = interrupts(600)
    assert interrupted > 400
    assert stuck == 0


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers")
def test_ten_thousand_interrupts():
    interrupted, stuck = interrupts(10_000)
    assert interrupted > 7000
    assert stuck == 0
