"""Planted bugs in compiled kernels: the campaign finds each, and reports one that no check catches.

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
