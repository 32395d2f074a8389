"""Bugs in compiled kernels: the edits, and how each ends.  `python -m tests.mutants cuda cpu` plants them."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from functools import partial

import agreement
import pytest

from minires import backends
from minires.backends.kernels.catalogue import RUNGS
from mutants import bugs, kernels
from mutants.__main__ import ended, run
from mutants.bug import Bug, inside
from mutants.kernels import CSRC, schema

KERNELS = [*bugs("cuda"), *bugs("cpu")]


def test_every_edit_of_a_kernel_finds_its_place():
    by_file = {}
    for number, bug in enumerate(KERNELS, 1):
        by_file.setdefault(bug.file, []).append((number, bug))
    for file, numbered in by_file.items():
        edited = schema((CSRC.parent / file).read_text(encoding="utf-8"), numbered)
        assert sorted(map(int, re.findall(r"minires_planted == (\d+)", edited))) == [number for number, _ in numbered]


def test_at_least_five_in_every_kernel():
    planted_in = {room: Counter(bug.why for bug in bugs(room)) for room in kernels.MODULES}
    assert {(room, where): n for room, counts in planted_in.items() for where, n in counts.items() if n < 5} == {}
    cuda = re.findall(r"^KERNEL\((\w+)\)", "".join(f.read_text("utf-8") for f in CSRC.glob("cuda/*.cu")), flags=re.M)
    table = re.search(r"struct Kernels \{(.*?)\n\};", (CSRC / "cpu" / "kernels.h").read_text("utf-8"), flags=re.S)
    sizes = {"conv2d_filters_size", "conv2d_working_size"}  # return how much memory is needed, and compute no result
    cpu = [name for name in re.findall(r"\(\*(\w+)\)", table[1]) if name not in sizes]
    averages = {"average2d_forward", "average2d_backward"}
    assert len(cuda) == 53
    assert averages < set(cpu)
    assert {name for name in cuda if planted_in["cuda"][name] < 5} == set()
    assert {name for name in cpu if planted_in["cpu"][name] < 5} == set()
    # conv_03 is a gemm of x as it lies, conv_02_im2col_atomic a way back; the others group several kernels.
    groups = {"conv_03_1x1", "conv_02_im2col_atomic", "conv_08_winograd", "conv_backward", "batch_norm", "pool"}
    groups |= {"softmax", "elementwise"}
    assert {rung.name for rung in RUNGS} - groups <= set(cuda)


def test_every_bug_of_a_kernel_is_another_one():
    edits = [(bug.file, bug.scope, bug.old, bug.new) for bug in KERNELS]
    assert [edit for edit, n in Counter(edits).items() if n > 1] == []
    assert all(bug.tests and bug.new != bug.old.strip("‹›") for bug in KERNELS)


@pytest.mark.parametrize(("room", "backend"), [("cpu", "native"), ("cuda", "emulated")])
def test_kernels_without_a_bug_pass_the_checks_that_look_for_bugs(room, backend):
    """Otherwise `python -m tests.mutants` plants none of the bugs that the same checks look for."""
    if reason := backends.available()[backend]:
        pytest.skip(reason)
    checks = dict.fromkeys(check for bug in bugs(room) for check in bug.tests)
    assert [str(check) for check in checks if run((check,))] == []


def bug(old, new, scope="void f("):
    return Bug("csrc/cuda/f.cu", old, new, "f", (), scope)


SOURCE = "void f(int a) {\n    int b = a + 1;\n    b = b * a;  // here\n}\nvoid g(int a) {\n    b = b * a;\n}\n"


def test_expressions_and_statements_are_selected_by_number():
    edited = schema(SOURCE, [(3, bug("a + 1", "a - 1")), (4, bug("a + 1", "1")), (9, bug("b = b * a;", ""))])
    assert "int b = (minires_planted == 3 ? (a - 1) : minires_planted == 4 ? (1) : (a + 1));" in edited
    assert "{ if (minires_planted == 9) {  } else { b = b * a; } }  // here" in edited
    assert edited.endswith("void g(int a) {\n    b = b * a;\n}\n")


def test_context_says_where_and_is_not_replaced():
    edited = schema(SOURCE, [(1, bug("‹b = b * a;›  // here", ""))])
    assert "{ if (minires_planted == 1) {  } else { b = b * a; } }  // here" in edited


@pytest.mark.parametrize(
    ("edits", "message"),
    [
        ([bug("a + 2", "")], "stands 0 times in its scope"),
        ([bug("b", "")], "stands 3 times in its scope"),
        ([bug("a + 1", "", "void h(")], "'void h\\(' stands 0 times in the file"),
        ([bug("b * a", "b"), bug("b = ‹b› * a", "a")], "overlap"),
    ],
)
def test_an_edit_that_does_not_fit_is_an_error(edits, message):
    with pytest.raises(ValueError, match=message):
        schema(SOURCE, list(enumerate(edits, 1)))


def raises(error):
    def check():
        raise error

    return check


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # other tests' threads; the campaign has none
def test_how_a_bug_ends():
    fine = lambda: None  # noqa: E731
    assert run((fine,)) == 0
    assert run((fine, raises(AssertionError("off by 1")))) == 1
    assert run((raises(RuntimeError("divergent barrier")), fine)) == 2
    assert ended(lambda: 0, 60) == ""
    assert ended(lambda: 1, 60) == "check"
    assert ended(lambda: 2, 60) == "error"
    assert ended(lambda: os.kill(os.getpid(), signal.SIGKILL), 60) == "crash"
    assert ended(raises(ValueError), 60) == "error"
    assert ended(lambda: time.sleep(60), 1) == "hang"


def test_without_a_compiler_it_is_said(monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", "/nonexistent/c++")
    with pytest.raises(kernels.NotPlanted, match="they are compiled by g"):
        kernels.Schema("cpu", KERNELS[-1:], tmp_path)


def test_the_compilers_error_is_passed_on(monkeypatch, tmp_path):
    if not shutil.which("g++"):
        pytest.skip("no g++")
    cmake = tmp_path / "cmake"
    cmake.write_text("#!/bin/sh\necho 'f.h:3:5: error: no_such_name was not declared'\nexit 1\n")
    cmake.chmod(0o755)
    monkeypatch.setattr(kernels, "_tool", lambda name: str(cmake) if name == "cmake" else "")
    with pytest.raises(
        kernels.NotPlanted, match=r"they do not compile: f\.h:3:5: error: no_such_name was not declared"
    ):
        kernels.Schema("cpu", KERNELS[-1:], tmp_path / "build")


CHECKS = [partial(agreement.agree_with_reference, "native", "relu")]
BUGS = tuple(
    inside("relu_forward", "cpu/elementwise.h", "void relu_forward(", CHECKS, [
        ("y[i] = ‹rectified(x[i])›", "x[i]"),
        ("y[i] = ‹rectified(x[i])›", "*static_cast<T*>(nullptr)"),
        ("y[i] = ‹rectified(x[i])›", "rectified(x[i]) + T(0)"),  # no bug
    ])
)  # fmt: skip

CAMPAIGN = """
import sys
from mutants import __main__ as campaign, test_kernels
campaign.bugs = lambda room: test_kernels.BUGS
sys.exit(campaign.planted("cpu", "", 1, None))
"""


@pytest.mark.slow
@pytest.mark.skipif(bool(kernels.missing()), reason=kernels.missing())
def test_check_crash_and_survivor():
    environment = os.environ | {"PYTHONPATH": str(CSRC.parent / "tests")}
    command = [sys.executable, "-c", CAMPAIGN]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    survivor, count = ended.stdout.splitlines()[-2:]
    assert survivor.startswith("survives: csrc/cpu/elementwise.h")
    assert "rectified(x[i]) + T(0)" in survivor
    assert count == "cpu: 3 planted, 2 caught (1 by a crash)"
    assert ended.returncode == 1
