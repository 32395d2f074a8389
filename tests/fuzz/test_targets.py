"""Every target on its seeds, without Atheris: what is fuzzed elsewhere for hours works at all."""

from __future__ import annotations

import pytest

from fuzz.targets import TARGETS, run_one
from minires.data import cifar10


@pytest.mark.parametrize("name", TARGETS)
def test_seeds(name, monkeypatch):
    for constant in ("RECORDS", "RECORD"):  # the target makes them small
        monkeypatch.setattr(cifar10, constant, getattr(cifar10, constant))
    target, read = TARGETS[name], 0
    for seed in target.seeds():
        run_one(target, seed)
        read += 1
    assert read >= 2


def test_a_finding_is_found(tmp_path):
    """An exception of another kind comes through, and so does an error of more than one line."""
    from dataclasses import replace

    from minires.data import DataError

    def fails(error):
        def read(folder):
            raise error

        return read

    with pytest.raises(KeyError):
        run_one(replace(TARGETS["idx"], read=fails(KeyError("x"))), b"")
    with pytest.raises(ValueError, match="more than one line"):
        run_one(replace(TARGETS["idx"], read=fails(DataError("a\nb"))), b"")
