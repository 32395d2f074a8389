"""Bugs in compiled kernels: that they are found, and that one which is not is told.

All of them are planted by `minires verify --planted`, which CI runs.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from minires.verify.planted import build, campaign

if build.missing():
    pytest.skip(build.missing(), allow_module_level=True)


@pytest.mark.slow
def test_check_crash_and_survivor(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    said = []
    found = campaign.in_kernels(2, said.append, "planted_for_test:MUTANTS")
    assert found.unsound == ()
    (row,) = found.rows
    assert (row.kind, row.where, row.planted, row.caught) == ("cpu", "relu_forward", 3, 2)
    assert row.by == {"check": 1, "crash": 1}
    assert len(found.survivors) == 1
    assert "rectified(x[i]) + T(0)" in found.survivors[0]
    assert not found.holds
    assert said == ["compiling the kernels with 3 bugs in them, 2 files at a time", "planting them one by one"]


@pytest.mark.slow
def test_a_bug_that_does_not_compile_is_told(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    from planted_for_test import CHECKS

    from minires.verify.planted.mutant import within

    bugs = tuple(within("f", "cpu/elementwise.h", "void relu_forward(", CHECKS, [("‹x + i›)", "no_such_name")]))
    with pytest.raises(build.NotPlanted, match=r"they do not compile: .*elementwise.h:\d+:.*no_such_name"):
        build.build(tmp_path, bugs, 2)
