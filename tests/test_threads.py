"""Threads of one process, each with a tape, a backend and observers of its own; and a process that forks."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from concurrently import at_once

import minires as mr
import minires.functional as F
from minires import backends
from minires.arrays import as_array

BACKENDS = [
    pytest.param(name, marks=[pytest.mark.skip(reason=reason)] if reason else [])
    for name, reason in backends.available().items()
    if name in ("reference", "native")
]


def trained(seed, backend, steps=2):
    """A small network of its own after some steps, its parameters drawn from a generator of its own."""
    rng = np.random.default_rng(seed)
    model = mr.models.create("resnet20", width=4)
    for p in model.parameters():
        p.data[...] = rng.standard_normal(p.shape) * 0.1
    optimizer = mr.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    with mr.backend(backend):
        for _ in range(steps):
            x = rng.standard_normal((4, 3, 12, 12)).astype(np.float32)
            optimizer.zero_grad()
            F.cross_entropy(model(mr.tensor(x)), np.arange(4)).backward()
            optimizer.step()
    return model.state_dict()


def same(one, other):
    assert one.keys() == other.keys()
    for name, array in one.items():
        np.testing.assert_array_equal(array, other[name], err_msg=name)


@pytest.mark.parametrize("backend", BACKENDS)
def test_two_models_train_at_once_as_one_after_the_other(backend):
    expected = [trained(seed, backend) for seed in (1, 2)]
    found = at_once(*(lambda seed=seed: trained(seed, backend) for seed in (1, 2)))
    for one, other in zip(expected, found, strict=True):
        same(one, other)


def test_each_thread_has_a_backend_of_its_own():
    names = [name for name in ("reference", "native") if not backends.available()[name]]
    expected = [trained(3, name) for name in names]
    found = at_once(*(lambda name=name: trained(3, name) for name in names * 2))
    for one, other in zip(expected * 2, found, strict=True):
        same(one, other)


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_model_forward_in_eight_threads(backend, rng):
    """The inference path keeps arranged filters, which all threads share."""
    model = mr.models.create("resnet20", width=4).eval()
    batches = [rng.standard_normal((2, 3, 12, 12)).astype(np.float32) for _ in range(8)]

    def forward(x):
        with mr.backend(backend), mr.no_grad():
            return [model(mr.tensor(x)).data.copy() for _ in range(3)]

    expected = [forward(x) for x in batches]
    for one, other in zip(expected, at_once(*(lambda x=x: forward(x) for x in batches)), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_number_of_threads_may_change_inside_of_threads(backend):
    before = mr.get_num_threads()
    expected = [trained(seed, backend) for seed in (1, 2)]

    def train(seed):
        for threads in (2, 1, 3):
            mr.set_num_threads(threads)
            state = trained(seed, backend)
        return state

    try:
        found = at_once(*(lambda seed=seed: train(seed) for seed in (1, 2)))
    finally:
        mr.set_num_threads(before)
    if backend == "native":  # whose results do not depend on the number of threads; BLAS promises no such thing
        for one, other in zip(expected, found, strict=True):
            same(one, other)


def test_an_observer_sees_its_own_thread_alone():
    class Names(mr.Observer):
        def __init__(self):
            self.seen = []

        def before_forward(self, node, arrays):
            self.seen.append((threading.get_ident(), node.name))

    def watched():
        with Names() as names:
            for _ in range(20):
                F.relu(np.ones((2, 3), np.float32))
        return threading.get_ident(), names.seen

    def unwatched():
        for _ in range(20):
            F.softmax(np.ones((2, 3), np.float32))
        return None, []

    for thread, seen in at_once(watched, unwatched, watched):
        assert all(entry == (thread, "ReLU") for entry in seen)
        assert len(seen) in (0, 20)


def test_threads_that_add_to_one_leaf_lose_no_addition(monkeypatch):
    def slow(array):
        time.sleep(1e-3)  # between the sum and its assignment, where another thread may run
        return as_array(array)

    leaf = mr.tensor(np.zeros((2, 3)), requires_grad=True)

    def walks():
        for _ in range(5):
            leaf.backward(np.ones((2, 3)))

    monkeypatch.setattr("minires.autograd.as_array", slow)
    at_once(*[walks] * 4)
    np.testing.assert_array_equal(leaf.grad, np.full((2, 3), 20.0))


def test_no_grad_is_of_one_thread():
    inside, outside = threading.Event(), threading.Event()

    def without():
        with mr.no_grad():
            inside.set()
            outside.wait(timeout=60)
            return mr.is_grad_enabled()

    def beside():
        inside.wait(timeout=60)
        try:
            return mr.is_grad_enabled()
        finally:
            outside.set()

    assert at_once(without, beside) == [False, True]


def test_dropout_of_a_thread_depends_on_its_own_seed_alone():
    x = np.ones((50, 50), np.float32)

    def masks(seed):
        mr.manual_seed(seed)
        return [F.dropout(x).data.copy() for _ in range(8)]

    expected = [masks(seed) for seed in (1, 2)]
    found = at_once(*(lambda seed=seed: masks(seed) for seed in (1, 2)))
    np.testing.assert_array_equal(expected, found)


FORK = """
import os, warnings, numpy as np, minires as mr, minires.functional as F
warnings.simplefilter("ignore")
mr.set_num_threads(2)
x, w = np.ones((4, 8, 20, 20), np.float32), np.ones((8, 8, 3, 3), np.float32)
def compute():
    y = mr.tensor(x, requires_grad=True)
    z = F.linear(F.flatten(F.conv2d(y, w, padding=1)), np.ones((300, 3200), np.float32))
    z.backward(np.random.default_rng(0).standard_normal(z.shape))
    return y.grad
with mr.backend("BACKEND"):
    expected = compute()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            status = 0 if np.array_equal(compute(), expected) else 2
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    assert np.array_equal(compute(), expected)
import multiprocessing
with multiprocessing.get_context("fork").Pool(2) as pool:
    assert pool.map(abs, [-1, -2]) == [1, 2]
print("done")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("backend", BACKENDS)
def test_fork_after_use_of_threads_and_blas(backend):
    code = FORK.replace("BACKEND", backend)
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert ran.stdout == "done\n", ran.stderr
