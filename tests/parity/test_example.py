"""The example that compares a PyTorch network: its mistake is found, and without the mistake all arrays agree."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")


def test_the_wrong_eps_is_found(capsys):
    from examples import own_pytorch  # imports torch

    own_pytorch.main()
    wrong, right = capsys.readouterr().out.splitlines()
    assert wrong.startswith("eps 1e-3: ")
    assert int(wrong.split()[2]) < 10
    assert right.startswith("eps 1e-5: 99 of 99 arrays agree")
