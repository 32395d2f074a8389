"""The checks must catch every bug that is planted, and find nothing wrong where none is."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import minires as mr
from minires import backends
from minires import functional as F
from minires.backends import reference
from minires.backends.kernels.catalogue import RUNGS
from minires.verify import planted
from minires.verify.cases import CASES
from minires.verify.planted import LAYERS, OPERATIONS, Mutation, build, campaign, catch, caught_by
from minires.verify.planted.kernels import KERNELS
from minires.verify.planted.mutant import Mutant, schema
from minires.verify.planted.trial import complaint, tried
from minires.verify.properties_of_layers import PROPERTIES_OF_LAYERS

CSRC = Path(__file__).parents[2] / "csrc"

# -- operations and layers


@pytest.mark.parametrize("where", [*CASES, *PROPERTIES_OF_LAYERS])
def test_sound_code_passes(where):
    assert caught_by(where) is None


@pytest.mark.parametrize("mutation", [*OPERATIONS, *LAYERS], ids=str)
def test_planted_bug_is_caught(mutation):
    assert catch(mutation) is not None, f"survives: {mutation}"


def test_at_least_five_in_every_operation_and_layer():
    planted_in = Counter(mutation.where for mutation in (*OPERATIONS, *LAYERS))
    assert {where: planted_in[where] for where in (*CASES, *PROPERTIES_OF_LAYERS) if planted_in[where] < 5} == {}
    assert len(set(map(str, OPERATIONS + LAYERS))) == len(OPERATIONS + LAYERS)


def test_a_bug_is_taken_out_again():
    relu = Mutation("relu", reference.relu_forward, "maximum", "minimum")
    x = mr.tensor(np.array([-1.0, 2.0]))
    with mr.backend("reference"):
        with relu.planted():
            np.testing.assert_array_equal(F.relu(x).data, [-1, 0])
        np.testing.assert_array_equal(F.relu(x).data, [0, 2])


def test_a_bug_is_taken_out_after_an_error_too():
    relu = Mutation("relu", reference.relu_forward, "maximum", "no_such_function")
    with mr.backend("reference"):
        with pytest.raises(AttributeError), relu.planted():
            F.relu(mr.tensor(np.ones(2)))
        np.testing.assert_array_equal(F.relu(mr.tensor(np.array([-1.0, 2.0]))).data, [0, 2])


def test_an_edit_that_fits_nothing_is_an_error():
    with pytest.raises(ValueError, match="stands 0 times"):
        catch(Mutation("relu", reference.relu_forward, "no such text", ""))


# -- the count


def test_a_bug_that_survives_is_reported(monkeypatch):
    """minimum(x, 0) is caught by a check, a name that is not there by an error; maximum(0, x) is no bug at all."""
    harmless = ("maximum(x, x.dtype.type(0))", "maximum(x.dtype.type(0), x)")
    edits = [("maximum", "minimum"), ("maximum", "no_such_function"), harmless]
    monkeypatch.setattr(campaign, "OPERATIONS", tuple(Mutation("relu", reference.relu_forward, *e) for e in edits))
    monkeypatch.setattr(campaign, "LAYERS", LAYERS[:1])
    found = planted.report("operations")
    assert [(row.kind, row.where, row.planted, row.caught) for row in found.rows] == [
        ("operation", "relu", 3, 2),
        ("layer", "BatchNorm2d", 1, 1),
    ]
    assert found.rows[0].by == {"check": 1, "error": 1}
    assert str(found) == "4 planted, 3 caught (1 by an error)"
    assert found.lines() == [
        ("operation", "relu", "3", "2 (1 by an error)"),
        ("layer", "BatchNorm2d", "1", "1"),
    ]
    told = json.loads(json.dumps(found.as_dict()))
    assert (told["planted"], told["caught"], told["rows"][0]["by"]) == (4, 3, {"check": 1, "error": 1})
    assert told["rows"][0]["survivors"] == list(found.survivors)
    assert not found.holds
    assert len(found.survivors) == 1
    assert "maximum(x.dtype.type(0), x)" in found.survivors[0]


def test_code_that_does_not_pass_without_a_bug_proves_nothing(monkeypatch):
    monkeypatch.setattr(campaign, "OPERATIONS", (Mutation("relu", reference.relu_backward, "(y > 0", "(y < 0"),))
    monkeypatch.setattr(campaign, "LAYERS", ())
    with Mutation("relu", reference.relu_forward, "maximum", "fmax").planted():
        found = planted.report("operations")
    assert not found.holds
    assert found.unsound == ("operation relu: AssertionError: relu(NaN) must be NaN",)


def test_without_a_compiler_it_is_said(monkeypatch):
    monkeypatch.setattr(campaign, "OPERATIONS", ())
    monkeypatch.setattr(campaign, "LAYERS", ())
    monkeypatch.setenv("CXX", "/nonexistent/c++")
    found = planted.report("all")
    assert found.holds
    assert found.notes == ("nothing was planted in the kernels: they are compiled by g++ on Linux (apt install g++)",)
    with pytest.raises(mr.BackendUnavailable, match="nothing can be planted in the kernels: they are compiled by g"):
        planted.report("kernels")
    monkeypatch.setattr(build, "CSRC", Path("/nonexistent"))
    assert "not part of an installed package" in planted.report("all").notes[0]
    with pytest.raises(ValueError, match="what must be one of 'operations', 'kernels', 'all'; got 'kernel'"):
        planted.report("kernel")


def test_what_the_compiler_says_is_told(monkeypatch, tmp_path):
    if not shutil.which("g++"):
        pytest.skip("no g++")
    cmake = tmp_path / "cmake"
    cmake.write_text("#!/bin/sh\necho 'f.h:3:5: error: no_such_name was not declared'\nexit 1\n")
    cmake.chmod(0o755)
    monkeypatch.setattr(build, "_tool", lambda name: str(cmake) if name == "cmake" else "")
    found = planted.report("kernels")
    assert found.unsound == ("the kernels: they do not compile: f.h:3:5: error: no_such_name was not declared",)
    assert not found.holds


# -- bugs in kernels: the edits; `minires verify --planted` compiles and tries them


def test_every_edit_of_a_kernel_finds_its_place():
    by_file = {}
    for number, mutant in enumerate(KERNELS, 1):
        by_file.setdefault(mutant.file, []).append((number, mutant))
    for file, numbered in by_file.items():
        edited = schema((CSRC / file).read_text(encoding="utf-8"), numbered)
        assert sorted(map(int, re.findall(r"minires_planted == (\d+)", edited))) == [number for number, _ in numbered]


def test_at_least_five_in_every_kernel():
    planted_in = Counter((mutant.module, mutant.where) for mutant in KERNELS)
    assert {key: n for key, n in planted_in.items() if n < 5} == {}
    cuda = re.findall(r"^KERNEL\((\w+)\)", "".join(f.read_text("utf-8") for f in CSRC.glob("cuda/*.cu")), flags=re.M)
    table = re.search(r"struct Kernels \{(.*?)\n\};", (CSRC / "cpu" / "kernels.h").read_text("utf-8"), flags=re.S)
    sizes = {"conv2d_filters_size", "conv2d_working_size"}  # tell how much memory is needed, and compute no result
    cpu = [name for name in re.findall(r"\(\*(\w+)\)", table[1]) if name not in sizes]
    averages = {"average2d_forward", "average2d_backward"}
    assert len(cuda) == 48
    assert averages < set(cpu)
    assert {name for name in cuda if planted_in["_emulation", name] < 5} == set()
    assert {name for name in cpu if planted_in["_native", name] < 5} == set()
    # conv_03 is a gemm of x as it lies, conv_02_im2col_atomic a way back; the others group several kernels.
    groups = {"conv_03_1x1", "conv_02_im2col_atomic", "conv_08_winograd", "conv_backward", "batch_norm", "pool"}
    groups |= {"softmax", "elementwise"}
    assert {rung.name for rung in RUNGS} - groups <= set(cuda)


def test_every_bug_of_a_kernel_is_another_one():
    told = [(m.file, m.scope, m.old, m.new) for m in KERNELS]
    assert [edit for edit, n in Counter(told).items() if n > 1] == []
    assert all(m.checks and m.new != m.old.strip("‹›") for m in KERNELS)


@pytest.mark.parametrize("module", ["_native", "_emulation"])
def test_kernels_without_a_bug_pass_the_checks_that_look_for_bugs(module):
    """Otherwise `minires verify --planted` tries none of the bugs that the same process would plant."""
    if reason := backends.available()[{"_native": "native", "_emulation": "emulated"}[module]]:
        pytest.skip(reason)
    checks = dict.fromkeys(check for mutant in KERNELS if mutant.module == module for check in mutant.checks)
    assert {str(check): found for check in checks if (found := complaint((check,)))} == {}


def mutant(old, new, scope="void f("):
    return Mutant("f", "cuda/f.cu", scope, old, new, ())


SOURCE = "void f(int a) {\n    int b = a + 1;\n    b = b * a;  // here\n}\nvoid g(int a) {\n    b = b * a;\n}\n"


def test_expressions_and_statements_are_selected_by_number():
    edited = schema(SOURCE, [(3, mutant("a + 1", "a - 1")), (4, mutant("a + 1", "1")), (9, mutant("b = b * a;", ""))])
    assert "int b = (minires_planted == 3 ? (a - 1) : minires_planted == 4 ? (1) : (a + 1));" in edited
    assert "{ if (minires_planted == 9) {  } else { b = b * a; } }  // here" in edited
    assert edited.endswith("void g(int a) {\n    b = b * a;\n}\n")


def test_context_says_where_and_is_not_replaced():
    edited = schema(SOURCE, [(1, mutant("‹b = b * a;›  // here", ""))])
    assert "{ if (minires_planted == 1) {  } else { b = b * a; } }  // here" in edited


@pytest.mark.parametrize(
    ("edits", "told"),
    [
        ([mutant("a + 2", "")], "stands 0 times in its scope"),
        ([mutant("b", "")], "stands 3 times in its scope"),
        ([mutant("a + 1", "", "void h(")], "'void h\\(' stands 0 times in the file"),
        ([mutant("b * a", "b"), mutant("b = ‹b› * a", "a")], "overlap"),
    ],
)
def test_an_edit_that_does_not_fit_is_an_error(edits, told):
    with pytest.raises(ValueError, match=told):
        schema(SOURCE, list(enumerate(edits, 1)))


def raises(error):
    def check():
        raise error

    return check


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # here other tests' threads are there, in a trial none
def test_how_a_bug_ends():
    fine = lambda: None  # noqa: E731
    assert complaint((fine,)) is None
    assert complaint((fine, raises(AssertionError("off by 1")))) == ("check", "off by 1")
    assert complaint((raises(RuntimeError("divergent barrier")), fine)) == ("error", "RuntimeError: divergent barrier")
    assert tried(lambda: None) is None
    assert tried(lambda: ("check", "off by 1")) == ("check", "off by 1")
    assert tried(lambda: os.kill(os.getpid(), signal.SIGKILL)) == ("crash", "SIGKILL")
    assert tried(lambda: os._exit(3)) == ("crash", "it ended without a word")
    assert tried(lambda: time.sleep(60), patience=0.2) == ("hang", "no answer in 0.2 s")
