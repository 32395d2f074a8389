"""Choosing a backend, its threads and its scratch memory."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import numpy as np
import pytest
import threadpoolctl

import minires as mr
import minires.functional as F
from minires.backends import reference, workspace


@pytest.fixture
def default(monkeypatch):
    """The backend that computes where none is named."""
    monkeypatch.delenv("MINIRES_BACKEND", raising=False)
    return mr.backends.active()


def test_native_is_the_default_where_it_is_installed_and_reference_otherwise(default):
    expected = "reference" if mr.backends.available()["native"] else "native"
    assert default.name == expected
    assert mr.backends.active("cupy") is reference


def test_without_the_compiled_kernels_one_line_says_that_reference_computes():
    """Once, however much is computed; and nothing where somebody has chosen a backend."""
    code = (
        "import numpy as np, minires as mr, minires.functional as F\n"
        "for _ in range(3): F.relu(np.ones(2))\n"
        "print(mr.backends.active().name)"
    )
    ran = python(code, MINIRES_NATIVE="/nonexistent", MINIRES_BACKEND="")
    assert ran.stdout == "reference\n"
    assert ran.stderr.count("\n") == 1
    assert ran.stderr.startswith("minires: computing with the backend 'reference': backend 'native' cannot be used")
    assert "MINIRES_NATIVE names /nonexistent, which holds no _native" in ran.stderr
    chosen = python(code, MINIRES_NATIVE="/nonexistent", MINIRES_BACKEND="reference")
    assert (chosen.stdout, chosen.stderr) == ("reference\n", "")
    failed = python(code, MINIRES_NATIVE="/nonexistent", MINIRES_BACKEND="native")
    assert failed.returncode == 1
    assert "BackendUnavailable: backend 'native' cannot be used here" in failed.stderr
    threads = "import minires as mr\nmr.set_num_threads(2)\nprint(mr.get_num_threads())"
    assert python(threads, MINIRES_NATIVE="/nonexistent").stdout == "2\n"


def test_the_backend_is_that_of_the_innermost_with_and_comes_back_after_an_error(default):
    with mr.backend("reference") as outer:
        assert mr.backends.active() is outer is reference
        if default is not reference:
            with mr.backend("native") as inner:
                assert mr.backends.active() is inner is not reference
            assert mr.backends.active() is reference
    with pytest.raises(ZeroDivisionError), mr.backend("reference"):
        raise ZeroDivisionError
    assert mr.backends.active() is default


@pytest.mark.parametrize("name", ["refrence", "", None, 3])
def test_an_unknown_backend_is_an_error_that_lists_the_known_ones(name):
    with pytest.raises(ValueError, match="backend must be one of 'reference', 'native'"), mr.backend(name):
        pass


def test_a_near_miss_is_suggested():
    with pytest.raises(ValueError, match="Did you mean 'reference'"), mr.backend("refrence"):
        pass


def test_a_backend_that_is_not_here_raises_and_nothing_falls_back(default):
    missing = [name for name, reason in mr.backends.available().items() if reason]
    for name in missing:
        with pytest.raises(mr.BackendUnavailable, match=name), mr.backend(name):
            pass
    assert mr.backends.active() is default


def test_a_node_stays_with_its_backend_in_backward(rng):
    class Counting:
        """The reference backend under another name, counting the calls that reach it."""

        calls = 0
        array_module = None  # takes every module's arrays

        def __getattr__(self, name):
            function = getattr(reference, name)
            Counting.calls += 1
            return function

    x = mr.tensor(rng.standard_normal((3, 4)), requires_grad=True)
    mr.backends._active.backend = Counting()
    try:
        y = F.relu(x)
    finally:
        mr.backends._active.backend = None
    y.backward(rng.standard_normal((3, 4)))
    assert Counting.calls == 2  # relu_forward within, relu_backward after the block


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], env=os.environ | environment, capture_output=True, text=True, timeout=60
    )


def test_the_environment_sets_the_default():
    assert python("import minires as mr; print(mr.backends.active().name)", MINIRES_BACKEND="reference").stdout == (
        "reference\n"
    )
    failed = python("import minires as mr; mr.backends.active()", MINIRES_BACKEND="refrence")
    assert "MINIRES_BACKEND must be one of" in failed.stderr


def test_set_num_threads_reaches_blas():
    before = mr.get_num_threads()
    try:
        mr.set_num_threads(1)
        assert mr.get_num_threads() == 1
        assert {pool["num_threads"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"} <= {1}
    finally:
        mr.set_num_threads(before)


@pytest.mark.parametrize(("threads", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError), ("2", TypeError)])
def test_a_wrong_number_of_threads_is_an_error(threads, error):
    with pytest.raises(error, match="threads must be"):
        mr.set_num_threads(threads)


def test_scratch_memory_is_reused_and_each_threads_own():
    view = np.zeros((7, 5), np.float32)
    first = workspace.scratch_like(view)
    again = workspace.scratch_like(view)
    assert np.shares_memory(first, again)
    others = []
    thread = threading.Thread(target=lambda: others.append(workspace.scratch_like(view)))
    thread.start()
    thread.join()
    assert not np.shares_memory(first, others[0])


@pytest.mark.parametrize("memory", ["NCHW", "NHWC", "sliced", "transposed"])
def test_strides_change_nothing(rng, memory):
    """Shape is logical, memory is strides: every layout of the same values gives the same bits."""
    x = rng.standard_normal((2, 4, 6, 5))
    laid = {
        "NCHW": x,
        "NHWC": x.transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2),
        "sliced": np.repeat(np.repeat(x, 2, axis=3), 3, axis=1)[:, ::3, :, ::2],
        "transposed": x.T.copy().T,
    }[memory]
    assert np.array_equal(laid, x)
    w = rng.standard_normal((3, 4, 3, 2))
    operations = {
        "conv2d": lambda t: F.conv2d(t, mr.tensor(w), stride=(1, 2), padding=1),
        "batch_norm": lambda t: F.batch_norm(t, None, None, training=True),
        "relu": F.relu,
        "max_pool2d": lambda t: F.max_pool2d(t, 3, 2, 1),
        "avg_pool2d": lambda t: F.avg_pool2d(t, (3, 2), 2, 1),
        "adaptive_avg_pool2d": lambda t: F.adaptive_avg_pool2d(t, (4, 3)),
        "flatten": F.flatten,
    }
    for name, operation in operations.items():
        plain, other = mr.tensor(x, requires_grad=True), mr.tensor(laid, requires_grad=True)
        y, z = operation(plain), operation(other)
        cotangent = rng.standard_normal(y.shape)
        y.backward(cotangent)
        z.backward(np.asfortranarray(cotangent))
        assert np.array_equal(y.data, z.data), name
        assert np.array_equal(plain.grad, other.grad), name
